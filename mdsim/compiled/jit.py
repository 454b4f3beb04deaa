"""Settings for loops that numba compiles, and their number of threads. Needs numba (the extra `fast`)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numba import njit, set_num_threads
from numba.core import config

from mdsim.typing import Tensor

# Use numba's own thread pool. Its OpenMP layer shares torch's number of threads, and changes it.
config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]

MOST_THREADS: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
FAST = {"contract", "reassoc", "nsz", "arcp"}  # numbers may be non-finite: a broken replica is data
# numpy's error model: a loop whose division may raise an exception is not vectorized
compiled = partial(njit, error_model="numpy", fastmath=FAST, cache=True)


def use_torch_threads() -> int:
    """Give the loops as many threads as torch has, and return that number."""
    n = min(torch.get_num_threads(), MOST_THREADS)
    set_num_threads(n)
    return n


def arrays(*arguments: Tensor | np.ndarray | float | int | None) -> list:
    """CPU tensors as contiguous arrays, other arguments unchanged. Tensors to be filled must be contiguous already."""
    return [a.detach().contiguous().numpy() if isinstance(a, Tensor) else a for a in arguments]
