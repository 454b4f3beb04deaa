"""Stress of force fields with a closed form. float64."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones as LennardJonesOfASE

from mdsim.force_field import ForceField
from mdsim.geometry import all_pairs, pair_distances
from mdsim.neighbors import neighbors
from mdsim.state import System
from mdsim.stress import energy_forces_stress

EPSILON_EV, SIGMA_A, CUTOFF_A = 0.0104, 3.4, 7.0


class LennardJones(ForceField):
    """Truncated and shifted, like that of ASE."""

    def __init__(self) -> None:
        super().__init__(cutoff=CUTOFF_A)
        self.epsilon = torch.nn.Parameter(torch.tensor(EPSILON_EV, dtype=torch.float64))

    def of_distances(self, distances):
        sixth, at_cutoff = (SIGMA_A / distances) ** 6, (SIGMA_A / CUTOFF_A) ** 6
        shifted = 4 * self.epsilon * (sixth**2 - sixth - at_cutoff**2 + at_cutoff)
        return torch.where(distances < CUTOFF_A, shifted, 0.0)

    def atomic_energies(self, system, positions, neighbors):
        half = 0.5 * self.of_distances(torch.linalg.vector_norm(neighbors.displacements(positions), dim=-1))
        atoms = half.new_zeros(len(positions) * system.n_atoms)
        atoms = atoms.index_add(0, neighbors.first, half).index_add(0, neighbors.second, half)
        return atoms.reshape(len(positions), -1)


class ReadsTheCell(LennardJones):
    """The same for cells wider than twice the cutoff, with distances from the cell instead of the neighbors."""

    def atomic_energies(self, system, positions, neighbors):
        distances = pair_distances(positions, all_pairs(system.n_atoms), system.cell)
        energy = self.of_distances(distances).sum(-1, keepdim=True)
        return (energy / system.n_atoms).expand(-1, system.n_atoms)


def _argon(repeats: int, rattle_A: float = 0.1):
    atoms = bulk("Ar", "fcc", a=5.2) * (repeats, repeats, repeats)
    atoms.set_cell(atoms.cell.array @ [[1.02, 0.03, 0.0], [0.0, 0.99, 0.01], [0.02, 0.0, 1.0]], scale_atoms=True)
    atoms.rattle(rattle_A, seed=3)
    return atoms


def _system(atoms) -> System:
    return System.from_geometry(atoms.numbers, atoms.positions, atoms.cell.array, dtype=torch.float64)


def test_it_is_that_of_another_program():
    atoms = _argon(2)
    atoms.calc = LennardJonesOfASE(epsilon=EPSILON_EV, sigma=SIGMA_A, rc=CUTOFF_A, smooth=False)
    energy, forces, stress = energy_forces_stress(LennardJones(), _system(atoms), torch.tensor(atoms.positions)[None])
    assert energy.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(forces[0], atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(stress[0], atoms.get_stress(voigt=False), atol=1e-12)


def test_pressure_of_a_perfect_crystal_is_minus_the_slope_of_its_energy():
    """E(a) of an fcc crystal is a sum over shells: 12 at a/√2, 6 at a, 24 at a √(3/2); p = -dE/dV."""
    lattice_A = 5.0
    atoms = bulk("Ar", "fcc", a=lattice_A)
    model = LennardJones()
    a = torch.tensor(lattice_A, dtype=torch.float64, requires_grad=True)
    shells = ((12, 0.5), (6, 1.0), (24, 1.5))
    energy = sum(0.5 * n * model.of_distances(a * squared**0.5) for n, squared in shells)
    assert lattice_A * 2**0.5 > CUTOFF_A
    (slope,) = torch.autograd.grad(energy, a)
    pressure = -slope / (0.75 * a.detach() ** 2)
    found, _, stress = energy_forces_stress(model, _system(atoms), torch.tensor(atoms.positions)[None])
    assert pressure > 0.005
    torch.testing.assert_close(found[0], energy.detach())
    torch.testing.assert_close(stress[0], -pressure * torch.eye(3, dtype=torch.float64), rtol=1e-10, atol=1e-14)


def test_it_can_be_differentiated_with_respect_to_parameters():
    """It is proportional to ε."""
    model, atoms = LennardJones(), _argon(2)
    positions = torch.tensor(atoms.positions)[None]
    stress = energy_forces_stress(model, _system(atoms), positions, create_graph=True)[2]
    (gradient,) = torch.autograd.grad(stress[0, 0, 1], model.epsilon)
    torch.testing.assert_close(gradient, stress[0, 0, 1].detach() / EPSILON_EV)


def test_given_neighbors_may_lie_beyond_the_cutoff():
    model, atoms = LennardJones(), _argon(2)
    system, positions = _system(atoms), torch.tensor(atoms.positions)[None]
    more = neighbors(system, positions, CUTOFF_A + 2.0)
    expected = energy_forces_stress(model, system, positions)[2]
    torch.testing.assert_close(energy_forces_stress(model, system, positions, more)[2], expected)


@pytest.mark.parametrize("cell", ["orthorhombic", "triclinic", "not_reduced"])
def test_a_force_field_that_reads_the_cell(cell):
    """With minimum images, which have the derivative with respect to the cell."""
    atoms = bulk("Ar", "fcc", a=5.2, cubic=True) * (3, 3, 3) if cell == "orthorhombic" else _argon(6)
    atoms.rattle(0.2, seed=4)
    if cell == "not_reduced":
        atoms.set_cell([[1, 0, 0], [2, 1, 0], [-1, 1, 1]] @ atoms.cell.array)
    system, positions = _system(atoms), torch.tensor(atoms.positions)[None]
    expected = energy_forces_stress(LennardJones(), system, positions)
    for new, old in zip(energy_forces_stress(ReadsTheCell(), system, positions), expected, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"reads `System.cell`.* one replica at a time"):
        energy_forces_stress(ReadsTheCell(), system, positions.repeat(2, 1, 1))


def test_open_boundaries_are_refused():
    system = System.from_geometry(np.array([18]), np.zeros((1, 3)), dtype=torch.float64)
    with pytest.raises(ValueError, match="open boundaries has no volume"):
        energy_forces_stress(LennardJones(), system, torch.zeros(1, 1, 3, dtype=torch.float64))
