"""Fixtures that write small data sets to disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from toy_frames import TEMPERATURE_K, molecule

from mdsim.datasets.folder import read_metadata, write_dataset
from mdsim.datasets.npz import Frames


@pytest.fixture
def write_set(tmp_path) -> Callable[..., Path]:
    """Writes `<tmp_path>/data/mine/x/<size>` and returns its folder."""
    tiny.write_data(tmp_path / "template")
    template = read_metadata(tmp_path / "template" / "toy" / "water" / "20" / "metadata.json")

    def write(make: Callable[[int, int], Frames] = molecule, n: int = 40, size: str = "40", **changes) -> Path:
        contiguous: Frames | None = changes.pop("contiguous", None)
        train: Frames = changes.pop("train", make(n, 0))
        folder = tmp_path / "data" / "mine" / "x" / size
        shared = {"test": make(20, 2)} | ({} if contiguous is None else {"contiguous": contiguous})
        known = {"temperature_K": TEMPERATURE_K, "atomic_numbers": train.atomic_numbers.tolist()}
        metadata = replace(template, **{**known, "contiguous_frame_interval_fs": None, **changes})
        write_dataset(folder, {"train": train, "val": make(5, 1)}, shared, metadata)
        return folder

    return write
