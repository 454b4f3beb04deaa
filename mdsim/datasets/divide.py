"""Division of one source of frames into training, validation and test frames, for several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdsim.datasets.splits import MINIMUM_VALIDATION_FRAMES, block_holdout, nested_splits, parse_size
from mdsim.errors import DatasetError

RANDOM = "test: random frames, the same for all sizes; train and val: nested random sizes of the rest"
BLOCKS = "test: end of each trajectory, behind a gap; val: from a stretch before it, behind a gap; train: from the rest"


@dataclass(frozen=True)
class Division:
    """Indices of frames, ascending, and a description of the division."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    method: str


def at_random(n_frames: int, size: str, n_test: int, seed: int, validation_fraction: float = 0.05) -> Division:
    """Divide independent frames at random. Sizes divided with the same seed share their test frames and are nested.

    Args:
        n_frames: frames of the source.
        size: name of the size, see `parse_size`; training and validation frames together.
        n_test: number of test frames.
        seed: seed of the random order.
        validation_fraction: fraction of the size.

    Raises:
        DatasetError: the source has too few frames.
    """
    if not 0 < n_test < n_frames:
        raise DatasetError(
            f"{n_test} test frames cannot be taken from {n_frames} frames: ask for fewer (--test-frames)"
        )
    test = np.sort(np.random.default_rng([seed, 1]).permutation(n_frames)[:n_test])
    pool = np.setdiff1d(np.arange(n_frames), test, assume_unique=True)
    try:
        split = nested_splits(len(pool), [size], seed, validation_fraction)[size]
    except ValueError as error:
        raise DatasetError(f"{error} beside {n_test} test frames (--size, --test-frames)") from error
    return Division(pool[split.train], pool[split.val], test, RANDOM)


def in_blocks(
    lengths: Sequence[int], size: str, n_test: int, gap: int, seed: int, validation_fraction: float = 0.05
) -> Division:
    """Divide correlated frames. The end of each trajectory is for testing, the stretch before it for validation.

    Gaps separate the stretches.

    Args:
        lengths: frames of each trajectory, in the order of the source.
        size: name of the size, see `parse_size`; training and validation frames together, drawn from their stretches.
        n_test: test frames of all trajectories together.
        gap: unused frames between the stretches; use several correlation times.
        seed: seed of the draw.
        validation_fraction: fraction of the frames that are not for testing.

    Raises:
        DatasetError: the trajectories are too short.
    """
    try:
        rest, test = block_holdout(lengths, n_test, gap)
        owner = np.repeat(np.arange(len(lengths)), lengths)[rest]
        kept = np.bincount(owner, minlength=len(lengths)).tolist()
        n_val = max(MINIMUM_VALIDATION_FRAMES, round(validation_fraction * len(rest)))
        front, back = block_holdout(kept, n_val, gap)
        wanted = parse_size(size, len(front) + len(back))
    except ValueError as error:
        raise DatasetError(f"{error} (--size, --test-frames, --gap-frames)") from error
    # Gaps shorten the front. The largest sizes take the missing frames from the back, so that 100percent uses all.
    for_val = max(MINIMUM_VALIDATION_FRAMES, round(validation_fraction * wanted), wanted - len(front))
    for_val = min(len(back), for_val)
    if not 0 < wanted - for_val <= len(front):
        raise DatasetError(f"size {size!r} asks for {wanted - for_val} training frames of the {len(front)} there are")
    rng = np.random.default_rng(seed)
    train = np.sort(rng.permutation(len(front))[: wanted - for_val])
    val = np.sort(rng.permutation(len(back))[:for_val])
    return Division(rest[front[train]], rest[back[val]], test, BLOCKS)
