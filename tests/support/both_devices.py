"""Results of a function on the CPU and on the pretend device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pretend_device import PretendTensor, pretend_cuda
from torch.utils._pytree import tree_map

CLOSE = {"rtol": 1e-8, "atol": 1e-9}


def same_on_both(function: Callable[[str], Any], **tolerance: float) -> None:
    """Compare the tensors that a function of the name of a device returns: those of the CPU, and those of a GPU.

    The GPU is the second of two, so that a device without its index is noticed.
    """
    expected = function("cpu")
    with pretend_cuda(used=1) as ledger:
        found = function("cuda:1")
        assert ledger.n_launches, "nothing ran on the device"
        found = tree_map(_on_host, found)
    torch.testing.assert_close(found, expected, equal_nan=True, **(tolerance or CLOSE))


def _on_host(value: Any) -> Any:
    return value.inner.detach().clone() if isinstance(value, PretendTensor) else value
