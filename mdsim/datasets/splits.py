"""Splits into training, validation and test frames: nested random splits, and held-out ends of trajectories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_INDICES = 100_000_000
MINIMUM_VALIDATION_FRAMES = 2  # fewer give too noisy a validation loss


@dataclass(frozen=True)
class Split:
    """Indices of the training and validation frames in their pool, ascending."""

    train: np.ndarray
    val: np.ndarray


def parse_size(name: str, n_pool: int) -> int:
    """Number of training and validation frames together of a named size.

    Args:
        name: ``40``, ``100``, ``1k``, ``10k``, or ``25percent`` of the pool.
        n_pool: number of frames to choose from.

    Raises:
        ValueError: the name is not of this form, or the pool has fewer frames.
    """
    match = re.fullmatch(r"([1-9]\d*)(k|percent)?", name)
    if match is None:
        raise ValueError(f"size {name!r} is not a number of frames: write 40, 100, 1k, 10k or 25percent")
    number, unit = int(match[1]), match[2]
    size = {None: number, "k": 1000 * number, "percent": round(0.01 * number * n_pool)}[unit]
    if size > n_pool:
        raise ValueError(f"size {name!r} asks for {size} frames, but only {n_pool} are there to choose from")
    return size


def nested_splits(n_pool: int, sizes: Sequence[str], seed: int, validation_fraction: float = 0.05) -> dict[str, Split]:
    """Random splits of one pool in which every smaller size is part of every larger one.

    Training frames are taken from the front of one random order and validation frames from its back. Both kinds of
    sets are therefore nested, and no training frame of one size is a validation frame of another. A model fitted to a
    small size can be evaluated on the validation frames of a large one.

    Args:
        n_pool: number of frames to choose from.
        sizes: names of sizes, see `parse_size`; each counts training and validation frames together.
        seed: seed of the random order.
        validation_fraction: fraction of each size, rounded; at least 2 frames (``40`` is 38 + 2, ``1k`` is 950 + 50).

    Returns:
        The split of each size, by name.

    Raises:
        ValueError: a size is malformed, larger than the pool, or too small to split.
    """
    order = np.random.default_rng(seed).permutation(n_pool)
    splits = {}
    for name in sizes:
        size = parse_size(name, n_pool)
        n_val = max(MINIMUM_VALIDATION_FRAMES, round(validation_fraction * size))
        if n_val >= size:
            raise ValueError(f"size {name!r} leaves no training frames in addition to {n_val} validation frames")
        splits[name] = Split(np.sort(order[: size - n_val]), np.sort(order[n_pool - n_val :]))
    return splits


def block_holdout(lengths: Sequence[int], test_frames: int, gap_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the last stretch of each trajectory, after an unused gap.

    Neighboring frames of molecular dynamics are correlated: test frames drawn at random between training frames would
    make the test error too small. The gap should be several correlation times long.

    Args:
        lengths: number of frames of each trajectory.
        test_frames: total number, divided evenly; the first trajectories give the remainder.
        gap_frames: unused frames before the test stretch of each trajectory.

    Returns:
        Indices of the pool and of the test frames, both in the concatenation of all trajectories, ascending.

    Raises:
        ValueError: a trajectory is too short to leave any frame for the pool.
    """
    share, remainder = divmod(test_frames, len(lengths))
    pool, test, start = [], [], 0
    for index, length in enumerate(lengths):
        held_out = share + (index < remainder)
        kept = length - held_out - gap_frames
        if kept < 1:
            raise ValueError(
                f"trajectory {index} has {length} frames:"
                f" too few for {held_out} test frames behind a gap of {gap_frames}"
            )
        pool.append(np.arange(start, start + kept))
        test.append(np.arange(start + length - held_out, start + length))
        start += length
    return np.concatenate(pool), np.concatenate(test)


def format_indices(indices: np.ndarray) -> str:
    """Ascending indices as text, with runs as ranges: ``0-3,7,9-10``."""
    if len(indices) == 0:
        return ""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def is_indices(text: object) -> bool:
    """Whether a value is text in the format of `format_indices`, with few enough indices for the memory."""
    number = r"\d{1,9}"
    if not isinstance(text, str) or re.fullmatch(rf"({number}(-{number})?(,{number}(-{number})?)*)?", text) is None:
        return False
    runs = [run.partition("-") for run in text.split(",") if run]
    return sum(int(last or first) - int(first) + 1 for first, _, last in runs) <= MOST_INDICES


def parse_indices(text: str) -> np.ndarray:
    """The indices in a text of `format_indices`."""
    bounds = [run.partition("-") for run in text.split(",") if run]
    runs = [np.arange(int(first), int(last or first) + 1) for first, _, last in bounds]
    return np.concatenate(runs) if runs else np.empty(0, dtype=np.int64)
