"""A Lennard-Jones force field of argon, switched off smoothly, for tests of dynamics in cells that move."""

import torch
from ase.build import bulk

from mdsim.force_field import ForceField
from mdsim.state import System

EPSILON_EV, SIGMA_A = 0.0104, 3.4
SWITCH_FROM_A, CUTOFF_A = 4.6, 5.9


class SmoothLennardJones(ForceField):
    """Switched off between two distances by 1 - 10 x³ + 15 x⁴ - 6 x⁵, so that forces and their slope are continuous."""

    message_steps = 1

    def __init__(self) -> None:
        super().__init__(cutoff=CUTOFF_A)

    def atomic_energies(self, system, positions, neighbors):
        squared = neighbors.displacements(positions).square().sum(-1)
        sixth = (SIGMA_A**2 / squared) ** 3
        x = ((squared.sqrt() - SWITCH_FROM_A) / (CUTOFF_A - SWITCH_FROM_A)).clamp(0.0, 1.0)
        half = 2 * EPSILON_EV * (sixth.square() - sixth) * (1 + x**3 * (x * (15 - 6 * x) - 10))
        atoms = half.new_zeros(len(positions) * system.n_atoms)
        atoms = atoms.index_add(0, neighbors.first, half).index_add(0, neighbors.second, half)
        return atoms.reshape(len(positions), -1)


def argon(
    structure: str, repeats: int, lattice_A: float, dtype: torch.dtype = torch.float32
) -> tuple[System, torch.Tensor]:
    """A crystal of argon ("fcc" or "sc") in a cube of repeats³ conventional cells, and its positions (Å)."""
    atoms = bulk("Ar", structure, a=lattice_A, cubic=True) * (repeats, repeats, repeats)
    system = System.from_geometry(atoms.numbers, atoms.positions, atoms.cell.array, dtype=dtype)
    return system, torch.tensor(atoms.positions, dtype=dtype)
