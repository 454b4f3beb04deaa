"""Seeded mutations of files, text and saved states, and counts of their outcomes."""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

from mdsim.errors import UserError

#: How many times as many mutations are tried: `MDSIM_FUZZ=50 python -m pytest tests/fuzz`.
LENGTH = float(os.environ.get("MDSIM_FUZZ", "1"))
SEED = int(os.environ.get("MDSIM_FUZZ_SEED", "0"))
LONGEST_MESSAGE = 2000  # of up to ten problems

ODD = (
    None,
    True,
    0,
    1,
    -1,
    2.5,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\0",
    "é" * 300,
    [],
    {},
    [None],
    {"a": 1},
)


def tries(number: int) -> Iterator[random.Random]:
    """Generators of mutations, each with its own seed."""
    for attempt in range(int(number * LENGTH)):
        yield random.Random(1_000_003 * SEED + attempt)


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One bit of a file is another one."""
    changed, position = bytearray(content), rng.randrange(8 * len(content))
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths to everything within nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def undigested(payload: dict) -> dict:
    """The content of a checkpoint as earlier releases wrote it: only its form can be checked."""
    return {key: value for key, value in payload.items() if key != "digest"}


def restructured(value: Any, rng: random.Random, below: tuple = ()) -> tuple[Any, str]:
    """A copy of nested dictionaries and lists in which one entry is deleted, renamed, repeated or something else.

    Returns:
        The copy, and what was done to it.
    """
    changed = copy.deepcopy(value)
    inside = changed
    for key in below:
        inside = inside[key]
    path = rng.choice(list(places(inside)))
    parent = inside
    for key in path[:-1]:
        parent = parent[key]
    last, how = path[-1], rng.choice(["set", "set", "set", "delete", "rename", "repeat"])
    if how == "delete":
        del parent[last]
    elif how == "rename" and isinstance(parent, dict):
        parent[f"{last}_"] = parent.pop(last)
    elif how == "repeat" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
    else:
        parent[last] = _other(parent[last], rng)
    return changed, f"{how} {'.'.join(map(str, (*below, *path)))}"


def _other(old: Any, rng: random.Random) -> Any:
    """Something else in the place of a value; in the place of a tensor mostly another tensor."""
    if not isinstance(old, torch.Tensor) or rng.random() < 0.3:
        return copy.deepcopy(rng.choice([other for other in ODD if type(other) is not type(old) or other != old]))
    others = [torch.zeros(0), torch.zeros(3), old.double() if old.dtype != torch.float64 else old.float()]
    if old.is_floating_point():
        others += [torch.full_like(old, float("nan")), torch.full_like(old, float("inf"))]
    if old.ndim:
        others += [torch.cat([old, old]), old[:0], old[None]]
    return rng.choice(others)


class Outcomes:
    """Counts what became of mutations; anything but acceptance and a clear error of the user fails at once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def of(self, action: Callable[[], Any], what: str) -> Any:
        """The result of an action, or None where it was refused with an error of the user.

        Args:
            action: must return, or raise a `UserError` of bounded length; any other error is passed on.
            what: the mutation, for messages.
        """
        try:
            result = action()
        except UserError as error:
            message = str(error)
            assert message and len(message) < LONGEST_MESSAGE, f"{what}: a message of {len(message)} characters"
            assert all(len(line) < LONGEST_MESSAGE / 2 for line in message.splitlines()), what
            self.counts["refused"] += 1
            return None
        except Exception as error:
            raise AssertionError(f"{what} ends in {type(error).__name__}: {error}") from error
        self.counts["accepted"] += 1
        return result
