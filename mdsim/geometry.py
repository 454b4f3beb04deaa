"""Displacements, distances, angles and centre-of-mass helpers, with and without periodic boundaries."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from ase.geometry.minkowski_reduction import minkowski_reduce

from mdsim.typing import Float, Int, Tensor


def minimum_image(
    displacements: Float[Tensor, "*batch 3"], cell: Float[Tensor, "3 3"] | None
) -> Float[Tensor, "*batch 3"]:
    """Shortest periodic image of each displacement.

    Exact for every cell: a triclinic one is first Minkowski-reduced (the same lattice, spanned by its shortest
    vectors), after which rounding the fractional displacement and searching the 27 images around it suffices
    (Nguyen and Stehlé, ACM Trans. Algorithms 5, 46 (2009)); an orthorhombic one needs the rounding only.

    Args:
        displacements: vectors in Å.
        cell: lattice vectors as rows in Å; None for open boundaries, which returns the input.

    Returns:
        Vectors in Å, with the gradient of the displacements.
    """
    if cell is None:
        return displacements
    cell = cell.to(displacements)
    orthorhombic = _is_orthorhombic(cell)
    if not orthorhombic:
        cell = _reduced(tuple(map(tuple, cell.tolist()))).to(cell)
    fractional = displacements @ torch.linalg.inv(cell)
    wrapped = displacements - torch.round(fractional).detach() @ cell
    if orthorhombic:
        return wrapped
    shifts = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 3).to(wrapped) @ cell
    candidates = wrapped.unsqueeze(-2) + shifts
    nearest = candidates.square().sum(-1).argmin(-1)
    return wrapped + shifts[nearest]


def _is_orthorhombic(cell: Tensor) -> bool:
    return bool((cell - torch.diag(torch.diagonal(cell))).abs().max() == 0)


@lru_cache(maxsize=16)
def _reduced(cell: tuple) -> Tensor:
    """The same lattice spanned by its shortest vectors, float64."""
    return torch.from_numpy(np.array(minkowski_reduce(cell)[0]))  # ase returns a Cell when there is nothing to do


def pair_distances(
    positions: Float[Tensor, "*batch atom 3"],
    pairs: Int[Tensor, "pair 2"],
    cell: Float[Tensor, "3 3"] | None = None,
) -> Float[Tensor, "*batch pair"]:
    """Minimum-image distances in Å between the given pairs of atoms."""
    displacements = positions[..., pairs[:, 1], :] - positions[..., pairs[:, 0], :]
    return torch.linalg.vector_norm(minimum_image(displacements, cell), dim=-1)


def angles(
    positions: Float[Tensor, "*batch atom 3"],
    triplets: Int[Tensor, "triplet 3"],
    cell: Float[Tensor, "3 3"] | None = None,
) -> Float[Tensor, "*batch triplet"]:
    """Angles in radians at the middle atom of each triplet (i, j, k), from the arms j→i and j→k.

    Uses atan2(|a × b|, a · b), which is accurate and differentiable at 0 and π where acos is not.
    """
    first = minimum_image(positions[..., triplets[:, 0], :] - positions[..., triplets[:, 1], :], cell)
    second = minimum_image(positions[..., triplets[:, 2], :] - positions[..., triplets[:, 1], :], cell)
    sine = torch.linalg.vector_norm(torch.linalg.cross(first, second), dim=-1)
    return torch.atan2(sine, (first * second).sum(-1))


def center_of_mass(
    positions: Float[Tensor, "*batch atom 3"], masses: Float[Tensor, "atom"]
) -> Float[Tensor, "*batch 1 3"]:
    """Mass-weighted mean of positions (or of velocities)."""
    weights = (masses / masses.sum()).to(positions)
    return (weights[:, None] * positions).sum(-2, keepdim=True)


def all_pairs(n_atoms: int, device: torch.device | None = None) -> Int[Tensor, "pair 2"]:
    """Every unordered pair of atoms once, i < j."""
    return torch.triu_indices(n_atoms, n_atoms, offset=1, device=device).T
