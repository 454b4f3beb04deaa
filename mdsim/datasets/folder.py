"""Data set folders: npz files of frames, described by `metadata.json`.

``<root>/<name>/<molecule>/<size>/{train,val,test}.npz`` and ``contiguous.npz`` (time-ordered frames). Files
that all sizes share may be one level up, in ``<root>/<name>/<molecule>/``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mdsim.atomic_energies import fault_of_table
from mdsim.datasets.array_checks import HEAVIEST
from mdsim.datasets.npz import (
    UNITS,
    UNITS_WITH_STRESS,
    Frames,
    Storable,
    holds,
    read_frames,
    write_atomically,
    write_frames,
)
from mdsim.datasets.reference_run import ReferenceRun, read_reference_run, write_reference_run
from mdsim.datasets.splits import is_indices
from mdsim.datasets.systems import bonds_of, system_of, with_bonds
from mdsim.errors import DatasetError
from mdsim.geometry import angles_deg, pair_distances, unwrapped_in_time, whole_molecules
from mdsim.observables.adf import bonded_triplets
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor

LABELED = ("train", "val", "test")  # these must hold forces
COORDINATES_AT_ONCE = 200_000  # bond lengths or angles of several frames; limits the memory
COMPOSITIONS_SHOWN = 12  # in messages


@dataclass(frozen=True)
class Metadata:
    """Description and origin of a data set: the content of ``metadata.json``."""

    source: str
    level_of_theory: str
    license: str
    atomic_numbers: list[int]
    temperature_K: float | None  # None if frames are not from one canonical ensemble
    timestep_fs: float | None  # time step of the dynamics that generated the frames
    structural_frame_interval_fs: float | None  # None if frames are not in time order
    contiguous_frame_interval_fs: float | None
    split: dict[str, Any]  # division of the frames, its seed, and the indices as text
    program_versions: dict[str, str]
    command: str  # command that generates the data set
    settings: dict[str, Any]
    units: dict[str, str]
    n_frames: dict[str, int]  # per file; written by `write_dataset`
    sha256: dict[str, str]  # per file; written by `write_dataset`
    atomic_energies_eV: dict[str, float] = field(default_factory=dict)  # of isolated atoms, by chemical symbol
    compositions: dict[str, int] = field(default_factory=dict)  # frames of each, in a set of several

    def stated(self) -> dict[str, Any]:
        """The content of the file, without what has no value."""
        optional = ("atomic_energies_eV", "compositions")
        return {key: value for key, value in asdict(self).items() if key not in optional or value}

    @property
    def is_mixed(self) -> bool:
        """Whether frames differ in composition or cell; the atomic numbers are then those of all elements."""
        return bool(self.compositions)


@dataclass(frozen=True)
class Dataset:
    """A data set on disk. Files are read and checked on first use."""

    folder: Path
    metadata: Metadata

    @cached_property
    def train(self) -> Frames:
        return self._read("train")

    @cached_property
    def val(self) -> Frames:
        return self._read("val")

    @cached_property
    def test(self) -> Frames:
        return self._read("test")

    @cached_property
    def contiguous(self) -> Frames:
        """Time-ordered frames, for dynamical observables."""
        return self._read("contiguous")

    def contiguous_trajectory(self) -> Trajectory:
        """The time-ordered frames as the trajectory of one replica."""
        interval = self.metadata.contiguous_frame_interval_fs
        if interval is None:
            raise DatasetError(f"{self.folder / 'metadata.json'}: has no contiguous_frame_interval_fs")
        return self.contiguous.as_trajectory(interval)

    def system(self, dtype: torch.dtype = torch.float32) -> System:
        """The system of all frames. Two atoms are bonded if they are in at least half of the training frames."""
        return with_bonds(self.train, self._bonds, dtype)

    @cached_property
    def _bonds(self) -> Int[Tensor, "bond 2"]:
        return bonds_of(self.train)

    def reference_bond_lengths(self) -> Float[Tensor, "bond"]:
        """Mean length in Å of each bond of `system` over the training frames."""
        return self._mean_over_frames(pair_distances, self._bonds)

    def reference_angles_deg(self) -> Float[Tensor, "triplet"]:
        """Mean in degrees of each of the `bonded_triplets` of `system` over the training frames."""
        return self._mean_over_frames(angles_deg, bonded_triplets(self.system()))

    def _mean_over_frames(self, coordinates: Callable[..., Tensor], atoms: Int[Tensor, "tuple atom"]) -> Tensor:
        """Mean of each coordinate over the training frames, a few at a time."""
        parts = self.train.positions.split(max(1, COORDINATES_AT_ONCE // max(1, len(atoms))))
        sums = [coordinates(some.double(), atoms, self.train.cell).sum(0) for some in parts]
        return torch.stack(sums).sum(0) / len(self.train)

    @cached_property
    def reference_run(self) -> ReferenceRun:
        """Observables of the whole run from which the frames were drawn, if available."""
        return read_reference_run(self._verified("reference"))

    def _verified(self, name: str) -> Path:
        """Path of an existing file that matches the metadata."""
        return verified_path(self.folder, self.metadata, name)

    def _read(self, name: str) -> Frames:
        path = self._verified(name)
        frames = read_frames(path, require_forces=name in LABELED)
        if frames.atomic_numbers.tolist() != self.metadata.atomic_numbers:
            raise DatasetError(
                f"{path}: holds {len(frames.atomic_numbers)} atoms with other atomic numbers than the"
                f" {len(self.metadata.atomic_numbers)} of metadata.json"
            )
        return self._with_whole_molecules(name, frames)

    def _with_whole_molecules(self, name: str, frames: Frames) -> Frames:
        if frames.cell is None:
            return frames
        bonds = system_of(frames if name == "train" else self.train).bonds
        return unwrapped(frames, bonds, in_time_order=name == "contiguous")


def verified_path(folder: Path, metadata: Metadata, name: str) -> Path:
    """Path of the file of a split.

    Raises:
        DatasetError: there is none, or it does not match the metadata.
    """
    path = _locate(folder, name)
    if path is None:
        raise DatasetError(f"{name}.npz is neither in {folder} nor one level up; make the data set again")
    if (digest := sha256_of(path)) != metadata.sha256.get(path.name):
        raise DatasetError(
            f"{path}: sha256 is {digest[:12]}…, but metadata.json says"
            f" {metadata.sha256.get(path.name, 'nothing')[:12]}…: the file is truncated or was changed;"
            " download or make the data set again"
        )
    return path


def load_dataset(root: Path | str, name: str, molecule: str, size: str) -> Dataset:
    """Open ``<root>/<name>/<molecule>/<size>``; arrays are read later, when used.

    Args:
        root: folder of all data sets.
        name: name of the data set, e.g. ``aspirin_gfn2``.
        molecule: the system, e.g. ``aspirin``.
        size: number of frames, e.g. ``1k``.

    Raises:
        DatasetError: there is no such data set (the message lists the existing ones), its metadata is not valid, or it
            has several compositions or cells, see `mdsim.datasets.mixed_folder`.
    """
    folder, metadata = open_folder(root, name, molecule, size)
    if metadata.is_mixed:
        raise DatasetError(
            f"{folder}: has frames of several compositions or cells, and one of both is needed here. In configurations,"
            f" data.composition chooses one of {described_compositions(metadata.compositions)}"
        )
    return Dataset(folder, metadata)


def open_folder(root: Path | str, name: str, molecule: str, size: str) -> tuple[Path, Metadata]:
    """Folder and metadata of a data set. Arguments and errors as in `load_dataset`."""
    root = Path(root)
    folder = root / name / molecule / size
    if not (folder / "metadata.json").is_file():
        found = sorted(str(path.parent.relative_to(root)) for path in root.glob("*/*/*/metadata.json"))
        raise DatasetError(
            f"{folder}: no data set here (metadata.json is missing). Under {root} there are:"
            f" {', '.join(found) or 'none'}. Make this one with {_maker(root, name, molecule, size)}"
        )
    return folder, read_metadata(folder / "metadata.json")


def described_compositions(compositions: Mapping[str, int]) -> str:
    """Compositions with their numbers of frames: ``C2H6O (120 frames), CH4 (80 frames)``."""
    shown = [f"{formula} ({count} frames)" for formula, count in list(compositions.items())[:COMPOSITIONS_SHOWN]]
    return ", ".join([*shown, *(["…"] if len(compositions) > COMPOSITIONS_SHOWN else [])])


def _maker(root: Path, name: str, molecule: str, size: str) -> str:
    """The command that generates a data set."""
    if name in ("md17", "md22", "water"):
        which = "" if name == "water" else f" --molecule {molecule}"
        return f"`python data/{name}.py{which} --size {size} --contiguous --db_path {root}`"
    return (
        f"`python data/generate.py --molecule {molecule} --name {name} --db-path {root}`"
        f" (liquid water: `python data/generate_water.py --name {name} --db-path {root}`; your own frames:"
        f" `python data/convert.py FILE --name {name} --molecule {molecule} --size {size} --db_path {root}`)"
    )


def write_dataset(
    folder: Path,
    own: Mapping[str, Storable],
    shared: Mapping[str, Storable],
    metadata: Metadata,
    reference_run: ReferenceRun | None = None,
) -> None:
    """Write one size of a data set. The metadata are written last, so that an incomplete data set is recognized.

    Args:
        folder: ``<root>/<name>/<molecule>/<size>``.
        own: frames of this size by file name (``train``, ``val``).
        shared: frames (``test``, ``contiguous``) of all sizes, written one level up.
        metadata: description. This function sets `n_frames` and `sha256`.
        reference_run: observables of the whole run, shared by all sizes.
    """
    targets = {folder / f"{name}.npz": frames for name, frames in own.items()}
    targets |= {folder.parent / f"{name}.npz": frames for name, frames in shared.items()}
    for path, frames in targets.items():
        if not holds(path, frames):  # shared files keep their bytes, and so the sha256 in the metadata of other sizes
            write_frames(path, frames)
    tables = folder.parent / "reference.npz"
    if reference_run is not None:
        write_reference_run(tables, reference_run)
    complete = replace(
        metadata,
        n_frames={path.stem: len(frames) for path, frames in targets.items()},
        sha256={path.name: sha256_of(path) for path in (*targets, *([tables] if reference_run is not None else []))},
    )
    write_metadata(folder / "metadata.json", complete)


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Write ``metadata.json``."""
    text = json.dumps(metadata.stated(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_metadata(path: Path) -> Metadata:
    """Read and validate ``metadata.json``. Missing keys, unknown keys and other units are errors."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, numbers of 10,000 digits, deep nesting
        raise DatasetError(f"{path}: not valid JSON ({error})") from error
    known = [part.name for part in fields(Metadata)]
    needed = [part.name for part in fields(Metadata) if part.default_factory is MISSING]
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected a JSON object with the keys {', '.join(known)}")
    if missing := [key for key in needed if key not in content]:
        raise DatasetError(f"{path}: misses the keys {', '.join(missing)}")
    for key in content:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise DatasetError(f"{path}: unknown key {key[:80]!r}; the nearest known one is {nearest!r}")
    if content["units"] not in (UNITS, UNITS_WITH_STRESS):
        raise DatasetError(f"{path}: units are {str(content['units'])[:200]}, but the format has {UNITS}")
    for key, value in content.items():
        if (fault := _fault(key, value)) is not None:
            raise DatasetError(f"{path}: {key} must be {fault}, found {json.dumps(value)[:60]}")
    numbers = [key for key in known if key.endswith(("_K", "_fs"))]
    return Metadata(**content | {key: None if content[key] is None else float(content[key]) for key in numbers})


def _fault(key: str, value: Any) -> str | None:
    """Description of the required value of a metadata key. None if the value is valid."""
    if key.endswith(("_K", "_fs")):
        positive = not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < 1e15
        return None if value is None or positive else "a positive number or null"
    if key in ("source", "level_of_theory", "license", "command"):
        return None if isinstance(value, str) else "text"
    if key == "atomic_numbers":
        elements = isinstance(value, list) and bool(value) and all(_is_integer(one, 1, HEAVIEST) for one in value)
        return None if elements else f"a list of atomic numbers from 1 to {HEAVIEST}"
    if key == "atomic_energies_eV":
        return fault_of_table(value)
    if not isinstance(value, dict):
        return "an object"
    if key == "compositions":
        right = all(formula and _is_integer(one, 1, 2**53) for formula, one in value.items())
        return None if right else "numbers of frames by formula"
    if key == "n_frames":
        return None if all(_is_integer(one, 0, 2**53) for one in value.values()) else "numbers of frames by file"
    if key in ("units", "sha256", "program_versions"):
        return None if all(isinstance(one, str) for one in value.values()) else "an object of text"
    if key == "split":
        indices = value.get("indices", {})
        right = isinstance(indices, dict) and all(is_indices(one) for one in indices.values())
        return None if right else "an object whose indices are text such as 0-3,7"
    return None


def _is_integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def unwrapped(frames: Frames, bonds: Int[Tensor, "bond 2"], in_time_order: bool) -> Frames:
    """Frames of a periodic system with whole molecules and, if in time order, continuous paths.

    The format requires unwrapped positions, which are returned unchanged. Positions that were wrapped into the cell are
    unwrapped: bonds do not cross its faces, and paths are continuous, as displacements require.
    """
    positions = frames.positions
    if in_time_order:
        start = whole_molecules(positions[:1], bonds, frames.cell)
        return replace(frames, positions=unwrapped_in_time(torch.cat([start, positions[1:]]), frames.cell))
    return replace(frames, positions=whole_molecules(positions, bonds, frames.cell))


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _locate(folder: Path, name: str) -> Path | None:
    """Path of the file of a split, in the folder of its size or one level up."""
    candidates = (folder / f"{name}.npz", folder.parent / f"{name}.npz")
    return next((path for path in candidates if path.is_file()), None)
