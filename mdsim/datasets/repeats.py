"""Detection of repeated frames, including copies that are shifted, wrapped or rotated as a whole."""

from __future__ import annotations

import numpy as np

from mdsim.typing import Bool, Float, Int

PROJECTIONS = 4  # number of random projections that distinguish frames


def repeated_frames(
    positions: Float[np.ndarray, "frame atom 3"], cell: Float[np.ndarray, "3 3"] | None, tolerance: float
) -> Int[np.ndarray, "frame"]:
    """For each frame, the first frame that it repeats. A frame that is not a repeat gives its own index.

    Frames are sorted by numbers that are invariant under motion of the whole frame. Frames with equal numbers are
    compared atom by atom. Time and memory are linear in frames and atoms.

    Args:
        positions: atoms in one order.
        cell: lattice vectors as rows; None for open boundaries, where frames may be rotated as well as shifted.
        tolerance: tolerance of each coordinate, in the unit of the positions.
    """
    positions = np.asarray(positions, dtype=np.float64)
    # Sums over atoms of numbers of order one rarely change by more than this if each atom moves by the tolerance.
    marks, width = _invariants(positions, cell), 4 * tolerance * np.sqrt(positions.shape[1])
    order = np.argsort(marks[:, 0], kind="stable")
    original = np.arange(len(positions))
    ends = np.searchsorted(marks[order, 0], marks[order, 0] + width, side="right")
    for at, frame in enumerate(order):
        others = order[at + 1 : ends[at]]
        others = others[(np.abs(marks[others] - marks[frame]) <= width).all(1)]
        if not len(others):
            continue
        same = others[_coincide(positions[frame], positions[others], cell, tolerance)]
        for other in same:
            early, late = sorted((_root(original, frame), _root(original, other)))
            original[late] = early
    return np.array([_root(original, frame) for frame in range(len(original))])


def _root(original: Int[np.ndarray, "frame"], frame: int | np.integer) -> int:
    while original[frame] != frame:
        frame = original[frame]
    return int(frame)


def _invariants(
    positions: Float[np.ndarray, "frame atom 3"], cell: Float[np.ndarray, "3 3"] | None
) -> Float[np.ndarray, "frame number"]:
    """Norms of weighted sums of positions (of phases in a cell), with a sensitivity of order one to each atom."""
    n_atoms = positions.shape[1]
    weights = np.random.default_rng(0).standard_normal((PROJECTIONS, n_atoms))
    weights -= weights.mean(1, keepdims=True)
    if cell is None:
        sums = np.einsum("pa,fac->fpc", weights, positions)
        return np.linalg.norm(sums, axis=-1)
    edge = np.linalg.norm(cell, axis=-1)
    phases = np.exp(2j * np.pi * (positions @ np.linalg.inv(cell)))
    sums = np.einsum("pa,fac->fpc", weights, phases) * edge / (2 * np.pi)
    return np.abs(sums).reshape(len(positions), -1)[:, : 3 * PROJECTIONS]


def _coincide(
    frame: Float[np.ndarray, "atom 3"],
    others: Float[np.ndarray, "other atom 3"],
    cell: Float[np.ndarray, "3 3"] | None,
    tolerance: float,
) -> Bool[np.ndarray, "other"]:
    """Mask of the other frames that are copies of the frame, up to a motion of the whole."""
    if cell is not None:
        steps = (others - others[:, :1]) - (frame - frame[:1])
        steps = steps - np.round(steps @ np.linalg.inv(cell)) @ cell
        return np.asarray((np.abs(steps - steps.mean(1, keepdims=True)) <= 2 * tolerance).all((1, 2)))
    target, moved = frame - frame.mean(0), others - others.mean(1, keepdims=True)
    left, _, right = np.linalg.svd(moved.transpose(0, 2, 1) @ target)
    left[..., 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    return np.asarray((np.abs(moved @ (left @ right) - target) <= 2 * tolerance).all((1, 2)))
