"""Division of work among ranks, and the collective operations that join its results."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import torch
import torch.distributed as dist

from mdsim.errors import TrainingError
from mdsim.typing import Int, Tensor

T = TypeVar("T")


def n_ranks() -> int:
    """Number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from zero. Rank 0 writes files and messages."""
    return dist.get_rank() if n_ranks() > 1 else 0


def share(n: int) -> slice:
    """The consecutive pieces of this rank, possibly none, out of `n`."""
    each = -(-n // n_ranks())
    return slice(min(n, rank() * each), min(n, (rank() + 1) * each))


def share_of_equals(n: int, device: torch.device) -> Int[Tensor, "piece"]:
    """Like `share`, as indices, with as many for every rank: the last piece fills up the shares of the last ranks."""
    each = -(-n // n_ranks())
    return torch.arange(rank() * each, (rank() + 1) * each, device=device).clamp(max=n - 1)


def gathered(mine: Tensor, n: int, dim: int = 0) -> Tensor:
    """All `n` pieces along an axis, from the `share_of_equals` of every rank."""
    if n_ranks() == 1:
        return mine
    sent = mine.contiguous().view(torch.uint8) if mine.dtype == torch.bool else mine.contiguous()
    parts = [torch.empty_like(sent) for _ in range(n_ranks())]
    dist.all_gather(parts, sent)
    return torch.cat(parts, dim).narrow(dim, 0, n).view(mine.dtype)


def gathered_objects(mine: Sequence[T], n: int) -> list[T]:
    """Like `gathered`, for a sequence of small Python objects."""
    if n_ranks() == 1:
        return list(mine)
    parts: list[Sequence[T]] = [()] * n_ranks()
    dist.all_gather_object(parts, list(mine))
    return list(chain.from_iterable(parts))[:n]


def summed(mine: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The sums over all ranks of several tensors, by a single operation on a flat buffer."""
    if n_ranks() == 1:
        return tuple(mine)
    buffer = torch.cat([tensor.reshape(-1) for tensor in mine])
    dist.all_reduce(buffer)
    parts = buffer.split([tensor.numel() for tensor in mine])
    return tuple(part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, mine, strict=True))


def agreed(asked: Callable[[], bool]) -> Callable[[], bool]:
    """A question whose answer is the same for all ranks: whether it is yes on any of them."""
    if n_ranks() == 1:
        return asked
    return lambda: any(gathered_objects([asked()], n_ranks()))


def check_same(tensors: Sequence[Tensor], noun: str) -> None:
    """Compare the bits of tensors among all ranks.

    Raises:
        TrainingError: they differ.
    """
    if n_ranks() == 1:
        return
    checksum = 0
    for tensor in tensors:
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data, checksum)
    found = gathered_objects([checksum], n_ranks())
    if len(set(found)) > 1:
        differing = [number for number, other in enumerate(found) if other != found[0]]
        raise TrainingError(f"{noun} of ranks {differing} differ from those of rank 0: resume an earlier checkpoint")
