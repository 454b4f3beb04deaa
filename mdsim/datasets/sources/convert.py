"""Conversion of source frames to a data set on disk, with protection of existing data sets."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mdsim.datasets.contiguous import contiguous_frames
from mdsim.datasets.divide import Division
from mdsim.datasets.folder import Dataset, Metadata, read_metadata, write_dataset, write_metadata
from mdsim.datasets.mixed_folder import opened
from mdsim.datasets.npz import UNITS, UNITS_WITH_STRESS
from mdsim.datasets.sources.raw import RawFrames
from mdsim.datasets.splits import format_indices
from mdsim.errors import DatasetError
from mdsim.typing import Int

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Description:
    """Description of frames that their file does not contain."""

    source: str
    level_of_theory: str
    license: str
    temperature_K: float | None = None
    timestep_fs: float | None = None
    frame_interval_fs: float | None = None  # None if frames are not in time order
    atomic_energies_eV: Mapping[str, float] | None = None  # by chemical symbol; None: of isolated atoms in the file


@dataclass(frozen=True)
class Excerpt:
    """Frames for `contiguous.npz`."""

    n_frames: int
    start: int = 0


def is_there(folder: Path, settings: Mapping[str, Any], wanted: Excerpt | None) -> bool:
    """Whether this size exists, is complete, has the same settings, and contains the wanted frames.

    Args:
        folder: ``<root>/<name>/<molecule>/<size>``.
        settings: settings that determine the content of all sizes. Contiguous frames may be added later.
        wanted: the contiguous frames.

    Raises:
        DatasetError: this or another size with shared files has other settings, or a file is damaged.
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
    dataset = opened(folder)
    if wanted is not None and dataset.metadata.settings.get("contiguous") is None:
        return False
    _ = dataset.train, dataset.val, dataset.test  # read, and checked
    if wanted is not None and isinstance(dataset, Dataset):
        _ = dataset.contiguous
    return True


def describe_again(folder: Path, description: Description) -> list[str]:
    """Add new parts of a description to the metadata of an existing data set.

    Args:
        folder: ``<root>/<name>/<molecule>/<size>``.
        description: the description. Default values are ignored.

    Returns:
        The names of the added parts.
    """
    before = read_metadata(folder / "metadata.json")
    said: dict[str, Any] = {
        "temperature_K": description.temperature_K,
        "timestep_fs": description.timestep_fs,
        "level_of_theory": None if description.level_of_theory == NOT_STATED else description.level_of_theory,
        "license": None if description.license == NOT_STATED else description.license,
        "atomic_energies_eV": description.atomic_energies_eV,
    }
    new = {key: value for key, value in said.items() if value is not None and value != getattr(before, key)}
    if new:
        write_metadata(folder / "metadata.json", replace(before, **new))
    return list(new)


def _short(setting: Any) -> Any:
    """Short text of a setting. Hashes are abbreviated."""
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
        division: training, validation and test frames.
        description: description of the frames.
        settings: settings that determine the content of all sizes.
        wanted: the contiguous frames; None for none.
        command: command that generates the data set.

    Raises:
        DatasetError: the contiguous frames are not in time order, or the written files are not a valid data set.
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
    metadata = metadata_of(
        description,
        settings,
        split_of(division, settings["seed"], raw.place),
        command,
        raw.atomic_numbers.tolist(),
        atomic_energies_eV(raw, description),
        raw.stress is not None,
        interval_fs,
    )
    write_dataset(folder, own, shared, metadata)
    dataset = Dataset(folder, read_metadata(folder / "metadata.json"))
    _ = dataset.train, dataset.val, dataset.test  # read, and checked
    return dataset


def split_of(division: Division, seed: int, place: Int[np.ndarray, "frame"]) -> dict[str, Any]:
    """The division for the metadata, with the index of each frame in the source."""
    parts = {name: getattr(division, name) for name in ("train", "val", "test")}
    indices = {name: format_indices(np.sort(place[chosen])) for name, chosen in parts.items()}
    return {"method": division.method, "seed": seed, "indices": indices}


def metadata_of(
    description: Description,
    settings: dict[str, Any],
    split: dict[str, Any],
    command: str,
    atomic_numbers: list[int],
    atoms_eV: Mapping[str, float],
    has_stress: bool,
    contiguous_interval_fs: float | None = None,
) -> Metadata:
    """The metadata of a new data set, without the counts and hashes of its files.

    Args:
        description, settings, split, command: parts of the metadata.
        atomic_numbers: of the system, or the elements of a mixed set.
        atoms_eV: energies of isolated atoms by chemical symbol.
        has_stress: whether frames have stresses.
        contiguous_interval_fs: time between contiguous frames.
    """
    programs = {name: version(name) for name in ("mdsim", "ase", "numpy")}
    return Metadata(
        source=description.source,
        level_of_theory=description.level_of_theory,
        license=description.license,
        atomic_numbers=atomic_numbers,
        temperature_K=description.temperature_K,
        timestep_fs=description.timestep_fs,
        structural_frame_interval_fs=None,
        contiguous_frame_interval_fs=contiguous_interval_fs,
        split=split,
        program_versions=programs | {"python": platform.python_version()},
        command=command,
        settings=settings,
        units=UNITS_WITH_STRESS if has_stress else UNITS,
        n_frames={},
        sha256={},
        atomic_energies_eV=dict(atoms_eV),
    )


def atomic_energies_eV(raw: RawFrames, description: Description) -> dict[str, float]:
    """Energies of isolated atoms by chemical symbol: those given, otherwise those among the frames."""
    given = description.atomic_energies_eV
    return raw.atomic_energies_eV if given is None else dict(given)
