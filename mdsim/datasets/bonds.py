"""Bonds of many frames by covalent radii, in time and memory linear in frames and atoms, for any cell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import natural_cutoffs

from mdsim.neighbors import pairs_within
from mdsim.state import BOND_TOLERANCE
from mdsim.typing import Bool, Float, Int, Tensor

ATOMS_AT_ONCE = 100_000  # total over several frames; limits the memory


def bond_radii(atomic_numbers: Int[Tensor, "atom"]) -> Float[Tensor, "atom"]:
    """Bond radius of each atom, Å. Two atoms closer than the sum of their radii are bonded."""
    return torch.as_tensor(np.array(natural_cutoffs(Atoms(atomic_numbers.numpy()), mult=BOND_TOLERANCE)))


def close_pairs(
    positions: Float[Tensor, "frame atom 3"], cell: Float[Tensor, "3 3"] | None, radii: Float[Tensor, "atom"]
) -> Iterator[tuple[Int[Tensor, "close"], Int[Tensor, "close 2"], Float[Tensor, "close"]]]:
    """Pairs of different atoms closer than the sum of their radii, for a few frames at a time.

    Args:
        positions: Å.
        cell: lattice vectors as rows in Å; None for open boundaries.
        radii: radii of the atoms, Å.

    Yields:
        The frame of each pair, its atoms (i < j) and their distance in Å. If several images of a pair are close in a
        narrow cell, each of them is given.
    """
    n_atoms, start = len(radii), 0
    cell = None if cell is None else cell.double()
    for some in positions.split(max(1, ATOMS_AT_ONCE // max(1, n_atoms))):
        found = pairs_within(cell, some.double(), 2 * float(radii.max()))
        distances = torch.linalg.vector_norm(found.displacements(some.double()), dim=-1)
        first, second = found.first % n_atoms, found.second % n_atoms
        chosen = (distances < radii[first] + radii[second]) & (first != second)
        pairs = torch.stack([torch.minimum(first, second), torch.maximum(first, second)], dim=1)[chosen]
        yield start + found.first[chosen] // n_atoms, pairs, distances[chosen]
        start += len(some)


def bond_matrix(
    atomic_numbers: Int[Tensor, "atom"], positions: Float[Tensor, "frame atom 3"], cell: Float[Tensor, "3 3"] | None
) -> tuple[Bool[Tensor, "frame pair"], Int[Tensor, "pair 2"]]:
    """All pairs of atoms that are bonded in any frame, ascending, and a mask of the bonded pairs of each frame."""
    n_atoms = len(atomic_numbers)
    radii = bond_radii(atomic_numbers)
    found = [(frame, pair[:, 0] * n_atoms + pair[:, 1]) for frame, pair, _ in close_pairs(positions, cell, radii)]
    frames, codes = (torch.cat(parts) for parts in zip(*found, strict=True))
    ever, column = codes.unique(return_inverse=True)
    bonded = torch.zeros(len(positions), len(ever), dtype=torch.bool)
    bonded[frames, column] = True
    return bonded, torch.stack([ever // n_atoms, ever % n_atoms], dim=1)
