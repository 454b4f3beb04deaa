"""Launches of kernels and waits of the host, counted on the pretend device: per MD step, rebuild and gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from force_fields import build
from pretend_device import Ledger, pretend_cuda
from reruns import samples_of
from tiny import SHIFT_EV, frames, water

from mdsim import losses
from mdsim.dynamics.simulate import simulate
from mdsim.integrators import (
    LangevinBAOAB,
    MartynaTobiasKlein,
    NoseHooverChain,
    PaperEuler,
    StochasticCellRescaling,
    VelocityVerlet,
)
from mdsim.moving_cells import bind_in_cells
from mdsim.observables import RDF
from mdsim.state import System, Trajectory
from mdsim.training.terms import ContrastTerm, EnergyForceTerm, LabeledFrames, ObservableTerm, Target

MODELS = {"schnet": "schnet", "nequip": "nequip_l1", "gemnet_t": "gemnet_t"}
INTEGRATORS = {
    "velocity_verlet": VelocityVerlet(0.5),
    "langevin": LangevinBAOAB(0.5, 300.0, 1.0),
    "paper_euler": PaperEuler(0.5, 300.0, 1.0),
    "nose_hoover": NoseHooverChain(0.5, 300.0, 20.0),
}
BAROSTATS = {
    f"cell_rescaling, {scaling}": StochasticCellRescaling(INTEGRATORS["langevin"], 1.0, 100.0, 4.5e-5, scaling)
    for scaling in ("isotropic", "anisotropic")
}
BAROSTATS |= {
    f"mtk, {scaling}": MartynaTobiasKlein(INTEGRATORS["nose_hoover"], 1.0, 100.0, scaling)
    for scaling in ("isotropic", "full")
}


class Work(NamedTuple):
    """What the device and the host had to do."""

    launches: int
    waits: int
    kinds: tuple[str, ...]  # of waits
    report: str


def _work(ledger: Ledger) -> Work:
    return Work(ledger.n_launches, ledger.n_waits, tuple(ledger.waits), ledger.report())


def _liquid(n_molecules: int, edge_A: float, triclinic: bool) -> tuple[System, torch.Tensor]:
    """Two replicas of water molecules on a grid, in a periodic cell."""
    one = water().to(dtype=torch.float32)
    side = round(n_molecules ** (1 / 3))
    centers = torch.cartesian_prod(*[torch.arange(side)] * 3) * edge_A / side
    at = frames(2 * n_molecules).positions.reshape(2, n_molecules, 3, 3) + centers[:, None]
    cell = torch.diag(torch.full((3,), edge_A))
    cell[1, 0] = 0.2 * edge_A * triclinic
    bonds = (torch.tensor([[0, 1], [0, 2]]) + 3 * torch.arange(n_molecules)[:, None, None]).reshape(-1, 2)
    system = System.from_bonds(one.atomic_numbers.repeat(n_molecules).numpy(), bonds, cell)
    return system, at.reshape(2, -1, 3)


#: Systems: name to a function that gives the system and positions of two replicas.
SYSTEMS: dict[str, Callable[[], tuple[System, torch.Tensor]]] = {
    "molecule": lambda: (water(torch.float32), frames(2).positions),
    "all pairs": lambda: _liquid(8, 8.0, triclinic=True),  # the direct search, with images
    "cell list": lambda: _liquid(125, 25.0, triclinic=False),
}


def of_step(model: str, system: str) -> tuple[Work, Work]:
    """The work of the potential in a step between rebuilds of the neighbor list, and in one with a rebuild."""
    with pretend_cuda() as ledger:
        chosen, positions = SYSTEMS[system]()
        chosen, positions = chosen.to("cuda"), positions.to("cuda")
        potential = build(MODELS[model]).float().to("cuda").bind(chosen, fast=True)
        for _ in range(10):  # from the ninth on the check of the list does not stop the queue
            potential(positions)
        ledger.reset()
        potential(positions + 0.01)
        plain = _work(ledger)
        moved = positions.clone()
        moved[1, :3] += 0.3
        ledger.reset()
        potential(moved)
        return plain, _work(ledger)


def of_integrator(name: str) -> Work:
    """The work of an integrator in a step, without that of the potential and of random numbers."""
    integrator = INTEGRATORS[name]
    with pretend_cuda() as ledger:
        system = water(torch.float32).to("cuda")
        positions = frames(2).positions.to("cuda")
        energy, forces = torch.zeros(2, device="cuda"), torch.zeros_like(positions)
        state = integrator.init(system, lambda at: (energy, forces), positions, torch.zeros_like(positions))
        shape = integrator.noise_shape(system)
        noise = None if shape is None else torch.zeros(2, *shape, device="cuda")
        with torch.no_grad():
            for _ in range(2):
                ledger.reset()
                integrator.step(system, lambda at: (energy, forces), state, noise)
        return _work(ledger)


def of_barostat(name: str) -> Work:
    """The same of a barostat in a step."""
    barostat = BAROSTATS[name]
    with pretend_cuda() as ledger:
        system, positions = (one.to("cuda") for one in _liquid(8, 8.0, triclinic=True))
        found = torch.zeros(2, device="cuda"), torch.zeros_like(positions), torch.zeros(2, 3, 3, device="cuda")
        potential = lambda at, cells: found  # noqa: E731
        state = barostat.init(system, potential, positions, torch.zeros_like(positions))
        shape = barostat.noise_shape(system)
        noise = None if shape is None else torch.zeros(2, *shape, device="cuda")
        with torch.no_grad():
            for _ in range(2):
                ledger.reset()
                barostat.step(system, potential, state, noise)
        return _work(ledger)


def of_step_in_cells() -> tuple[Work, Work]:
    """The work of the potential in moving cells between rebuilds of the neighbor list, and with a rebuild."""
    with pretend_cuda() as ledger:
        system, positions = (one.to("cuda") for one in _liquid(8, 8.0, triclinic=True))
        potential = bind_in_cells(build("schnet").float().to("cuda"), system, fast=True)
        cells = system.cell.repeat(2, 1, 1)
        for _ in range(10):  # as in `of_step`
            potential(positions, cells)
        ledger.reset()
        potential(1.001 * positions, 1.001 * cells)
        plain = _work(ledger)
        moved = positions.clone()
        moved[1, :3] += 0.3
        ledger.reset()
        potential(moved, cells)
        return plain, _work(ledger)


def of_dynamics(n_steps: int) -> Work:
    """The work of a stretch of Langevin dynamics with a single frame, random numbers included."""
    with pretend_cuda() as ledger:
        system = water(torch.float32).to("cuda")
        positions = frames(2).positions.to("cuda")
        potential, integrator = build("schnet").float().to("cuda").bind(system, fast=True), INTEGRATORS["langevin"]
        state = integrator.init(system, potential, positions, torch.zeros_like(positions))
        for _ in range(2):
            ledger.reset()
            simulate(system, potential, integrator, state, n_steps, n_steps, torch.Generator().manual_seed(0))
        return _work(ledger)


def of_gradient(term: str) -> Work:
    """The work of the gradient of a loss term on twenty structures, for SchNet, in one minibatch."""
    with pretend_cuda() as ledger:
        system, model = water().to("cuda"), build("schnet").to("cuda")
        at = frames(20).positions.double().to("cuda").reshape(5, 4, 3, 3)
        energy = model(system, at.flatten(0, 1))[0].reshape(5, 4)
        samples = samples_of(Trajectory(at, torch.zeros_like(at), energy, 2.0), model, system)
        labeled = frames(20)
        labels = LabeledFrames(
            at.flatten(0, 1), (labeled.energy - SHIFT_EV).to("cuda"), labeled.forces.double().to("cuda")
        )
        rdf = RDF(4.0, 0.1)
        reference = rdf(system, samples.trajectory).mean((0, 1))

        def loss(*errors):
            return losses.energy_force_loss(*errors, energy_weight=1.0, force_weight=1.0)

        terms = {
            "observables": ObservableTerm([Target(rdf, reference, losses.reverse_kl)]),
            "contrast": ContrastTerm(system, at.flatten(0, 1)),
            "energies_forces": EnergyForceTerm(system, labels, loss),
        }
        for _ in range(2):
            ledger.reset()
            terms[term].gradient(model, replace(samples, _values={}))
        return _work(ledger)


def table() -> dict[str, tuple[int, int]]:
    """All figures: launches and waits by what is done."""
    found = {}
    for model in MODELS:
        for system in SYSTEMS:
            plain, rebuild = of_step(model, system)
            found[f"{model}, {system}, step"] = plain
            if system != "molecule":
                found[f"{model}, {system}, rebuild"] = rebuild
    found |= {f"{name}, step": of_integrator(name) for name in INTEGRATORS}
    found |= {f"{name}, step": of_barostat(name) for name in BAROSTATS}
    found["schnet, moving cells, step"], found["schnet, moving cells, rebuild"] = of_step_in_cells()
    found |= {f"gradient of {name}": of_gradient(name) for name in ("observables", "contrast", "energies_forces")}
    return {name: (work.launches, work.waits) for name, work in found.items()}


if __name__ == "__main__":
    for name, (launches, waits) in table().items():
        print(f'    "{name}": ({launches}, {waits}),')
