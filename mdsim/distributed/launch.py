"""The group of processes that torchrun has started, the folders of its ranks, and the end of all after an error."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from mdsim.distributed.collectives import n_ranks, rank
from mdsim.errors import TrainingError

TIMEOUT_S = 1800  # for the slowest rank to compile and to evaluate a stretch
LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out", "Broken pipe")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes of torchrun, which sets RANK and WORLD_SIZE. Alone, nothing happens.

    The first rank with an error raises it. All others end without a word.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield
        return
    _join()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not _is_first():
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
        if isinstance(error, RuntimeError) and any(words in str(error) for words in LOST):
            raise TrainingError("another process of the run has ended: see its message, or that of torchrun") from error
        raise
    finally:
        dist.destroy_process_group()


def _join() -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, number, size = next(dist.rendezvous("env://"))
    # torchrun keeps its store when it starts lost processes again, and with it the addresses of the lost ones.
    fresh = dist.PrefixStore(f"mdsim/{_attempt()}", store)
    dist.init_process_group(backend, store=fresh, rank=number, world_size=size, timeout=timedelta(seconds=TIMEOUT_S))


def _attempt() -> int:
    """How often torchrun has started the processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def local_rank() -> int:
    """Number of this process among those of its machine: its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if n_ranks() > 1 else 0


def n_local_ranks() -> int:
    """Number of processes that share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if n_ranks() > 1 else 1


def restarted() -> bool:
    """Whether torchrun has started the processes again after one was lost: the run then continues by itself."""
    return n_ranks() > 1 and _attempt() > 0


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """The run folder on rank 0, and on all others a temporary copy of it, so that only one rank writes results."""
    if rank() == 0:
        _wait()
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=f"mdsim-rank{rank()}-") as temporary:
        copy = Path(temporary) / folder.name
        if folder.is_dir():
            shutil.copytree(
                folder, copy, ignore=shutil.ignore_patterns("*.tfevents.*", "trajectories", ".lock", "*.tmp")
            )
        _wait()
        yield copy


def _is_first() -> bool:
    """Whether this rank is the first that ends with an error."""
    try:
        return dist.distributed_c10d._get_default_store().add("errors", 1) == 1
    except RuntimeError:  # the store has ended with its process
        return False


def _wait() -> None:
    """For all ranks to arrive here."""
    if n_ranks() > 1:
        dist.barrier()
