"""Batched neighbour lists: every pair of atoms within a cutoff, open or periodic, any number of images, no cap."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.geometry import all_pairs
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor

ALL_PAIRS_UP_TO_ATOMS = 64  # below this an open system keeps all its pairs: cheaper than searching and rebuilding


@dataclass(frozen=True)
class Neighbors:
    """Pairs of all replicas, each unordered pair once. Atoms are numbered through: replica * n_atoms + atom.

    A pair may lie beyond the cutoff (skin, all pairs): models must vanish smoothly there and mask what does not.
    A pair of an atom with its own periodic image (``first == second``) stands for both directions, as every pair does.
    """

    first: Int[Tensor, "pair"]
    second: Int[Tensor, "pair"]
    shift: Float[Tensor, "pair 3"] | None  # Å, added to the position of `second`; None where no pair needs one

    def displacements(self, positions: Float[Tensor, "replica atom 3"]) -> Float[Tensor, "pair 3"]:
        """Vectors from the first atom to the second, in Å."""
        flat = positions.reshape(-1, 3)
        difference = flat.index_select(0, self.second) - flat.index_select(0, self.first)
        return difference if self.shift is None else difference + self.shift

    def both_directions(self) -> tuple[Int[Tensor, "edge"], Int[Tensor, "edge"]]:
        """Receivers and senders of directed edges: all pairs, then all pairs reversed."""
        return torch.cat([self.first, self.second]), torch.cat([self.second, self.first])

    @property
    def n_pairs(self) -> int:
        return len(self.first)


def neighbors(system: System, positions: Float[Tensor, "replica atom 3"], cutoff: float) -> Neighbors:
    """Every pair closer than ``cutoff`` (Å) in every replica, by direct search over atom pairs and images.

    A non-finite atom has no neighbours, except its own images in a narrow cell. Takes O(replica · atom² · image) time
    and O(replica · atom²) memory.
    """
    positions = positions.detach()
    if system.cell is None:
        return _open_neighbors(positions, cutoff)
    return _periodic_neighbors(system.cell.to(positions), positions, cutoff)


def fixed_pairs(system: System, n_replicas: int, device: torch.device) -> Neighbors:
    """All pairs of every replica of an open system: valid for ever."""
    pairs = all_pairs(system.n_atoms, device)
    offsets = torch.arange(n_replicas, device=device)[:, None] * system.n_atoms
    return Neighbors((pairs[:, 0] + offsets).reshape(-1), (pairs[:, 1] + offsets).reshape(-1), None)


def _open_neighbors(positions: Float[Tensor, "replica atom 3"], cutoff: float) -> Neighbors:
    n_atoms = positions.shape[1]
    pairs = all_pairs(n_atoms, positions.device)
    squared = (positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]).square().sum(-1)
    replica, pair = torch.nonzero(squared < cutoff**2, as_tuple=True)
    return Neighbors(replica * n_atoms + pairs[pair, 0], replica * n_atoms + pairs[pair, 1], None)


def _periodic_neighbors(
    cell: Float[Tensor, "3 3"], positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    n_replicas, n_atoms, _ = positions.shape
    pairs = all_pairs(n_atoms, positions.device)
    # The search works on wrapped differences; the shift found is then referred back to the unwrapped positions.
    difference = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
    wrap = -torch.floor(difference @ torch.linalg.inv(cell) + 0.5)
    wrap = torch.nan_to_num(wrap, nan=0.0, posinf=0.0, neginf=0.0)
    difference = difference + wrap @ cell

    found_replica, found_pair, found_image = [], [], []
    images = _images_within(cell, cutoff)
    for image in images:  # one for a cell wider than twice the cutoff, 27 for narrower ones
        squared = (difference + image @ cell).square().sum(-1)
        replica, pair = torch.nonzero(squared < cutoff**2, as_tuple=True)
        found_replica.append(replica)
        found_pair.append(pair)
        found_image.append(wrap[replica, pair] + image)
    replica, pair = torch.cat(found_replica), torch.cat(found_pair)
    first, second = replica * n_atoms + pairs[pair, 0], replica * n_atoms + pairs[pair, 1]
    shift = torch.cat(found_image) @ cell

    own = _own_images(cell, images, cutoff)
    if len(own):
        everyone = torch.arange(n_replicas * n_atoms, device=positions.device).repeat_interleave(len(own))
        first, second = torch.cat([first, everyone]), torch.cat([second, everyone])
        shift = torch.cat([shift, (own @ cell).repeat(n_replicas * n_atoms, 1)])
    return Neighbors(first, second, shift)


def _images_within(cell: Float[Tensor, "3 3"], cutoff: float) -> Float[Tensor, "image 3"]:
    """Integer translations that can bring a difference wrapped to [-1/2, 1/2] within the cutoff.

    Along a lattice direction, n images away is at least (n - 1/2) times the distance between opposite faces.
    """
    heights = 1.0 / torch.linalg.vector_norm(torch.linalg.inv(cell), dim=0)
    rounding = 1e-3  # of fractional differences of atoms that have wandered across many cells
    reach = torch.floor(cutoff / heights + 0.5 + rounding).long().tolist()
    axes = [torch.arange(-n, n + 1, device=cell.device, dtype=cell.dtype) for n in reach]
    return torch.cartesian_prod(*axes)


def _own_images(cell: Float[Tensor, "3 3"], images: Float[Tensor, "image 3"], cutoff: float) -> Float[Tensor, "own 3"]:
    """Translations, one of each opposite pair, by which an atom is its own neighbour."""
    close = (images @ cell).square().sum(-1) < cutoff**2
    weights = torch.tensor([1.0, 1e3, 1e6], dtype=cell.dtype, device=cell.device)
    return images[close & ((images * weights).sum(-1) > 0)]


class NeighborList:
    """Neighbours that are rebuilt only when an atom has moved half the skin since the last build.

    Small open systems keep all pairs for ever. Everything is a function of the positions since construction, so a
    stretch of dynamics that starts with a new list gives the same bits whenever it is run.

    Args:
        system: the system that all replicas share.
        cutoff: of the force field, Å.
        skin: extra reach, Å; larger means fewer rebuilds and longer lists.
    """

    def __init__(self, system: System, cutoff: float, skin: float = 0.5) -> None:
        self.system = system
        self.cutoff = cutoff
        self.skin = skin
        self.builds = 0
        self._built_at: Tensor | None = None
        self._neighbors: Neighbors

    def __call__(self, positions: Float[Tensor, "replica atom 3"]) -> Neighbors:
        positions = positions.detach()
        if self._is_stale(positions):
            self._neighbors = self._build(positions)
            self._built_at = positions.clone()
            self.builds += 1
        return self._neighbors

    @property
    def _keeps_all_pairs(self) -> bool:
        return self.system.cell is None and self.system.n_atoms <= ALL_PAIRS_UP_TO_ATOMS

    def _is_stale(self, positions: Tensor) -> bool:
        if self._built_at is None or self._built_at.shape != positions.shape:
            return True
        if self._keeps_all_pairs:
            return False
        moved = (positions - self._built_at).square().sum(-1)
        # "Not near" instead of "far", so that an atom that was non-finite at the last build counts as moved once it is
        # finite again; one that is non-finite now has no neighbours to find.
        near = moved <= (0.5 * self.skin) ** 2
        return bool((~near & positions.isfinite().all(-1)).any())

    def _build(self, positions: Tensor) -> Neighbors:
        if self._keeps_all_pairs:
            return fixed_pairs(self.system, len(positions), positions.device)
        return neighbors(self.system, positions, self.cutoff + self.skin)
