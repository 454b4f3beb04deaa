"""sGDML files (MD17, MD22, CCSD sets): npz with the arrays z, R, E and F."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from mdsim.datasets.npz import read_arrays
from mdsim.datasets.sources.raw import RawFrames, Units, check_atoms, check_finite
from mdsim.errors import DatasetError

UNIT_NAMES = {
    "kcal/mol": "kcal/mol",
    "kJ/mol": "kJ/mol",
    "eV": "eV",
    "Ha": "Hartree",
    "Hartree": "Hartree",
    "Ang": "angstrom",
    "Angstrom": "angstrom",
    "bohr": "bohr",
}


def read_sgdml(path: Path) -> RawFrames:
    """Frames of an npz file with the arrays z, R, E and F, in the units of the file if it names them.

    Revised MD17 with its other array names is also supported. Text in the archive may be pickled and is not read.

    Raises:
        DatasetError: the file is damaged, lacks an array, or its arrays have inconsistent shapes.
    """
    read_arrays(path, ())  # checks that it is an archive
    with zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
    names = _names(path, found)
    header = read_arrays(path, [*names.values(), *(name for name in ("r_unit", "e_unit") if name in found)])
    arrays = {ours: header[theirs] for ours, theirs in names.items()}
    units = Units(length=_unit(path, header, "r_unit"), energy=_unit(path, header, "e_unit"))
    if units.energy and units.length:
        units = Units(units.length, units.energy, f"{units.energy}/{units.length}")
    _check_shapes(path, arrays)
    raw = RawFrames(
        np.asarray(arrays["z"], dtype=np.int64),
        arrays["R"],
        arrays["E"].reshape(len(arrays["R"])),
        arrays["F"],
        cell=None,
        units=units,
    )
    check_finite(str(path), raw)
    check_atoms(str(path), raw)
    return raw


def _names(path: Path, found: list[str]) -> dict[str, str]:
    revised = {"z": "nuclear_charges", "R": "coords", "E": "energies", "F": "forces"}
    names = revised if "coords" in found else {key: key for key in revised}
    if missing := [name for name in names.values() if name not in found]:
        raise DatasetError(f"{path}: misses the arrays {', '.join(missing)}; it holds {', '.join(found) or 'nothing'}")
    return names


def _unit(path: Path, arrays: dict[str, np.ndarray], name: str) -> str | None:
    if name not in arrays:
        return None
    value = arrays[name]
    text = value.ravel()[0] if value.size == 1 else value.tolist()
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    if text not in UNIT_NAMES:
        raise DatasetError(f"{path}: {name} is {text[:40]!r}, which is none of {', '.join(UNIT_NAMES)}")
    return UNIT_NAMES[text]


def _check_shapes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    shape = arrays["R"].shape
    for name, array in arrays.items():
        if array.dtype.kind not in ("iu" if name == "z" else "f"):
            raise DatasetError(f"{path}: {name} is of the type {array.dtype}")
    if "F" in arrays and len(shape) == 3 and arrays["z"].ndim == 2 and len(arrays["z"]) == shape[0]:
        raise DatasetError(f"{path}: z has a row for each frame, so that compositions may differ; one list is needed")
    if len(shape) != 3 or 0 in shape or shape[1:] != (arrays["z"].size, 3) or arrays["z"].ndim != 1:
        raise DatasetError(f"{path}: R has shape {shape}, expected (frame, {arrays['z'].size} atoms of z, 3)")
    if arrays["F"].shape != shape:
        raise DatasetError(f"{path}: F has shape {arrays['F'].shape}, but R {shape}")
    if arrays["E"].size != shape[0]:
        raise DatasetError(f"{path}: E holds {arrays['E'].size} energies for {shape[0]} frames")
