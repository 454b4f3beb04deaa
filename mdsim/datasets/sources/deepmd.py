"""DeePMD-kit systems: a folder with `type.raw`, `type_map.raw` and `set.*/{coord,box,energy,force}.npy`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mdsim.boundaries import why_unsupported
from mdsim.datasets.npz import DAMAGED
from mdsim.datasets.sources.raw import RawFrames, Units, check_atoms, check_finite
from mdsim.errors import DatasetError

SAME_CELL_A = 1e-5
UNITS = Units("angstrom", "eV", "eV/angstrom")  # by definition of the format


def is_deepmd(path: Path) -> bool:
    """Whether a folder is a DeePMD-kit system, or contains some."""
    return bool(_systems(path))


def read_deepmd(path: Path, type_map: Sequence[str] | None = None) -> list[RawFrames]:
    """The frames of each system in a folder, or of the folder itself.

    Args:
        path: folder of one system, or of several.
        type_map: chemical symbols of the types, if there is no `type_map.raw`.

    Raises:
        DatasetError: a file is missing, damaged or misshapen, or cells differ.
    """
    return [_read_system(folder, type_map) for folder in _systems(path)]


def _systems(path: Path) -> list[Path]:
    if (path / "type.raw").is_file():
        return [path]
    return sorted(folder.parent for folder in path.glob("*/type.raw"))


def _read_system(folder: Path, type_map: Sequence[str] | None) -> RawFrames:
    numbers = _atomic_numbers(folder, type_map)
    sets = sorted(folder.glob("set.*"))
    if not sets:
        raise DatasetError(f"{folder}: has no set.* folders of frames")
    if any((part / "real_atom_types.npy").is_file() for part in sets):
        raise DatasetError(f"{folder}: mixes compositions (real_atom_types.npy); a data set here has one")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([_load(part / f"{name}.npy") for part in sets])

    positions, energy, forces = joined("coord"), joined("energy"), joined("force")
    frame = (len(positions), len(numbers), 3)
    for name, array, size in (("coord", positions, frame), ("force", forces, frame), ("energy", energy, frame[:1])):
        if array.size != int(np.prod(size)) or len(array) != frame[0]:
            raise DatasetError(f"{folder}: {name}.npy has shape {array.shape}, expected {len(numbers)} atoms a frame")
    raw = RawFrames(
        numbers,
        positions.reshape(frame),
        energy.reshape(-1),
        forces.reshape(frame),
        cell=None if (folder / "nopbc").is_file() else _cell(folder, joined("box")),
        units=UNITS,
    )
    check_finite(str(folder), raw)
    check_atoms(str(folder), raw)
    return raw


def _atomic_numbers(folder: Path, type_map: Sequence[str] | None) -> np.ndarray:
    symbols = list(type_map or [])
    if (folder / "type_map.raw").is_file() and not symbols:
        symbols = (folder / "type_map.raw").read_text(encoding="utf-8").split()
    types = _numbers(folder / "type.raw")
    if not symbols:
        raise DatasetError(f"{folder}: has no type_map.raw; name the elements of its types with --type-map, as in O H")
    if unknown := [symbol for symbol in symbols if symbol not in chemical_symbols[1:]]:
        raise DatasetError(
            f"{folder}: {', '.join(unknown)} in the type map is not an element; name them with --type-map"
        )
    if types.min() < 0 or types.max() >= len(symbols):
        raise DatasetError(f"{folder}: type.raw has the types {types.min()} to {types.max()}, the map {symbols}")
    return np.array([atomic_numbers[symbols[kind]] for kind in types], dtype=np.int64)


def _numbers(path: Path) -> np.ndarray:
    try:
        values = [int(word) for word in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a list of types ({error})") from error
    if not values:
        raise DatasetError(f"{path}: is empty")
    return np.array(values, dtype=np.int64)


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except DAMAGED as error:
        what = " ".join(f"{error}".split())[:200]
        raise DatasetError(f"{path}: missing or damaged ({what})") from error
    if array.dtype.kind != "f":
        raise DatasetError(f"{path}: is of the type {array.dtype}")
    return array


def _cell(folder: Path, boxes: np.ndarray) -> np.ndarray:
    if boxes.size % 9:
        raise DatasetError(f"{folder}: box.npy has shape {boxes.shape}, expected nine numbers a frame")
    cells = boxes.reshape(-1, 3, 3).astype(np.float64)
    if np.ptp(cells, axis=0).max() > SAME_CELL_A:
        raise DatasetError(f"{folder}: the cell changes between frames; a data set here has one cell")
    if fault := why_unsupported([True] * 3, cells[0]):
        raise DatasetError(f"{folder}: box.npy: {fault}")
    return cells[0]
