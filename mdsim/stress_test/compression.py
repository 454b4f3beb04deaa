"""Compressed cells: molecules move closer without being distorted; networks of bonds are scaled as a whole."""

from __future__ import annotations

import torch

from mdsim.geometry import minimum_image
from mdsim.state import System
from mdsim.typing import Float, Tensor

SAME_A = 1e-3


def compressed(
    system: System, positions: Float[Tensor, "structure atom 3"], percent: float
) -> tuple[System, Float[Tensor, "structure atom 3"]]:
    """The system and its structures in a cell whose edges are shorter by a percentage.

    Args:
        system: with a cell. Its bonds define the molecules.
        positions: Å, with whole molecules.
        percent: reduction of every length of the cell; a negative one expands it.
    """
    assert system.cell is not None
    factor = 1 - percent / 100
    cell = factor * system.cell
    smaller = System(system.atomic_numbers, system.masses, cell, system.bonds, system.molecules)
    if system.n_molecules == 1 or not _are_whole(system, positions):
        return smaller, factor * positions
    weights = system.masses.to(positions)
    index = system.molecules
    total = torch.zeros(system.n_molecules, dtype=positions.dtype).index_add(0, index, weights)
    sums = positions.new_zeros(len(positions), system.n_molecules, 3)
    centers = sums.index_add(1, index, weights[:, None] * positions) / total[:, None]
    return smaller, positions + (factor - 1) * centers[:, index]


def _are_whole(system: System, positions: Float[Tensor, "structure atom 3"]) -> bool:
    """Whether every bond is a difference of positions, so that no bonds form a network through the cell."""
    arms = positions[:, system.bonds[:, 1]] - positions[:, system.bonds[:, 0]]
    return bool((arms - minimum_image(arms, system.cell)).abs().max() < SAME_A) if arms.numel() else True
