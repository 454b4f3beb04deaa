"""Compilation of loops by numba, and their number of threads; importing this needs numba (the extra `fast`)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numba import njit, set_num_threads
from numba.core import config

from mdsim.typing import Tensor

# numba's own pool of threads: its OpenMP layer shares, and changes, the number of threads that torch computes with.
config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]

MOST_THREADS: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
FAST = {"contract", "reassoc", "nsz", "arcp"}  # no assumption that numbers are finite: a broken replica is data
# numpy's error model: a division that may raise an exception would keep its loop from being vectorized
compiled = partial(njit, error_model="numpy", fastmath=FAST, cache=True)


def use_torch_threads() -> int:
    """Let the loops run on as many threads as torch does; returns how many."""
    n = min(torch.get_num_threads(), MOST_THREADS)
    set_num_threads(n)
    return n


def arrays(*arguments: Tensor | np.ndarray | float | int) -> list:
    """The arrays of CPU tensors, contiguous, and all else as it is. What a loop fills must be contiguous already."""
    return [a.detach().contiguous().numpy() if isinstance(a, Tensor) else a for a in arguments]
