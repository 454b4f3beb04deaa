"""Neighbor list with a skin, rebuilt when an atom has moved by half of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from mdsim.neighbors.pairs import Neighbors, fixed_pairs
from mdsim.neighbors.search import neighbors
from mdsim.state import System
from mdsim.typing import Bool, Float, Tensor

ALL_PAIRS_UP_TO_ATOMS = 64  # below this an open system keeps all its pairs: cheaper than searching and rebuilding

Result = TypeVar("Result")


class NeighborList:
    """Neighbors that are rebuilt only when an atom has moved half the skin since the last build.

    Small open systems keep all pairs for ever. Everything is a function of the positions since construction, so a
    stretch of dynamics that starts with a new list gives the same bits whenever it is run.

    Args:
        system: the system that all replicas share.
        cutoff: of the force field, Å.
        skin: extra reach, Å; larger means fewer rebuilds and longer lists.
        ahead: let `evaluate` begin before it is known whether the list still holds; None: on a GPU.
    """

    def __init__(self, system: System, cutoff: float, skin: float = 0.5, ahead: bool | None = None) -> None:
        self.system = system
        self.cutoff = cutoff
        self.skin = skin
        self.ahead = ahead
        self.builds = 0
        self._built_at = torch.empty(0)  # of another shape than any positions
        self._neighbors: Neighbors

    def __call__(self, positions: Float[Tensor, "replica atom 3"]) -> Neighbors:
        """Neighbors that hold at these positions (Å)."""
        positions = positions.detach()
        if not self._has_list_for(positions) or bool(self._is_stale(positions)):
            self._build(positions)
        return self._neighbors

    def evaluate(self, positions: Float[Tensor, "replica atom 3"], function: Callable[[Neighbors], Result]) -> Result:
        """A function of the neighbors at these positions (Å), without a device that waits for the host.

        On a GPU the question whether the list still holds is asked before the function is queued, and its answer is
        read after: while the host waits for it, the device computes. In the rare case of a stale list the result is
        thrown away, and the function evaluated again with a new one, so that what is returned is always
        ``function(self(positions))``.
        """
        ahead = positions.device.type == "cuda" if self.ahead is None else self.ahead
        if not ahead or not self._has_list_for(positions):
            return function(self(positions))
        stale = _Answer(self._is_stale(positions.detach()))
        result = function(self._neighbors)
        if not stale:
            return result
        self._build(positions.detach())
        return function(self._neighbors)

    @property
    def _keeps_all_pairs(self) -> bool:
        return self.system.cell is None and self.system.n_atoms <= ALL_PAIRS_UP_TO_ATOMS

    def _has_list_for(self, positions: Tensor) -> bool:
        return self._built_at.shape == positions.shape

    def _is_stale(self, positions: Float[Tensor, "replica atom 3"]) -> Bool[Tensor, ""]:
        """Whether an atom has moved too far, on the device."""
        if self._keeps_all_pairs:
            return torch.zeros((), dtype=torch.bool)
        moved = (positions - self._built_at).square().sum(-1)
        # "Not near" instead of "far", so that an atom that was non-finite at the last build counts as moved once it is
        # finite again; one that is non-finite now has no neighbors to find.
        near = moved <= (0.5 * self.skin) ** 2
        return (~near & positions.isfinite().all(-1)).any()

    def _build(self, positions: Float[Tensor, "replica atom 3"]) -> None:
        if self._keeps_all_pairs:
            self._neighbors = fixed_pairs(self.system, len(positions), positions.device)
        else:
            self._neighbors = neighbors(self.system, positions, self.cutoff + self.skin)
        self._built_at = positions.clone()
        self.builds += 1


class _Answer:
    """A truth value on its way from the device; asking for it waits for nothing that was queued later."""

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
