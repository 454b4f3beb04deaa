"""Neighbor list with a skin, rebuilt when an atom has moved by half of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from mdsim.neighbors.pairs import Neighbors, fixed_pairs
from mdsim.neighbors.search import neighbors
from mdsim.state import System
from mdsim.typing import Bool, Float, Tensor

ALL_PAIRS_UP_TO_ATOMS = 64  # up to this size an open system keeps all pairs, which is cheaper than searches

Result = TypeVar("Result")


class NeighborList:
    """Neighbors that are rebuilt only when an atom has moved half the skin since the last build.

    Small open systems keep all pairs permanently. The state depends only on the positions since construction, so that a
    stretch of dynamics with a new list is reproducible bit for bit.

    Args:
        system: the system that all replicas share.
        cutoff: cutoff of the force field, Å.
        skin: additional distance, Å. A larger skin gives fewer rebuilds and longer lists.
        ahead: let `evaluate` start before the check of the list has finished. None: only on a GPU.
    """

    def __init__(self, system: System, cutoff: float, skin: float = 0.5, ahead: bool | None = None) -> None:
        self.system = system
        self.cutoff = cutoff
        self.skin = skin
        self.ahead = ahead
        self.builds = 0
        self._built_at = torch.empty(0)  # differs in shape from any positions
        self._neighbors: Neighbors

    def __call__(self, positions: Float[Tensor, "replica atom 3"]) -> Neighbors:
        """Valid neighbors for these positions (Å)."""
        positions = positions.detach()
        if not self._has_list_for(positions) or bool(self._is_stale(positions)):
            self._build(positions)
        return self._neighbors

    def evaluate(self, positions: Float[Tensor, "replica atom 3"], function: Callable[[Neighbors], Result]) -> Result:
        """Value of a function of the neighbors at these positions (Å), without idle time of the device.

        On a GPU the check of the list is queued before the function, and its result is read afterwards. The device
        computes while the host waits. If the list is outdated, which is rare, the result is discarded and the function
        is evaluated again with a new list. The returned value is always ``function(self(positions))``.
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
        # "Not near" instead of "far": an atom that was non-finite at the last build thus counts as moved when it is
        # finite again. An atom that is non-finite now has no neighbors.
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
