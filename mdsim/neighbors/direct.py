"""Neighbor search over all pairs of atoms: fastest for few atoms, and a simple reference for the cell list."""

from __future__ import annotations

import torch

from mdsim.geometry import all_pairs
from mdsim.neighbors.pairs import Neighbors
from mdsim.typing import Float, Tensor


def direct_search(
    cell: Float[Tensor, "3 3"] | None, positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    """All pairs closer than ``cutoff`` (Å), in time and memory of order replica · atom² · image."""
    if cell is None:
        return _open_search(positions, cutoff)
    return _periodic_search(cell, positions, cutoff)


def images_within(cell: Float[Tensor, "3 3"], cutoff: float) -> Float[Tensor, "image 3"]:
    """Integer translations that can bring a difference wrapped to [-1/2, 1/2] within the cutoff.

    Along a lattice direction, the n-th image is at least (n - 1/2) times the distance between opposite faces away.
    """
    heights = 1.0 / torch.linalg.vector_norm(torch.linalg.inv(cell), dim=0)
    rounding = 1e-3  # of fractional differences of atoms many cells apart
    reach = torch.floor(cutoff / heights + 0.5 + rounding).long().tolist()
    axes = [torch.arange(-n, n + 1, device=cell.device, dtype=cell.dtype) for n in reach]
    return torch.cartesian_prod(*axes)


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

    found_replica, found_pair, found_image = [], [], []
    images = images_within(cell, cutoff)
    for image in images:  # one image in a cell wider than twice the cutoff, 27 in narrower ones
        squared = (difference + image @ cell).square().sum(-1)
        replica, pair = torch.nonzero(squared < cutoff**2, as_tuple=True)
        found_replica.append(replica)
        found_pair.append(pair)
        found_image.append(wrap[replica, pair] + image)
    replica, pair = torch.cat(found_replica), torch.cat(found_pair)
    first, second = replica * n_atoms + pairs[pair, 0], replica * n_atoms + pairs[pair, 1]
    shift = torch.cat(found_image) @ cell
    if len(images) == 1:
        return Neighbors(first, second, shift)

    own = _own_images(cell, images, cutoff)
    finite = torch.nonzero(positions.isfinite().all(-1).reshape(-1))[:, 0].repeat_interleave(len(own))
    first, second = torch.cat([first, finite]), torch.cat([second, finite])
    shift = torch.cat([shift, (own @ cell).repeat(len(finite) // max(1, len(own)), 1)])
    order = torch.argsort(first, stable=True)
    return Neighbors(first[order], second[order], shift[order])


def _own_images(cell: Float[Tensor, "3 3"], images: Float[Tensor, "image 3"], cutoff: float) -> Float[Tensor, "own 3"]:
    """Translations to images of an atom within the cutoff of the atom itself, one of each opposite pair."""
    close = (images @ cell).square().sum(-1) < cutoff**2
    weights = torch.tensor([1.0, 1e3, 1e6], dtype=cell.dtype, device=cell.device)
    return images[close & ((images * weights).sum(-1) > 0)]
