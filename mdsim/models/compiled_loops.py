"""How numba compiles the loops of the quick paths, and on how many threads they run."""

from __future__ import annotations

from functools import partial

import torch
from numba import njit, set_num_threads
from numba.core import config

from mdsim.interfaces import NoFastPath
from mdsim.state import System

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


def use_torch_threads() -> int:
    """Let the loops run on as many threads as torch does; returns how many."""
    n = min(torch.get_num_threads(), MOST_THREADS)
    set_num_threads(n)
    return n
