"""Properties that frames of ASE share, and options for reading them: charge and spin, constraints, masses, cell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses

from mdsim.boundaries import why_unsupported
from mdsim.datasets.sources import labels
from mdsim.datasets.sources.cleaning import OR_MIXED
from mdsim.errors import DatasetError

SAME_CELL_A = 1e-4
SAME_MASS = 5e-3  # relative; larger than differences between tables, smaller than those between isotopes
#: Words in names of quantities that distinguish systems of one composition.
ELECTRONIC_STATE = ("charge", "total charge", "net charge", "spin", "total spin", "multiplicity", "spin multiplicity")
HARMLESS_CONSTRAINTS = ("FixCom", "FixSubsetCom")


@dataclass(frozen=True)
class Reading:
    """Options for reading files."""

    energy_key: str | None = None
    forces_key: str | None = None
    format: str | None = None  # name of the format in ASE
    formula: str | None = None  # composition of the frames to keep
    where: tuple[tuple[str, str], ...] = ()  # required values of the frames to keep, e.g. charge and 0
    open_boundaries: bool = False  # remove the cell
    cell: np.ndarray | None = None  # cell of frames without one, rows in Å
    type_map: tuple[str, ...] = ()  # elements of the types of DeePMD systems
    stress_key: str | None = None  # or virial; "none" leaves it aside


def info_of(image: Atoms, key: str) -> object:
    """A quantity of a frame, wherever it is stored; "nothing" without it."""
    return next((place[key] for place in labels.places(image) if key in place), "nothing")


def as_text(value: object) -> str:
    """Canonical text of a number, or the word itself."""
    try:
        return f"{float(value):g}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def check_same_state(path: Path, images: list[Atoms]) -> None:
    """Check that all frames have one charge and spin, and therefore one energy surface."""
    names = dict.fromkeys(name for image in images for place in labels.places(image)[:2] for name in place)
    for name in names:
        if " ".join(labels.words(name)) not in ELECTRONIC_STATE:
            continue
        found = Counter(as_text(info_of(image, name)) for image in images)
        if len(found) > 1:
            shown = ", ".join(f"{value} ({count} frames)" for value, count in found.most_common(5))
            raise DatasetError(
                f"{path}: frames differ in {name}: {shown}; a data set here has one, choose it with --where"
                f" {name}={found.most_common(1)[0][0]}"
            )


def check_all_move(path: Path, images: list[Atoms], places: list[int]) -> None:
    """Raise an error for constraints and force masks, with which forces are not the gradient of an energy."""
    for place, image in zip(places, images, strict=True):
        holding = [type(constraint).__name__ for constraint in image.constraints]
        holding = [name for name in holding if name not in HARMLESS_CONSTRAINTS]
        masks = [name for name, values in image.arrays.items() if "mask" in labels.words(name) and not np.all(values)]
        if holding or masks:
            what = f"constraints ({', '.join(holding)})" if holding else f"atoms left out by {', '.join(masks)}"
            raise DatasetError(
                f"{path}: frame {place} has {what}. All atoms move here, and all need forces: if those of the file are"
                " without constraints, remove the constraints or masks from the file"
            )


def masses_of(path: Path, images: list[Atoms]) -> np.ndarray | None:
    """Masses in amu if they differ from those of natural isotope mixtures, as for deuterium."""
    if not any(image.has("masses") for image in images):
        return None
    first = images[0].get_masses()
    if changed := [index for index, image in enumerate(images) if not np.allclose(image.get_masses(), first)]:
        raise DatasetError(f"{path}: frame {changed[0]} has other masses than frame 0; a data set here has one system")
    if not (np.isfinite(first).all() and (first > 0).all()):
        raise DatasetError(f"{path}: masses must be positive, found {first.min():g}")
    return None if np.allclose(first, atomic_masses[images[0].numbers], rtol=SAME_MASS) else first


def check_boundaries(path: Path, images: list[Atoms], reading: Reading) -> None:
    """Raise an error for mixed boundaries, unless the cells are to be removed."""
    if reading.open_boundaries:
        return
    for index, image in enumerate(images):
        lacks_its_cell = image.pbc.all() and not image.cell.any()  # `cell_of` takes another one, or refuses it
        if not lacks_its_cell and (fault := why_unsupported(image.pbc, image.cell.array)):
            raise DatasetError(f"{path}: frame {index}: {fault}")


def cell_of(path: Path, images: list[Atoms], reading: Reading) -> np.ndarray | None:
    """The one cell of all frames, or None with open boundaries."""
    check_boundaries(path, images, reading)
    periodic = {tuple(map(bool, image.pbc)) for image in images}
    if reading.open_boundaries or periodic == {(False, False, False)}:
        return None if reading.open_boundaries else reading.cell
    if periodic != {(True, True, True)}:
        raise DatasetError(
            f"{path}: is periodic in {sorted(periodic)}; all frames must be periodic in three directions, or none"
            " (--open removes the cells)"
        )
    if reading.cell is not None and not any(image.cell.any() for image in images):
        return reading.cell
    cells = np.stack([image.cell.array for image in images])
    if incomplete := [index for index, image in enumerate(images) if image.cell.rank < 3]:
        raise DatasetError(
            f"{path}: frame {incomplete[0]} is periodic, but its three lattice vectors are missing or incomplete: give"
            " the cell with --cell, or use --open"
        )
    change = float(np.ptp(cells, axis=0).max())
    if change > SAME_CELL_A:
        raise DatasetError(
            f"{path}: the cell changes between frames, by up to {change:.3g} Å (constant pressure?);"
            f" a data set here has one cell; {OR_MIXED}"
        )
    return cells[0]
