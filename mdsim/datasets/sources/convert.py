"""Conversion of source frames to a data set on disk, which must not mix with an existing, different one."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mdsim.datasets.contiguous import contiguous_frames
from mdsim.datasets.divide import Division
from mdsim.datasets.folder import Dataset, Metadata, read_metadata, write_dataset, write_metadata
from mdsim.datasets.npz import UNITS
from mdsim.datasets.sources.raw import RawFrames
from mdsim.datasets.splits import format_indices
from mdsim.errors import DatasetError

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Description:
    """What a person must say about frames, as their file does not."""

    source: str
    level_of_theory: str
    license: str
    temperature_K: float | None = None
    timestep_fs: float | None = None
    frame_interval_fs: float | None = None  # None where frames are not in time order


@dataclass(frozen=True)
class Excerpt:
    """Which frames are to be `contiguous.npz`."""

    n_frames: int
    start: int = 0


def is_there(folder: Path, settings: Mapping[str, Any], wanted: Excerpt | None) -> bool:
    """Whether this size is there already, whole, made in the same way, and with what is wanted.

    Args:
        folder: ``<root>/<name>/<molecule>/<size>``.
        settings: what decides on the content of all sizes, as JSON has it. Contiguous frames may be added later.
        wanted: the contiguous frames.

    Raises:
        DatasetError: this or another size, which would share files, was made otherwise; or a file is damaged.
    """
    for path in sorted(folder.parent.glob("*/metadata.json")):
        there, now = read_metadata(path).settings, dict(settings)
        if wanted is not None and there.get("contiguous") is not None:
            now["contiguous"] = as_settings(wanted)
        if changed := [key for key in now if key not in there or there[key] != now[key]]:
            changes = ", ".join(f"{key}: {_short(there.get(key))}, now {_short(now[key])}" for key in changed)
            raise DatasetError(
                f"{path}: was made with other settings ({changes}), and all sizes share their test frames; choose"
                f" another folder or name, or delete {folder.parent}"
            )
    if not (folder / "metadata.json").is_file():
        return False
    dataset = Dataset(folder, read_metadata(folder / "metadata.json"))
    if wanted is not None and dataset.metadata.settings.get("contiguous") is None:
        return False
    _ = dataset.train, dataset.val, dataset.test, dataset.contiguous if wanted else None  # read, and checked
    return True


def describe_again(folder: Path, description: Description) -> list[str]:
    """Take into the metadata what is said of a data set that is there already, and was not said when it was made.

    Args:
        folder: ``<root>/<name>/<molecule>/<size>``.
        description: what was left at its default says nothing.

    Returns:
        The names of what is new.
    """
    before = read_metadata(folder / "metadata.json")
    said: dict[str, Any] = {
        "temperature_K": description.temperature_K,
        "timestep_fs": description.timestep_fs,
        "level_of_theory": None if description.level_of_theory == NOT_STATED else description.level_of_theory,
        "license": None if description.license == NOT_STATED else description.license,
    }
    new = {key: value for key, value in said.items() if value is not None and value != getattr(before, key)}
    if new:
        write_metadata(folder / "metadata.json", replace(before, **new))
    return list(new)


def _short(setting: Any) -> Any:
    """A hash is told by its beginning."""
    return f"{setting[:12]}…" if isinstance(setting, str) and len(setting) == 64 else setting


def as_settings(wanted: Excerpt | None) -> dict[str, int] | None:
    return None if wanted is None else {"frames": wanted.n_frames, "start": wanted.start}


def write(
    folder: Path,
    raw: RawFrames,
    division: Division,
    description: Description,
    settings: Mapping[str, Any],
    wanted: Excerpt | None,
    command: str,
) -> Dataset:
    """Write one size of a data set and read it back.

    Args:
        folder: ``<root>/<name>/<molecule>/<size>``.
        raw: all frames, in known units.
        division: which of them train, validate and test.
        description: what they are.
        settings: what decides on the content of all sizes.
        wanted: the contiguous frames; None for none.
        command: that makes the data set again.

    Raises:
        DatasetError: the contiguous frames are not in time order, or what was written is not a valid data set.
    """
    parts = {name: getattr(division, name) for name in ("train", "val", "test")}
    own = {name: raw.frames(parts[name]) for name in ("train", "val")}
    shared = {"test": raw.frames(parts["test"])}
    settings = dict(settings) | {"contiguous": as_settings(wanted), "found": [list(line) for line in raw.found]}
    interval_fs = None
    if wanted is not None:
        interval_fs = description.frame_interval_fs
        if interval_fs is None:
            raise DatasetError(f"{description.source}: frames that are not in time order have no contiguous stretch")
        shared["contiguous"], settings["velocities"] = contiguous_frames(
            description.source, raw, wanted.n_frames, wanted.start, interval_fs
        )
    split = {
        "method": division.method,
        "seed": settings["seed"],
        "indices": {name: format_indices(raw.place[chosen]) for name, chosen in parts.items()},  # in the source
    }
    metadata = _metadata(raw, description, settings, split, interval_fs, command)
    write_dataset(folder, own, shared, metadata)
    dataset = Dataset(folder, read_metadata(folder / "metadata.json"))
    _ = dataset.train, dataset.val, dataset.test  # read, and checked
    return dataset


def _metadata(
    raw: RawFrames,
    description: Description,
    settings: dict[str, Any],
    split: dict[str, Any],
    contiguous_interval_fs: float | None,
    command: str,
) -> Metadata:
    programs = {name: version(name) for name in ("mdsim", "ase", "numpy")}
    return Metadata(
        source=description.source,
        level_of_theory=description.level_of_theory,
        license=description.license,
        atomic_numbers=raw.atomic_numbers.tolist(),
        temperature_K=description.temperature_K,
        timestep_fs=description.timestep_fs,
        structural_frame_interval_fs=None,
        contiguous_frame_interval_fs=contiguous_interval_fs,
        split=split,
        program_versions=programs | {"python": platform.python_version()},
        command=command,
        settings=settings,
        units=UNITS,
        n_frames={},
        sha256={},
    )
