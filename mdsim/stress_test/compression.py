"""Compressed cells: molecules move closer without being distorted; networks of bonds are scaled as a whole."""

from __future__ import annotations

from dataclasses import replace

from mdsim.geometry import minimum_image
from mdsim.state import System
from mdsim.stress_test.structure import Structure
from mdsim.typing import Float, Tensor

SAME_A = 1e-3


def compressed(structure: Structure, percent: float) -> Structure:
    """The structure in a cell whose edges are shorter by a percentage.

    Args:
        structure: with a cell, and whole molecules.
        percent: reduction of every length of the cell.
    """
    system, positions, factor = structure.system, structure.positions, 1 - percent / 100
    assert system.cell is not None
    cell, moved = factor * system.cell, factor * positions
    if system.n_molecules > 1 and _are_whole(system, positions):
        moved = positions + (factor - 1) * _centers(system, positions)
    smaller, topology = replace(system, cell=cell), replace(structure.topology, cell=cell)
    return replace(structure, system=smaller, topology=topology, positions=moved)


def _centers(system: System, positions: Float[Tensor, "structure atom 3"]) -> Float[Tensor, "structure atom 3"]:
    """Center of mass of the molecule of each atom, Å."""
    weights = system.masses.to(positions)
    total = weights.new_zeros(system.n_molecules).index_add(0, system.molecules, weights)
    sums = positions.new_zeros(len(positions), system.n_molecules, 3)
    sums = sums.index_add(1, system.molecules, weights[:, None] * positions)
    return (sums / total[:, None])[:, system.molecules]


def _are_whole(system: System, positions: Float[Tensor, "structure atom 3"]) -> bool:
    """Whether every bond is a difference of positions, so that no bonds form a network through the cell."""
    arms = positions[:, system.bonds[:, 1]] - positions[:, system.bonds[:, 0]]
    return not len(system.bonds) or bool((arms - minimum_image(arms, system.cell)).abs().max() < SAME_A)
