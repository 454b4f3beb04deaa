"""The screened Coulomb repulsion against its closed form, finite differences and two other programs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from scattered_waters import waters

from mdsim.neighbors import Neighbors, neighbors
from mdsim.repulsion.zbl import ZBL, Window, pair_name, parsed
from mdsim.state import System

EVERYWHERE = Window(98.0, 99.0)  # never switched off at the distances of these tests
WINDOWS = {(1, 1): Window(1.1, 1.7), (1, 8): Window(1.0, 1.9), (8, 8): Window(1.5, 2.8)}


def dimer(a: int, b: int, distances: list[float]) -> tuple[System, torch.Tensor]:
    positions = torch.zeros(len(distances), 2, 3, dtype=torch.float64)
    positions[:, 1] = torch.tensor(distances, dtype=torch.float64)[:, None] * torch.tensor(
        [0.6, 0.0, 0.8], dtype=torch.float64
    )
    return System.from_bonds(np.array([a, b]), torch.zeros(0, 2, dtype=torch.long), dtype=torch.float64), positions


def energies(zbl: ZBL, system: System, positions: torch.Tensor) -> torch.Tensor:
    return zbl.atomic_energies(system, positions, neighbors(system, positions, zbl.reach_A)).sum(-1)


def closed_form(a: int, b: int, r: float, window: Window = EVERYWHERE) -> float:
    """U(r) in plain numbers, from SI constants (CODATA 2018)."""
    coulomb = 1.602176634e-19 / (4 * math.pi * 8.8541878128e-12) * 1e10  # eV Å
    x = r * (a**0.23 + b**0.23) / 0.4685
    phi = 0.18175 * math.exp(-3.1998 * x) + 0.50986 * math.exp(-0.94229 * x)
    phi += 0.28022 * math.exp(-0.4029 * x) + 0.02817 * math.exp(-0.20162 * x)
    t = min(max((r - window.on_A) / (window.off_A - window.on_A), 0.0), 1.0)
    return coulomb * a * b / r * phi * (1 - 10 * t**3 + 15 * t**4 - 6 * t**5)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 8), (8, 8), (6, 53)])
def test_two_atoms_against_the_closed_form(a, b):
    window, distances = Window(0.9, 1.6), [0.05, 0.3, 0.89, 1.0, 1.3, 1.59, 1.61]
    system, positions = dimer(a, b, distances)
    for zbl in (ZBL.of("all", {(a, b): window}), ZBL.of("all", {(a, b): EVERYWHERE})):
        expected = [closed_form(a, b, r, dict(zbl.windows)[a, b]) for r in distances]
        found = energies(zbl, system, positions)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=3e-8, atol=0)


def test_two_hydrogens_in_numbers():
    found = energies(ZBL.of("all", {(1, 1): EVERYWHERE}), *dimer(1, 1, [1.2, 1.0, 0.8, 0.7]))
    assert found.tolist() == pytest.approx([0.60, 1.03, 1.90, 2.67], abs=0.01)


def test_the_bare_coulomb_energy_of_touching_nuclei():
    found = energies(ZBL.of("all", {(8, 8): EVERYWHERE}), *dimer(8, 8, [1e-6]))
    assert found.item() == pytest.approx(14.399645 * 64 / 1e-6, rel=1e-4)


def test_each_atom_has_half_of_the_energy():
    system, positions = dimer(1, 8, [0.8])
    zbl = ZBL.of("all", WINDOWS)
    one, other = zbl.atomic_energies(system, positions, neighbors(system, positions, 3.0))[0]
    assert one == other > 1


def test_forces_repel_and_are_continuous_to_the_second_derivative():
    zbl, grid = ZBL.of("all", {(1, 1): WINDOWS[1, 1]}), torch.linspace(0.3, 2.0, 341, dtype=torch.float64)
    system, _ = dimer(1, 1, [1.0])
    pair = Neighbors(torch.tensor([0]), torch.tensor([1]), None)

    def energy(r: torch.Tensor) -> torch.Tensor:
        return zbl.atomic_energies(
            system, torch.stack([torch.zeros(3).double(), r * torch.eye(3)[0]])[None], pair
        ).sum()

    def slope(r: torch.Tensor) -> torch.Tensor:
        return torch.autograd.functional.jacobian(energy, r, create_graph=True)

    slopes = torch.stack([slope(r) for r in grid])
    assert (slopes <= 0).all() and (slopes[grid < 1.69] < 0).all()
    for edge in WINDOWS[1, 1]:
        curvatures = [torch.autograd.functional.jacobian(slope, torch.tensor(edge + s).double()) for s in (-1e-7, 1e-7)]
        assert abs(curvatures[1] - curvatures[0]) < 1e-4


@pytest.mark.parametrize("selection", ["all", "nonbonded", "between_molecules"])
@pytest.mark.parametrize("periodic", [False, True])
def test_first_and_second_derivatives_against_finite_differences(selection, periodic):
    cell = torch.tensor([[5.0, 0, 0], [1.5, 4.6, 0], [-1.0, 0.7, 4.4]]) if periodic else None
    system, trajectory = waters(5, cell, 2, torch.float64)
    system = system if periodic else replace(system, cell=None)
    positions = trajectory.positions[0, :1].clone() / (1 if periodic else 6)
    zbl = ZBL.of(selection, WINDOWS)
    pairs = neighbors(system, positions, 3.5)

    def function(x: torch.Tensor) -> torch.Tensor:
        return zbl.atomic_energies(system, x, pairs)

    assert function(positions).sum() > 0.1
    assert torch.autograd.gradcheck(function, positions.requires_grad_(), rtol=1e-5)
    assert torch.autograd.gradgradcheck(function, positions, rtol=1e-4)


def test_against_nequip():
    """Its formula, without the envelope that it multiplies with."""
    potentials = pytest.importorskip("nequip.nn.pair_potential")
    a, b = (torch.tensor(atomic_numbers[symbol]) for symbol in ("H", "O"))
    distances = torch.linspace(0.2, 3.0, 29, dtype=torch.float64)
    edges = torch.stack([torch.zeros(29, dtype=torch.long), torch.ones(29, dtype=torch.long)])
    theirs = potentials._ZBL()(torch.stack([a, b]).double(), distances, torch.tensor([0, 1]), edges, 14.399645)
    system, positions = dimer(int(a), int(b), distances.tolist())
    torch.testing.assert_close(
        energies(ZBL.of("all", {(1, 8): EVERYWHERE}), system, positions), theirs, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("selection", ["all", "nonbonded", "between_molecules"])
def test_energies_and_forces_of_a_liquid_against_openmm(selection):
    """Windows, exclusions and periodic images, computed by another program from the formulas as text."""
    openmm = pytest.importorskip("openmm")
    cell = torch.tensor([[9.0, 0, 0], [1.5, 9.2, 0], [-1.0, 0.7, 9.4]])
    system, trajectory = waters(25, cell, 2, torch.float64)
    positions = trajectory.positions[0, :1].clone().requires_grad_()
    energy = energies(ZBL.of(selection, WINDOWS), system, positions)
    forces = -torch.autograd.grad(energy.sum(), positions)[0]
    their_energy, their_forces = _openmm(openmm, selection, system, positions[0].detach())
    assert energy.item() == pytest.approx(their_energy, rel=1e-6) and their_energy > 1
    torch.testing.assert_close(forces[0], their_forces, rtol=1e-5, atol=1e-5)


def _openmm(openmm, selection: str, system: System, positions: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Energy (eV) and forces (eV/Å)."""
    kj_per_mol, nm = 96.48533212331, 10.0
    text = """scale * 14.3996454784255 * z1 * z2 / r * phi * (1 - t^3 * (10 - 15*t + 6*t^2));
        t = min(1, max(0, (d - on(kind1, kind2)) / (off(kind1, kind2) - on(kind1, kind2))));
        phi = 0.18175*exp(-3.1998*x) + 0.50986*exp(-0.94229*x) + 0.28022*exp(-0.4029*x) + 0.02817*exp(-0.20162*x);
        x = d * (z1^0.23 + z2^0.23) / 0.4685; d = 10 * r"""
    force = openmm.CustomNonbondedForce(text.replace("scale", str(kj_per_mol / nm)))
    for name, place in (("on", 0), ("off", 1)):
        values = [WINDOWS[pair][place] for pair in ((1, 1), (1, 8), (1, 8), (8, 8))]
        force.addTabulatedFunction(name, openmm.Discrete2DFunction(2, 2, values))
    force.addPerParticleParameter("z")
    force.addPerParticleParameter("kind")
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(0.3)
    world = openmm.System()
    for number in system.atomic_numbers.tolist():
        world.addParticle(1.0)
        force.addParticle([number, int(number == 8)])
    if selection != "all":  # in water, the pairs with one or two bonds between them are those of a molecule
        force.createExclusionsFromBonds(system.bonds.tolist(), 2)
    world.setDefaultPeriodicBoxVectors(*(system.cell / nm).tolist())
    world.addForce(force)
    context = openmm.Context(world, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions((positions / nm).tolist())
    state = context.getState(energy=True, forces=True)
    forces = torch.tensor(state.getForces(asNumpy=True)._value)
    return state.getPotentialEnergy()._value / kj_per_mol, forces / kj_per_mol / nm


def test_replicas_are_independent():
    system, trajectory = waters(8, 7.0 * torch.eye(3), 2, torch.float64)
    zbl, positions = ZBL.of("between_molecules", WINDOWS), trajectory.positions.flatten(0, 1)
    together = energies(zbl, system, positions)
    for replica in range(3):  # the last one is broken
        torch.testing.assert_close(
            together[replica : replica + 1], energies(zbl, system, positions[replica : replica + 1])
        )
    assert together[:3].isfinite().all()


def test_elements_without_a_window_do_not_repel_each_other():
    system, positions = dimer(1, 8, [0.5])
    assert energies(ZBL.of("all", {(1, 1): WINDOWS[1, 1]}), system, positions).item() == 0


def test_settings_are_plain_data_that_make_the_same_again():
    zbl = ZBL.of("nonbonded", WINDOWS)
    windows = {"H-H": [1.1, 1.7], "H-O": [1.0, 1.9], "O-O": [1.5, 2.8]}
    assert zbl.settings == {"name": "zbl", "pairs": "nonbonded", "windows_A": windows}
    assert ZBL.from_settings(zbl.settings) == zbl
    assert zbl.reach_A == 2.8


@pytest.mark.parametrize(
    ("windows_A", "message"),
    [
        ({"H-X": [1, 2]}, "'H-X' is no pair of elements"),
        ({"OH": [1, 2]}, "'OH' is no pair of elements; write it as H-O"),
        ({"H-O": [1, 2], "O-H": [1, 2]}, "'O-H' is there twice"),
        ({"H-O": [2, 1]}, r"the window of H-O is \[2, 1\] Å"),
        ({"H-O": [1, math.inf]}, "the window of H-O"),
        ({}, "needs the window of one pair"),
    ],
)
def test_windows_that_are_none(windows_A, message):
    with pytest.raises(ValueError, match=message):
        ZBL.of("all", parsed(windows_A))


def test_selections_that_are_none():
    with pytest.raises(ValueError, match="found 'some'; use one of nonbonded, between_molecules, all"):
        ZBL.of("some", WINDOWS)
    assert pair_name((1, 8)) == "H-O"
