"""Common parts of the models' fast paths: conditions that must hold, and pairs as compiled loops take them."""

from __future__ import annotations

import numpy as np
import torch

from mdsim.force_field import NoFastPath
from mdsim.neighbors import NeighborList, Neighbors
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
    """The pairs of a neighbor list as the loops take them; made anew when the list is."""

    def __init__(self, neighbor_list: NeighborList) -> None:
        self.neighbor_list = neighbor_list
        self._listed: Neighbors | None = None  # what the arrays were made of
        self._arrays: tuple[np.ndarray, ...] = ()

    def __call__(self, positions: Float[Tensor, "replica atom 3"]) -> tuple[np.ndarray, ...]:
        """First and second atoms, shifts (none for open boundaries), and where the pairs of each replica begin."""
        listed = self.neighbor_list(positions)
        if listed is not self._listed:
            shifts = positions.new_empty(0, 3) if listed.shift is None else listed.shift.to(positions)
            starts = listed.boundaries(*positions.shape[:2])
            self._arrays = tuple(t.contiguous().numpy() for t in (listed.first, listed.second, shifts, starts))
            self._listed = listed
        return self._arrays
