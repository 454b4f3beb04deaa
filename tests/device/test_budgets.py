"""Budgets: the launches of kernels and the waits of the host that a step, a rebuild or a gradient may cost.

A test fails when a figure grows, and when it shrinks without the table being told. Print the table anew by
`PYTHONPATH=.:tests/support python tests/support/device_work.py`. The single wait of steps with a neighbor list is for
an event: the host reads whether the list is valid while the device computes.
"""

import pytest
from device_work import (
    BAROSTATS,
    INTEGRATORS,
    MODELS,
    SYSTEMS,
    Work,
    of_barostat,
    of_dynamics,
    of_gradient,
    of_integrator,
    of_step,
    of_step_in_cells,
)

#: Launches and waits, for two replicas and the small models of the contract suite.
BUDGET = {
    "schnet, molecule, step": (175, 0),
    "schnet, all pairs, step": (190, 1),
    "schnet, all pairs, rebuild": (436, 6),
    "schnet, cell list, step": (190, 1),
    "schnet, cell list, rebuild": (530, 11),
    "nequip, molecule, step": (340, 0),
    "nequip, all pairs, step": (355, 1),
    "nequip, all pairs, rebuild": (766, 6),
    "nequip, cell list, step": (355, 1),
    "nequip, cell list, rebuild": (860, 11),
    "gemnet_t, molecule, step": (940, 0),
    "gemnet_t, all pairs, step": (999, 1),
    "gemnet_t, all pairs, rebuild": (2073, 8),
    "gemnet_t, cell list, step": (1263, 1),
    "gemnet_t, cell list, rebuild": (2701, 13),
    "velocity_verlet, step": (3, 0),
    "langevin, step": (6, 0),
    "paper_euler, step": (4, 0),
    "nose_hoover, step": (279, 0),
    "cell_rescaling, isotropic, step": (33, 0),
    "cell_rescaling, anisotropic, step": (51, 0),
    "mtk, isotropic, step": (718, 0),
    "mtk, full, step": (716, 0),
    "schnet, moving cells, step": (239, 1),
    "schnet, moving cells, rebuild": (560, 21),
    "gradient of observables": (411, 13),
    "gradient of contrast": (614, 7),
    "gradient of energies_forces": (610, 4),
}
SLACK = 1.05  # of launches, for other releases of torch


def check(name: str, work: Work) -> None:
    launches, waits = BUDGET[name]
    assert work.waits == waits, f"{name}: {work.report}"
    assert launches / SLACK <= work.launches <= launches * SLACK, f"{name}: {work.report}"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("model", MODELS)
def test_steps(model, system):
    plain, rebuild = of_step(model, system)
    check(f"{model}, {system}, step", plain)
    if system != "molecule":
        check(f"{model}, {system}, rebuild", rebuild)
    assert set(plain.kinds) <= {"event"}, plain.report


@pytest.mark.parametrize("name", INTEGRATORS)
def test_integrators(name):
    check(f"{name}, step", of_integrator(name))


@pytest.mark.parametrize("name", BAROSTATS)
def test_barostats(name):
    check(f"{name}, step", of_barostat(name))


def test_steps_in_moving_cells():
    plain, rebuild = of_step_in_cells()
    check("schnet, moving cells, step", plain)
    check("schnet, moving cells, rebuild", rebuild)
    assert set(plain.kinds) <= {"event"}, plain.report


@pytest.mark.parametrize("name", ["observables", "contrast", "energies_forces"])
def test_gradients(name):
    check(f"gradient of {name}", of_gradient(name))


def test_a_stretch_waits_no_more_often_than_a_step():
    assert of_dynamics(2).waits == of_dynamics(12).waits
