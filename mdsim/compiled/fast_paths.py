"""Shared parts of the models' fast paths: checks of their preconditions, and neighbor pairs as numpy arrays."""

from __future__ import annotations

import numpy as np
import torch

from mdsim.force_field import NoFastPath
from mdsim.neighbors import MovingCellList, NeighborList, Neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor


def check_on_cpu(model: torch.nn.Module, system: System) -> None:
    """Raise `NoFastPath` unless model and system are on the CPU, in the same precision."""
    weight, masses = next(model.parameters()), system.masses
    if not weight.device.type == masses.device.type == "cpu":
        raise NoFastPath(f"compiled loops run on the CPU, the model is on {weight.device}")
    if weight.dtype != masses.dtype:
        raise NoFastPath(f"the model is in {weight.dtype}, the system in {masses.dtype}")


def check_interpolation(error: float, tolerance: float) -> None:
    """Raise `NoFastPath` if interpolation is less accurate than asked for."""
    if not error <= tolerance:
        raise NoFastPath(f"interpolation has a relative error of {error:.1e}, above the tolerance of {tolerance:g}")


class PairArrays:
    """The pairs of a neighbor list as arrays for the loops. They are rebuilt whenever the list is.

    Args:
        system: the system that all replicas share.
        cutoff, skin: of the list, Å.
    """

    def __init__(self, system: System, cutoff: float, skin: float) -> None:
        self.neighbor_list = NeighborList(system, cutoff, skin)
        self.moving_list = MovingCellList(system, cutoff, skin)
        self._listed: Neighbors | None = None  # the pairs that the arrays hold
        self._arrays: tuple[np.ndarray, ...] = ()

    def in_cells(
        self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]
    ) -> tuple[np.ndarray, ...]:
        """The same where cells (Å) move."""
        listed = self.moving_list.in_cells(positions, cells)
        return self._as_arrays(listed, positions)

    def __call__(self, positions: Float[Tensor, "replica atom 3"]) -> tuple[np.ndarray, ...]:
        """First and second atoms, shifts (empty for open boundaries), and the first pair of each replica."""
        listed = self.neighbor_list(positions)
        if listed is not self._listed:
            self._arrays, self._listed = self._as_arrays(listed, positions), listed
        return self._arrays

    @staticmethod
    def _as_arrays(listed: Neighbors, positions: Float[Tensor, "replica atom 3"]) -> tuple[np.ndarray, ...]:
        shifts = positions.new_empty(0, 3) if listed.shift is None else listed.shift.to(positions)
        starts = listed.boundaries(*positions.shape[:2])
        return tuple(t.contiguous().numpy() for t in (listed.first, listed.second, shifts, starts))
