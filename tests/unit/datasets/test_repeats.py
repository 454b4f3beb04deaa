"""Repeated frames: copies are found after any motion of the whole, and no other frames are."""

from __future__ import annotations

import numpy as np
import pytest
from paths import BUNDLED

from mdsim.datasets.repeats import repeated_frames


def turned(positions: np.ndarray, seed: int) -> np.ndarray:
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return positions @ (rotation * np.sign(np.linalg.det(rotation))) + np.array([3.0, -20.0, 0.1])


@pytest.fixture
def molecules() -> np.ndarray:
    with np.load(BUNDLED / "aspirin_gfn2" / "aspirin" / "100" / "train.npz") as arrays:
        return arrays["R"].astype(np.float64)


@pytest.mark.parametrize("decimals", [12, 8, 5])
def test_moved_and_turned_copies(molecules, decimals):
    copies = np.stack([turned(molecules[3], 1), molecules[5] + 7.0, molecules[3]])
    every = np.round(np.concatenate([molecules, copies]), decimals)
    assert repeated_frames(every, None, 2e-5).tolist() == [*range(len(molecules)), 3, 5, 3]


def test_mirror_images_and_near_frames_are_no_copies(molecules):
    near = molecules[:1].copy()
    near[0, 4, 0] += 5e-4  # what an atom moves in 0.1 fs
    every = np.concatenate([molecules[:10], molecules[:2] * np.array([1, 1, -1]), near])
    assert repeated_frames(every, None, 2e-5).tolist() == list(range(13))


def test_shifted_and_wrapped_copies_in_a_cell():
    rng = np.random.default_rng(0)
    cell = np.array([[7.0, 0, 0], [2.5, 6.5, 0], [-2.0, 1.5, 6.0]])
    positions = rng.random((20, 12, 3)) @ cell
    shifted = positions[4] + np.array([1.7, -3.0, 0.2])
    wrapped = (shifted @ np.linalg.inv(cell)) % 1.0 @ cell
    every = np.concatenate([positions, shifted[None], wrapped[None], turned(positions[2], 0)[None]])
    assert repeated_frames(every, cell, 2e-5).tolist() == [*range(20), 4, 4, 22]
