"""Neighbor search over all pairs of atoms: fastest for few atoms, and a simple reference for the cell list."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import torch

from mdsim.geometry import Rows, all_pairs, rows_of
from mdsim.neighbors.pairs import Neighbors
from mdsim.typing import Float, Tensor


def direct_search(
    cell: Float[Tensor, "3 3"] | None, positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    """All pairs closer than ``cutoff`` (Å), in time and memory of order replica · atom² · image."""
    if cell is None:
        return _open_search(positions, cutoff)
    return _periodic_search(cell, positions, cutoff)


@lru_cache(maxsize=64)
def images_within(rows: Rows, cutoff: float) -> tuple[tuple[int, ...], ...]:
    """Integer translations that can bring a difference wrapped to [-1/2, 1/2] within the cutoff.

    Along a lattice direction, the n-th image is at least (n - 1/2) times the distance between opposite faces away.
    """
    heights = 1.0 / np.linalg.norm(np.linalg.inv(np.array(rows)), axis=0)
    rounding = 1e-3  # of fractional differences of atoms many cells apart
    reach = np.floor(cutoff / heights + 0.5 + rounding).astype(int)
    return tuple(product(*(range(-n, n + 1) for n in reach)))


def _open_search(positions: Float[Tensor, "replica atom 3"], cutoff: float) -> Neighbors:
    n_atoms = positions.shape[1]
    pairs = all_pairs(n_atoms, positions.device)
    squared = (positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]).square().sum(-1)
    replica, pair = torch.nonzero(squared < cutoff**2, as_tuple=True)
    return Neighbors(replica * n_atoms + pairs[pair, 0], replica * n_atoms + pairs[pair, 1], None)


def _periodic_search(
    cell: Float[Tensor, "3 3"], positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    n_atoms = positions.shape[1]
    pairs = all_pairs(n_atoms, positions.device)
    # The search uses wrapped differences. The shift is then converted to the unwrapped positions.
    difference = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
    wrap = -torch.floor(difference @ torch.linalg.inv(cell) + 0.5)
    wrap = torch.nan_to_num(wrap, nan=0.0, posinf=0.0, neginf=0.0)
    difference = difference + wrap @ cell

    images, own = _images(rows_of(cell), cutoff, cell.device, cell.dtype)
    # One image in a cell wider than twice the cutoff, 27 in narrower ones.
    squared = (difference + (images @ cell)[:, None, None]).square().sum(-1)
    image, replica, pair = torch.nonzero(squared < cutoff**2, as_tuple=True)
    first, second = replica * n_atoms + pairs[pair, 0], replica * n_atoms + pairs[pair, 1]
    shift = (wrap[replica, pair] + images[image]) @ cell
    if len(images) == 1:
        return Neighbors(first, second, shift)

    finite = torch.nonzero(positions.isfinite().all(-1).reshape(-1))[:, 0].repeat_interleave(len(own))
    first, second = torch.cat([first, finite]), torch.cat([second, finite])
    shift = torch.cat([shift, (own @ cell).repeat(len(finite) // max(1, len(own)), 1)])
    order = torch.argsort(first, stable=True)
    return Neighbors(first[order], second[order], shift[order])


@lru_cache(maxsize=16)
def _images(
    rows: Rows, cutoff: float, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "image 3"], Float[Tensor, "own 3"]]:
    """All translations within the cutoff, and those to images of an atom within the cutoff of the atom itself.

    Of the latter there is one of each opposite pair. Kept, because the cell of a system is the same in every search.
    """
    images = np.array(images_within(rows, cutoff), dtype=np.float64)
    close = np.square(images @ np.array(rows)).sum(-1) < cutoff**2
    own = images[close & (images @ [1.0, 1e3, 1e6] > 0)]
    return torch.as_tensor(images, dtype=dtype).to(device), torch.as_tensor(own, dtype=dtype).to(device)
