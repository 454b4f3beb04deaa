"""Potentials with closed forms for tests of dynamics. Each is a `mdsim.interfaces.Potential`."""

import torch

from mdsim.state import System


def system_of(numbers, masses, cell=None, dtype=torch.float64) -> System:
    """A system without bonds."""
    return System(
        atomic_numbers=torch.tensor(numbers),
        masses=torch.tensor(masses, dtype=dtype),
        cell=None if cell is None else torch.tensor(cell, dtype=dtype),
        bonds=torch.zeros(0, 2, dtype=torch.long),
        molecules=torch.arange(len(numbers)),
    )


def wells(stiffness):
    """Independent harmonic wells at the origin, k in eV/Å² (a number or a tensor): U = k x²/2. Differentiable."""

    def potential(positions):
        return 0.5 * (stiffness * positions.square()).sum((-2, -1)), -stiffness * positions

    return potential


def bond(stiffness, length):
    """A harmonic bond between two atoms: U = k (r - r0)²/2."""

    def potential(positions):
        arm = positions[:, 1] - positions[:, 0]
        distance = torch.linalg.vector_norm(arm, dim=-1, keepdim=True)
        pull = stiffness * (distance - length) * arm / distance
        return 0.5 * (stiffness * (distance - length).square()).sum(-1), torch.stack([pull, -pull], dim=1)

    return potential


def lennard_jones(epsilon, sigma):
    """All pairs of an open system, without cutoff: U = 4ε Σ (σ¹²/r¹² - σ⁶/r⁶). Differentiable."""

    def potential(positions):
        n_atoms = positions.shape[1]
        arms = positions[:, :, None] - positions[:, None]
        identity = torch.eye(n_atoms, dtype=positions.dtype)[:, :, None]
        squared = (arms.square().sum(-1, keepdim=True)) + identity
        sixth = (sigma**2 / squared) ** 3 * (1 - identity)
        forces = (24 * epsilon * (2 * sixth**2 - sixth) / squared * arms).sum(2)
        return 2 * epsilon * (sixth**2 - sixth).sum((-3, -2, -1)), forces

    return potential


def free(positions):
    """No forces."""
    return 0 * positions.sum((-2, -1)), 0 * positions
