"""How much memory a batch may take, and how many equal pieces of work fit into that.

The budget belongs to the process, as the number of threads does: it changes how work is divided, and results only by
rounding. By default it is a share of what the machine has, not of what is free at the moment, so that a run is divided
alike, and gives the same bits, whenever it is repeated on the same machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from mdsim.typing import Tensor

log = logging.getLogger("mdsim")

SHARE = 0.5  # of the machine's memory
PEAK_OVER_SAVED = 2.0  # temporaries of a layer and gradients on the way back, beside what autograd saves
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_budget_GB: float | None = None
_announced: set[str] = set()


def set_budget_GB(budget_GB: float | None) -> None:
    """What batches may take from now on, in GB (1e9 bytes); None: half of the memory of the machine, or of the GPU."""
    global _budget_GB
    _budget_GB = budget_GB
    _announced.clear()


def budget_bytes(device: torch.device) -> float:
    """What a batch on this device may take."""
    return 1e9 * _budget_GB if _budget_GB is not None else SHARE * _machine_bytes(str(device))


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
    """Memory at the peak of a piece of work, from what autograd saves while it runs.

    Args:
        evaluation: runs it, with gradients where they are taken.
    """
    storages: dict[int, torch.UntypedStorage] = {}  # by address, which is not given away while the storage is here

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor.detach()  # the tensor itself, saved by its own grad_fn, would be a cycle that is never collected

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        evaluation()
    total = sum(storage.nbytes() for storage in storages.values())
    storages.clear()  # the graph, and with it this closure, may outlive the call
    return PEAK_OVER_SAVED * total


def pieces_at_once(bytes_each: float, wanted: int, device: torch.device, noun: str) -> int:
    """How many equal pieces fit into the budget, at least one; says so where they are fewer than wanted.

    Args:
        bytes_each: memory of one, see `bytes_for`.
        wanted: how many there are.
        device: whose memory they take.
        noun: what the pieces are, for the log.
    """
    fitting = max(1, min(wanted, int(budget_bytes(device) / max(1.0, bytes_each))))
    announce_division(noun, wanted, -(-wanted // fitting), bytes_each * wanted)
    return fitting


class PiecesAtOnce:
    """How many equal pieces of work fit into the budget, by one measurement of one piece for all calls.

    Args:
        wanted: the most.
        noun: what the pieces are, for the log.
        limited: False: always as many as wanted, where the result depends on their number.
    """

    def __init__(self, wanted: int, noun: str, limited: bool = True) -> None:
        self.wanted = wanted
        self.noun = noun
        self.limited = limited
        self._bytes_each: float | None = None

    def __call__(self, piece: Callable[[], object], device: torch.device) -> int:
        """The number of pieces, at least one.

        Args:
            piece: evaluates one of them, with its gradients; called the first time only.
            device: whose memory they take.
        """
        if not self.limited:
            return self.wanted
        if self._bytes_each is None:
            self._bytes_each = bytes_for(piece)
        return pieces_at_once(self._bytes_each, self.wanted, device, self.noun)


def announce_division(noun: str, wanted: int, n_groups: int, n_bytes: float) -> None:
    """Say into how many groups pieces of work are divided, unless it is one: one line for each kind of work.

    Args:
        noun: what the pieces are.
        wanted: how many there are.
        n_groups: into which they are divided.
        n_bytes: that all of them would take.
    """
    if n_groups > 1 and noun not in _announced:
        _announced.add(noun)
        log.info("%d %s would take %.2g GB: divided into %d groups", wanted, noun, n_bytes / 1e9, n_groups)
