"""How numba compiles the loops of the quick paths, and on how many threads they run."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numba import njit, set_num_threads
from numba.core import config

from mdsim.interfaces import NoFastPath
from mdsim.neighbors import NeighborList, Neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor

# numba's own pool of threads: its OpenMP layer shares, and changes, the number of threads that torch computes with.
config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]

MOST_THREADS: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
FAST = {"contract", "reassoc", "nsz", "arcp"}  # no assumption that numbers are finite: a broken replica is data
# numpy's error model: a division that may raise an exception would keep its loop from being vectorized
compiled = partial(njit, error_model="numpy", fastmath=FAST, cache=True)


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
    """The pairs of a neighbour list as the loops take them; made anew when the list is."""

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


def use_torch_threads() -> int:
    """Let the loops run on as many threads as torch does; returns how many."""
    n = min(torch.get_num_threads(), MOST_THREADS)
    set_num_threads(n)
    return n
