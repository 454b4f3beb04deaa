"""Directed edges of all replicas, with a sparse and a dense layout for their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch

from mdsim.neighbors import Neighbors
from mdsim.typing import Float, Int, Tensor

MAX_BUCKETS = 8  # of atoms; each bucket has as many slots for edges as the atom with the most edges needs
MIN_BUCKET = 32  # atoms; smaller buckets cost more in calls than they save in padding
ALIGNMENT = 16  # pairs; rows of a matrix product that lie whole multiples apart have bitwise equal results


@dataclass(frozen=True)
class Bucket:
    """Consecutive rows of the dense layout: some atoms, all with the same number of places for their edges."""

    start: int
    n_nodes: int
    n_places: int

    def of(self, x: Float[Tensor, "row channel"]) -> Float[Tensor, "node place channel"]:
        """The rows of these atoms."""
        stop = self.start + self.n_nodes * self.n_places
        return x[self.start : stop].reshape(self.n_nodes, self.n_places, x.shape[1])


@dataclass(frozen=True)
class Layout:
    """The directed edges of pairs and their places in the dense layout."""

    senders: Int[Tensor, "edge"]
    receivers: Int[Tensor, "edge"]
    rows: Int[Tensor, "edge"]  # row of each edge in the dense layout
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, first: Int[Tensor, "pair"], second: Int[Tensor, "pair"], n_nodes: int) -> Layout:
        """The layout of pairs, each of which has an edge in both directions."""
        # The first atom of a pair receives its first edge, so that directions point away from the receiver.
        receivers, senders = torch.stack([first, second], 1).flatten(), torch.stack([second, first], 1).flatten()
        return cls(senders, receivers, *_dense_layout(receivers, n_nodes))


@dataclass(frozen=True)
class Edges:
    """Both directions of every pair within the cutoff: edges 2p and 2p + 1 belong to pair p.

    Functions of the distance are evaluated once per pair. Sums over the edges that end at an atom use the dense layout,
    where the edges of an atom are adjacent and padded with zeros. Everything else uses the sparse layout.
    """

    senders: Int[Tensor, "edge"]
    receivers: Int[Tensor, "edge"]
    rows: Int[Tensor, "edge"]  # row of each edge in the dense layout
    buckets: tuple[Bucket, ...]
    n_nodes: int
    distances: Float[Tensor, "pair"]  # Å
    directions: Float[Tensor, "pair 3"]  # of the first edge of each pair, from its receiver to its sender
    present: Float[Tensor, "pair 1"] | None = None  # 0 for pairs that only fill up a replica, 1 for all others

    @classmethod
    def within(cls, cutoff: float, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors) -> Edges:
        """Both directions of every pair closer than the cutoff (Å)."""
        n_nodes = positions.shape[0] * positions.shape[1]
        first, second, distances, directions = _pairs_within(cutoff, positions, neighbors)
        return cls._of_pairs(first, second, n_nodes, distances, directions)

    @classmethod
    def aligned(cls, cutoff: float, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors) -> Edges:
        """Like `within`, but replica by replica, each padded with pairs that are not `present`.

        The number of pairs of one replica then does not change the bits of the others.
        """
        first, second, distances, directions = _pairs_within(cutoff, positions, neighbors)
        n_replicas, n_atoms, _ = positions.shape
        replicas = first // n_atoms
        counts = torch.bincount(replicas, minlength=n_replicas)
        filled = -(-counts // ALIGNMENT) * ALIGNMENT
        places = _ranks(replicas, counts) + (filled.cumsum(0) - filled).index_select(0, replicas)

        owners = torch.arange(n_replicas, device=first.device).repeat_interleave(filled)
        filler = owners * n_atoms + torch.arange(len(owners), device=first.device) % n_atoms
        anywhere = directions.new_tensor([0.0, 0.0, 1.0]).expand(len(owners), 3)
        return cls._of_pairs(
            filler.index_copy(0, places, first),
            filler.index_copy(0, places, second),
            n_replicas * n_atoms,
            distances.new_full((len(owners),), 0.5 * cutoff).index_copy(0, places, distances),
            anywhere.index_copy(0, places, directions),
            present=distances.new_zeros(len(owners), 1).index_fill(0, places, 1.0),
        )

    @classmethod
    def in_layout(
        cls, cutoff: float, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors, layout: Layout
    ) -> Edges:
        """All pairs of a list, in its layout. Those beyond the cutoff (Å) are not `present`.

        Nothing here makes the host wait for a GPU.
        """
        displacements = neighbors.displacements(positions)
        squared = displacements.detach().square().sum(-1)
        present = (squared < cutoff**2) | ~squared.isfinite()
        distances = torch.linalg.vector_norm(displacements, dim=-1)
        return cls(
            layout.senders,
            layout.receivers,
            layout.rows,
            layout.buckets,
            positions.shape[0] * positions.shape[1],
            torch.where(present, distances, 0.5 * cutoff),
            displacements / distances[:, None],
            present[:, None].to(distances),
        )

    @classmethod
    def _of_pairs(
        cls,
        first: Int[Tensor, "pair"],
        second: Int[Tensor, "pair"],
        n_nodes: int,
        distances: Float[Tensor, "pair"],
        directions: Float[Tensor, "pair 3"],
        present: Float[Tensor, "pair 1"] | None = None,
    ) -> Edges:
        layout = Layout.of(first, second, n_nodes)
        edges = layout.senders, layout.receivers, layout.rows, layout.buckets
        return cls(*edges, n_nodes, distances, directions, present)

    @property
    def n_pairs(self) -> int:
        return len(self.distances)

    @property
    def n_rows(self) -> int:
        return sum(bucket.n_nodes * bucket.n_places for bucket in self.buckets)

    def radial(self, basis: Callable[[Tensor], Tensor]) -> Float[Tensor, "pair radial"]:
        """A basis of functions of the distance; zero for pairs that are not present."""
        values = basis(self.distances)
        return values if self.present is None else values * self.present

    def dense(self, x: Float[Tensor, "edge channel"]) -> Float[Tensor, "row channel"]:
        """Features in the dense layout."""
        return x.new_zeros(self.n_rows, x.shape[1]).index_copy(0, self.rows, x)

    def sparse(self, x: Float[Tensor, "row channel"]) -> Float[Tensor, "edge channel"]:
        """Features in the sparse layout, from the dense one."""
        return x.index_select(0, self.rows)

    def sum_to_receivers(self, x: Float[Tensor, "edge channel"]) -> Float[Tensor, "node channel"]:
        """Sum over the edges that end at each atom."""
        return x.new_zeros(self.n_nodes, x.shape[1]).index_add(0, self.receivers, x)

    def triplets_of_each(self) -> Int[Tensor, "edge"]:
        """Number of triplets of each edge: the other edges that end at the same atom."""
        counts = torch.bincount(self.receivers, minlength=self.n_nodes)
        return counts.index_select(0, self.receivers) - 1


def swapped(x: Float[Tensor, "edge channel"]) -> Float[Tensor, "edge channel"]:
    """For each edge, the features of its reverse."""
    return x.reshape(-1, 2, x.shape[1]).flip(1).reshape(x.shape)


def times_pairs(
    x: Float[Tensor, "edge channel"], radial: Float[Tensor, "pair channel"]
) -> Float[Tensor, "edge channel"]:
    """Product of edge features with features that both directions of a pair share."""
    return (x.reshape(-1, 2, x.shape[1]) * radial[:, None]).reshape(x.shape)


def on_both(radial: Float[Tensor, "pair channel"]) -> Float[Tensor, "edge channel"]:
    """Features of pairs, repeated for both directions."""
    return radial.repeat_interleave(2, dim=0)


def _pairs_within(
    cutoff: float, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
) -> tuple[Int[Tensor, "pair"], Int[Tensor, "pair"], Float[Tensor, "pair"], Float[Tensor, "pair 3"]]:
    """First and second atoms, distances (Å) and directions."""
    displacements = neighbors.displacements(positions)
    squared = displacements.detach().square().sum(-1)
    # Pairs of a non-finite atom are kept, because its energy must be non-finite as well.
    kept = torch.nonzero((squared < cutoff**2) | ~squared.isfinite())[:, 0]
    displacements = displacements.index_select(0, kept)
    distances = torch.linalg.vector_norm(displacements, dim=-1)
    first, second = neighbors.first.index_select(0, kept), neighbors.second.index_select(0, kept)
    return first, second, distances, displacements / distances[:, None]


def _ranks(owners: Int[Tensor, "item"], counts: Int[Tensor, "owner"]) -> Int[Tensor, "item"]:
    """Number of earlier items with the same owner, for each item."""
    order = torch.argsort(owners, stable=True)
    starts = (counts.cumsum(0) - counts).index_select(0, owners.index_select(0, order))
    return torch.empty_like(order).index_copy(0, order, torch.arange(order.shape[0], device=order.device) - starts)


def _dense_layout(receivers: Int[Tensor, "edge"], n_nodes: int) -> tuple[Int[Tensor, "edge"], tuple[Bucket, ...]]:
    """The row of each edge, bucket by bucket, atom by atom."""
    degrees = torch.bincount(receivers, minlength=n_nodes)
    if torch.jit.is_tracing():  # sizes are tensors then, and serve any number of edges; the number of buckets is fixed
        most = cast("int", degrees.max())
        return receivers * most + _ranks(receivers, degrees), (Bucket(0, n_nodes, most),)
    size = max(MIN_BUCKET, -(-n_nodes // MAX_BUCKETS))
    n_places = torch.stack([of_bucket.max() for of_bucket in degrees.split(size)])
    buckets, start = [], 0
    for number, places in enumerate(n_places.tolist()):
        buckets.append(Bucket(start, min(size, n_nodes - number * size), places))
        start += buckets[-1].n_nodes * places
    places = n_places.repeat_interleave(size)[:n_nodes]
    rows = (places.cumsum(0) - places).index_select(0, receivers) + _ranks(receivers, degrees)
    return rows, tuple(buckets)
