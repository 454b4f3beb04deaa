"""Neighbor list with a skin, rebuilt for each replica when one of its atoms has moved by half of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from mdsim.neighbors.pairs import Neighbors, fixed_pairs
from mdsim.neighbors.search import neighbors
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor

ALL_PAIRS_UP_TO_ATOMS = 64  # up to this size an open system keeps all pairs, which is cheaper than searches

CALLS_PER_BUILD_AHEAD = 8  # fewer, and evaluations that are thrown away cost more than a device that waits

Result = TypeVar("Result")


class NeighborList:
    """Neighbors of each replica, rebuilt only when one of its atoms has moved half the skin since its last build.

    The pairs of a replica, and their order, depend on the positions of this replica since construction and on nothing
    else. A stretch of dynamics that starts with a new list gives the same bits whenever it is run, and a replica that
    moves absurdly fast neither changes the sums of the others nor costs a search of theirs. Small open systems keep
    all pairs permanently.

    Args:
        system: the system that all replicas share.
        cutoff: cutoff of the force field, Å.
        skin: additional distance, Å. A larger skin gives fewer rebuilds and longer lists.
        ahead: let `evaluate` start before the check of the list has finished. None: on a GPU, while most calls find
            the list valid.
    """

    def __init__(self, system: System, cutoff: float, skin: float = 0.5, ahead: bool | None = None) -> None:
        self.system = system
        self.cutoff = cutoff
        self.skin = skin
        self.ahead = ahead
        self.builds = 0  # searches, each for one replica or more
        self.searched = 0  # replicas in all searches
        self._calls = 0
        self._built_at = torch.empty(0)  # differs in shape from any positions
        self._neighbors: Neighbors

    def __call__(self, positions: Float[Tensor, "replica atom 3"]) -> Neighbors:
        """Valid neighbors for these positions (Å)."""
        positions = positions.detach()
        self._calls += 1
        if not self._has_list_for(positions):
            self._build(positions)
        elif not self._keeps_all_pairs:
            stale = self._stale(positions)
            if stale.any():
                self._rebuild(positions, stale)
        return self._neighbors

    def evaluate(self, positions: Float[Tensor, "replica atom 3"], function: Callable[[Neighbors], Result]) -> Result:
        """Value of a function of the neighbors at these positions (Å), without idle time of the device.

        On a GPU the check of the list is queued before the function, and its result is read afterwards. The device
        computes while the host waits. If the list is outdated, the result is discarded and the function
        is evaluated again with a new list. The returned value is always ``function(self(positions))``.
        Where that is frequent, as with many replicas, the check is awaited first.
        """
        if self._keeps_all_pairs or not self._has_list_for(positions) or not self._looks_ahead(positions):
            return function(self(positions))
        self._calls += 1
        stale = self._stale(positions.detach())
        any_stale = _Answer(stale.any())
        result = function(self._neighbors)
        if not any_stale:
            return result
        self._rebuild(positions.detach(), stale)
        return function(self._neighbors)

    @property
    def _keeps_all_pairs(self) -> bool:
        return self.system.cell is None and self.system.n_atoms <= ALL_PAIRS_UP_TO_ATOMS

    def _has_list_for(self, positions: Tensor) -> bool:
        kept = self._built_at
        return (kept.shape, kept.dtype, kept.device) == (positions.shape, positions.dtype, positions.device)

    def _looks_ahead(self, positions: Tensor) -> bool:
        if self.ahead is not None:
            return self.ahead
        return positions.device.type == "cuda" and self._calls >= CALLS_PER_BUILD_AHEAD * self.builds

    def _stale(self, positions: Float[Tensor, "replica atom 3"]) -> Bool[Tensor, "replica"]:
        """Whether an atom of a replica has moved too far, on the device."""
        moved = (positions - self._built_at).square().sum(-1)
        # "Not near" instead of "far": an atom that was non-finite at the last build thus counts as moved when it is
        # finite again. An atom that is non-finite now has no neighbors.
        near = moved <= (0.5 * self.skin) ** 2
        return (~near & positions.isfinite().all(-1)).any(-1)

    def _build(self, positions: Float[Tensor, "replica atom 3"]) -> None:
        """Find the pairs of all replicas."""
        if self._keeps_all_pairs:
            self._neighbors = fixed_pairs(self.system, len(positions), positions.device)
        else:
            self._neighbors = self._search(positions)
        self._built_at = positions.clone()

    def _rebuild(self, positions: Float[Tensor, "replica atom 3"], stale: Bool[Tensor, "replica"]) -> None:
        """Find the pairs of some replicas anew, and keep those of the others."""
        replicas = torch.nonzero(stale)[:, 0]
        of_these = positions.index_select(0, replicas)
        self._neighbors = self._neighbors.with_new(replicas, self._search(of_these, replicas), *positions.shape[:2])
        self._built_at = self._built_at.index_copy(0, replicas, of_these)

    def _search(
        self, positions: Float[Tensor, "replica atom 3"], replicas: Int[Tensor, "replica"] | None = None
    ) -> Neighbors:
        """The pairs of some replicas, or of all."""
        self._count(positions)
        return neighbors(self.system, positions, self.cutoff + self.skin)

    def _count(self, positions: Float[Tensor, "replica atom 3"]) -> None:
        self.builds += 1
        self.searched += len(positions)


class _Answer:
    """A truth value in transfer from the device. Reading it does not wait for work that was queued later."""

    def __init__(self, value: Bool[Tensor, ""]) -> None:
        self._value, self._arrived = value, None
        if value.device.type == "cuda":
            self._value = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def __bool__(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)
