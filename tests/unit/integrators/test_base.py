"""A custom integrator with only settings and a step, and the defaults of the base class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from analytic_potentials import system_of, wells

from mdsim.integrators import BaseIntegrator
from mdsim.interfaces import Integrator
from mdsim.state import MDState
from mdsim.units import FS

STIFFNESS, MASS = 3.0, 2.0


@dataclass(frozen=True)
class Kicked(BaseIntegrator):
    """Free flight, and a random velocity of a given size."""

    speed: float
    direction: float = -1.0

    positive: ClassVar[tuple[str, ...]] = ("timestep_fs", "speed")

    def noise_shape(self, system):
        return system.n_atoms, 3

    def step(self, system, potential, state, noise=None):
        velocities = self.direction * self.speed * self.required(system, state, noise)
        positions = state.positions + self.timestep_fs * FS * state.velocities
        energy, forces = potential(positions)
        return MDState(positions, velocities, forces, energy)


def begin(integrator: BaseIntegrator) -> MDState:
    positions = torch.arange(6.0, dtype=torch.float64).reshape(1, 2, 3)
    return integrator.init(system_of([6, 1], [MASS, MASS]), wells(STIFFNESS), positions, torch.ones_like(positions))


def test_a_step_makes_an_integrator():
    integrator = Kicked(0.5, speed=0.1)
    assert isinstance(integrator, Integrator)
    state = begin(integrator)
    torch.testing.assert_close(state.forces, -STIFFNESS * state.positions)
    assert state.thermostat is None
    potential_energy = 0.5 * STIFFNESS * (0 + 1 + 4 + 9 + 16 + 25)
    kinetic_energy = 0.5 * MASS * 6  # six velocities of one
    system = system_of([6, 1], [MASS, MASS])
    assert integrator.conserved(system, state).tolist() == [potential_energy + kinetic_energy]
    after = integrator.step(system, wells(STIFFNESS), state, torch.ones(1, 2, 3))
    torch.testing.assert_close(after.positions, state.positions + 0.5 * FS)


def test_without_a_step_there_is_no_integrator():
    with pytest.raises(TypeError, match="abstract"):
        BaseIntegrator(1.0)


@pytest.mark.parametrize(("conserves", "open_molecule", "periodic"), [(True, 3, 6), (False, 9, 9)])
def test_momenta_that_are_conserved_are_not_free(conserves, open_molecule, periodic):
    integrator = type("Variant", (Kicked,), {"conserves_momentum": conserves})(0.5, 0.1)
    box = (10.0 * torch.eye(3)).tolist()
    assert integrator.degrees_of_freedom(system_of([6, 1, 1], [12.0, 1.0, 1.0])) == open_molecule
    assert integrator.degrees_of_freedom(system_of([6, 1, 1], [12.0, 1.0, 1.0], box)) == periodic


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_that_must_be_positive_are_named(wrong):
    with pytest.raises(ValueError, match="Kicked: speed must be a finite number greater than zero"):
        Kicked(0.5, speed=wrong)
    with pytest.raises(ValueError, match="Kicked: timestep_fs must be"):
        Kicked(wrong, speed=0.1)
    assert Kicked(0.5, speed=0.1, direction=-1.0).direction == -1.0  # which may be negative
