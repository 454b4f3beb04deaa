"""Neighbor pairs of all replicas, and their division into groups of replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdsim.compiled import HAS_NUMBA
from mdsim.geometry import all_pairs, outer
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class Neighbors:
    """Pairs of all replicas, each unordered pair once. Atoms have the indices replica * n_atoms + atom.

    Pairs are sorted by their first atom, and therefore by replica. Either of the two atoms can come first. Pairs can be
    beyond the cutoff (skin, all pairs), where the contributions of a model must be zero. A pair of an
    atom with its periodic image (``first == second``) represents both directions, like every pair.
    """

    first: Int[Tensor, "pair"]
    second: Int[Tensor, "pair"]
    shift: Float[Tensor, "pair 3"] | None  # Å, added to the position of `second`; None without shifts
    image: Float[Tensor, "pair 3"] | None = None  # the shift in lattice vectors, where cells move; whole numbers

    def in_cells(self, cells: Float[Tensor, "replica 3 3"], n_atoms: int) -> Neighbors:
        """The same pairs in other cells (Å) of the replicas."""
        if self.image is None:
            raise ValueError("only pairs that were found in moving cells have images")
        if HAS_NUMBA and cells.device.type == "cpu" and not cells.requires_grad:
            from mdsim.neighbors.compiled import shifts_in_cells

            shift = cells.new_empty(self.n_pairs, 3)
            given = (tensor.contiguous().numpy() for tensor in (self.first, self.image, cells.detach()))
            shifts_in_cells(*given, n_atoms, shift.numpy())
        else:
            of_pairs = cells.index_select(0, self.first // n_atoms)
            shift = (self.image[:, :, None] * of_pairs).sum(1)
        return Neighbors(self.first, self.second, shift, self.image)

    def displacements(self, positions: Float[Tensor, "replica atom 3"]) -> Float[Tensor, "pair 3"]:
        """Vectors from the first atom to the second, in Å."""
        flat = positions.reshape(-1, 3)
        difference = flat.index_select(0, self.second) - flat.index_select(0, self.first)
        return difference if self.shift is None else difference + self.shift

    def both_directions(self) -> tuple[Int[Tensor, "edge"], Int[Tensor, "edge"]]:
        """Receivers and senders of directed edges: all pairs, then all pairs reversed."""
        return torch.cat([self.first, self.second]), torch.cat([self.second, self.first])

    def virials(
        self,
        positions: Float[Tensor, "replica atom 3"],
        of_positions: Float[Tensor, "replica atom 3"],
        of_shifts: Float[Tensor, "pair 3"] | None,
    ) -> Float[Tensor, "replica 3 3"]:
        """Σ x ⊗ ∂E/∂x of each replica (eV) over positions and shifts, given the derivatives (eV/Å)."""
        virials = outer(positions, of_positions).sum(1)
        if self.shift is None or of_shifts is None:
            return virials
        return virials.index_add(0, self.first // positions.shape[1], outer(self.shift, of_shifts))

    @property
    def n_pairs(self) -> int:
        return len(self.first)

    def boundaries(self, n_replicas: int, n_atoms: int) -> Int[Tensor, "boundary"]:
        """Index of the first pair of each replica, and the total number of pairs as the last element."""
        edges = n_atoms * torch.arange(n_replicas + 1, device=self.first.device)
        return torch.searchsorted(self.first, edges)

    def chosen(self, kept: Int[Tensor, "chosen"]) -> Neighbors:
        """Some of the pairs, by ascending index."""
        shift, image = (None if of_pairs is None else of_pairs[kept] for of_pairs in (self.shift, self.image))
        return Neighbors(self.first[kept], self.second[kept], shift, image)

    def of_replicas(self, first_atom: int, pairs: slice) -> Neighbors:
        """The pairs of consecutive replicas, with atoms renumbered from zero.

        Args:
            first_atom: present index of their first atom.
            pairs: range of their pairs, from `boundaries`.
        """
        return Neighbors(
            self.first[pairs] - first_atom,
            self.second[pairs] - first_atom,
            None if self.shift is None else self.shift[pairs],
            None if self.image is None else self.image[pairs],
        )

    def with_new(self, replicas: Int[Tensor, "new"], pairs: Neighbors, n_replicas: int, n_atoms: int) -> Neighbors:
        """These pairs, with those of some replicas replaced and those of the others as they are, in the same order.

        Args:
            replicas: numbers of the replicas that have new pairs, ascending.
            pairs: the new pairs of these replicas, whose atoms are numbered from zero.
            n_replicas, n_atoms: that these are pairs of.
        """
        if len(replicas) == n_replicas:
            return pairs
        edges, new_counts = self.boundaries(n_replicas, n_atoms), pairs.boundaries(len(replicas), n_atoms).diff()
        runs = torch.stack(
            [edges[replicas], edges[replicas + 1]], dim=1
        ).flatten()  # pairs to keep, to drop, to keep, ...
        ends = torch.cat([edges[:1], runs, edges[-1:]])
        numbers = torch.cat([ends.diff(), new_counts]).tolist()  # at once, because each list makes the host wait
        sizes, new_sizes = numbers[: len(ends) - 1], numbers[len(ends) - 1 :]
        offsets = n_atoms * (replicas - torch.arange(len(replicas), device=replicas.device))
        offsets = offsets.repeat_interleave(new_counts, output_size=pairs.n_pairs)

        def merged(old: Tensor, new: Tensor) -> Tensor:
            pieces = list(old.split(sizes))
            pieces[1::2] = new.split(new_sizes)
            return torch.cat(pieces)

        return Neighbors(
            merged(self.first, pairs.first + offsets),
            merged(self.second, pairs.second + offsets),
            None if self.shift is None or pairs.shift is None else merged(self.shift, pairs.shift),
            None if self.image is None or pairs.image is None else merged(self.image, pairs.image),
        )

    @staticmethod
    def cat(parts: Sequence[Neighbors], atoms_each: int) -> Neighbors:
        """Pairs of consecutive groups of replicas. All groups except the last have ``atoms_each`` atoms."""
        if len(parts) == 1:
            return parts[0]
        shifts = [part.shift for part in parts if part.shift is not None]
        images = [part.image for part in parts if part.image is not None]
        return Neighbors(
            torch.cat([part.first + number * atoms_each for number, part in enumerate(parts)]),
            torch.cat([part.second + number * atoms_each for number, part in enumerate(parts)]),
            torch.cat(shifts) if shifts else None,
            torch.cat(images) if images else None,
        )


def fixed_pairs(system: System, n_replicas: int, device: torch.device) -> Neighbors:
    """All pairs of every replica of an open system, which stay valid."""
    pairs = all_pairs(system.n_atoms, device)
    offsets = torch.arange(n_replicas, device=device)[:, None] * system.n_atoms
    return Neighbors((pairs[:, 0] + offsets).reshape(-1), (pairs[:, 1] + offsets).reshape(-1), None)


def groups_of_replicas(
    neighbors: Neighbors, n_replicas: int, n_atoms: int, most_pairs: int
) -> list[tuple[slice, Neighbors]]:
    """Groups of consecutive replicas with their pairs, of limited size but at least one replica.

    Args:
        neighbors: neighbors of all replicas.
        n_replicas, n_atoms: number of replicas, and atoms per replica.
        most_pairs: limit of pairs per group, with the largest number of pairs of any replica for each.
    """
    if neighbors.n_pairs <= most_pairs or n_replicas < 2:
        return [(slice(0, n_replicas), neighbors)]
    boundaries = neighbors.boundaries(n_replicas, n_atoms)
    most = max(1, int(boundaries.diff().max()))
    size = max(1, min(n_replicas, most_pairs // most))
    edges, groups = boundaries.tolist(), []
    for start in range(0, n_replicas, size):
        stop = min(start + size, n_replicas)
        groups.append((slice(start, stop), neighbors.of_replicas(start * n_atoms, slice(edges[start], edges[stop]))))
    return groups
