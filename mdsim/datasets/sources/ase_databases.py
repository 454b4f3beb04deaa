"""ASE databases, including SchNetPack's with labels among the key-value pairs or the data of a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase import Atoms

from mdsim.datasets.sources.raw import ENERGY_UNITS_EV, LENGTH_UNITS_A, Units

DATABASES = ("db", "json")
OTHER_NAMES = {"ang": "angstrom", "å": "angstrom", "a": "angstrom", "ha": "Hartree", "a0": "bohr", "rydberg": "Ry"}


def read_database(path: Path) -> tuple[list[Atoms], Units]:
    """All rows of a database as frames with their labels, and the units of the labels.

    Labels in ASE's columns are in eV and Å. The units of other labels are those in the metadata of the database
    (SchNetPack), or unknown.
    """
    images = []
    with ase.db.connect(str(path), serial=True, use_lock_file=False) as database:
        metadata = database.metadata
        for row in database.select():
            image = row.toatoms()
            _add(image, row.key_value_pairs)
            _add(image, row.get("data") or {})
            images.append(image)
    if images and images[0].calc is not None and "energy" in images[0].calc.results:
        return images, Units("angstrom", "eV", "eV/angstrom", "ase")
    return images, _stated_units(metadata)


def _add(image: Atoms, content: Mapping[str, Any]) -> None:
    """Add per-atom values to the arrays of a frame, and all others to its info. Existing names are kept."""
    for name, value in content.items():
        if isinstance(value, Mapping) or name in image.arrays or name in image.info:
            continue
        if np.ndim(value) == 2 and len(value) == len(image):
            image.arrays[name] = np.asarray(value)
        else:
            image.info[name] = value


def _stated_units(metadata: Mapping[str, Any]) -> Units:
    """The units in SchNetPack's metadata, if they are known."""
    properties = metadata.get("_property_unit_dict")
    length = _known(metadata.get("_distance_unit"), LENGTH_UNITS_A)
    energy = forces = None
    for name, unit in (properties if isinstance(properties, Mapping) else {}).items():
        if "force" in str(name).lower():
            above, _, below = str(unit).rpartition("/")
            parts = _known(above, ENERGY_UNITS_EV), _known(below, LENGTH_UNITS_A)
            forces = None if None in parts else f"{parts[0]}/{parts[1]}"
        elif "energy" in str(name).lower():
            energy = _known(unit, ENERGY_UNITS_EV)
    return Units(length, energy, forces, "ase")


def _known(name: object, table: Mapping[str, float]) -> str | None:
    known = {unit.lower(): unit for unit in table} | {
        other: unit for other, unit in OTHER_NAMES.items() if unit in table
    }
    return known.get(str(name).strip().lower())
