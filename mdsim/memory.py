"""The memory budget of batches, and the division of work into parts that fit into it.

The budget is a property of the process, like the number of threads. It determines how work is divided and changes
results only by rounding. By default it is a fraction of the total memory, not of the free memory, so that a repeated
run on the same machine is divided in the same way and gives the same bits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from mdsim.distributed.launch import n_local_ranks
from mdsim.typing import Tensor

log = logging.getLogger("mdsim")

SHARE = 0.5  # of the machine's memory
PEAK_OVER_SAVED = 2.0  # includes temporaries of a layer and gradients of the backward pass
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_budget_GB: float | None = None
_announced: set[str] = set()


def set_budget_GB(budget_GB: float | None) -> None:
    """Set the memory budget of batches in GB (1e9 bytes). None: half of the memory of the machine, or of the GPU."""
    global _budget_GB
    _budget_GB = budget_GB
    _announced.clear()


def budget_bytes(device: torch.device) -> float:
    """The memory budget of a batch on this device, in bytes."""
    if _budget_GB is not None:
        return 1e9 * _budget_GB
    return SHARE * _machine_bytes(str(device)) / (n_local_ranks() if device.type == "cpu" else 1)


@lru_cache
def _machine_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(torch.device(device)).total_memory
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in CGROUP_LIMITS:  # of a container
        if Path(path).is_file() and (text := Path(path).read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)


def bytes_for(evaluation: Callable[[], object]) -> float:
    """Estimated peak memory of a piece of work in bytes, from the tensors that autograd saves.

    Args:
        evaluation: runs the work, including gradients if any.
    """
    storages: dict[int, torch.UntypedStorage] = {}  # by address, which cannot be reused while the storage is kept

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor.detach()  # a tensor saved by its own grad_fn would be a cycle that is never collected

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        evaluation()
    total = sum(storage.nbytes() for storage in storages.values())
    storages.clear()  # the graph, and with it this closure, may outlive the call
    return PEAK_OVER_SAVED * total


def pieces_at_once(bytes_each: float, wanted: int, device: torch.device, noun: str) -> int:
    """Number of equal pieces that fit into the budget, at least one. If it is less than wanted, a message is logged.

    Args:
        bytes_each: memory per piece, see `bytes_for`.
        wanted: total number of pieces.
        device: device whose memory they use.
        noun: name of the pieces, for the log.
    """
    fitting = max(1, min(wanted, int(budget_bytes(device) / max(1.0, bytes_each))))
    announce_division(noun, wanted, -(-wanted // fitting), bytes_each * wanted)
    return fitting


class PiecesAtOnce:
    """Number of equal pieces of work that fit into the budget, from a single measurement of one piece.

    Args:
        wanted: largest number.
        noun: name of the pieces, for the log.
        limited: if False, always use the wanted number, because the result depends on it.
    """

    def __init__(self, wanted: int, noun: str, limited: bool = True) -> None:
        self.wanted = wanted
        self.noun = noun
        self.limited = limited
        self._bytes_each: float | None = None

    def __call__(self, piece: Callable[[], object], device: torch.device) -> int:
        """The number of pieces, at least one.

        Args:
            piece: evaluates one piece with its gradients. It is called only the first time.
            device: device whose memory they use.
        """
        if not self.limited:
            return self.wanted
        if self._bytes_each is None:
            self._bytes_each = bytes_for(piece)
        return pieces_at_once(self._bytes_each, self.wanted, device, self.noun)


def announce_division(noun: str, wanted: int, n_groups: int, n_bytes: float) -> None:
    """Log the number of groups into which work is divided, unless it is one. One line per kind of work.

    Args:
        noun: name of the pieces.
        wanted: total number of pieces.
        n_groups: number of groups.
        n_bytes: memory that all pieces together would use.
    """
    if n_groups > 1 and noun not in _announced:
        _announced.add(noun)
        log.info("%d %s would take %.2g GB: divided into %d groups", wanted, noun, n_bytes / 1e9, n_groups)
