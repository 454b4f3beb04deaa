"""Frames from anything that ASE reads: extended xyz, .traj, ASE databases, outputs of VASP and Quantum ESPRESSO.

Energies and forces are where ASE keeps results of calculators, or under names of their own (`REF_energy`, `REF_forces`,
`Energy`, ...). Which of them are the labels is found out where only one can be, and asked for where several differ.

CP2K writes positions and forces into two xyz files; `NAME-frc-1.xyz` beside `NAME-pos-1.xyz` is taken with it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.formula import Formula

from mdsim.datasets.sources.raw import RawFrames, Units, check_finite
from mdsim.errors import DatasetError

SAME_CELL_A = 1e-4
#: Formats whose readers convert to eV and Å; others hold numbers in whatever unit they were written in.
CONVERTED = {"vasp-xml", "vasp-out", "espresso-out", "traj", "db", "json", "aims-output", "gpaw-out", "castep-castep"}
FREE_ENERGY_EV = 1e-3  # per frame: how far it may be from the energy without a word


CP2K_UNITS = Units("angstrom", "Hartree", "Hartree/bohr", "ase")
ASE_UNITS = Units("angstrom", "eV", "eV/angstrom", "ase")


@dataclass(frozen=True)
class Reading:
    """How to read files: what they do not tell themselves."""

    energy_key: str | None = None
    forces_key: str | None = None
    format: str | None = None  # its name in ASE
    formula: str | None = None  # of the frames to keep
    open_boundaries: bool = False  # forget the cell of frames that have one
    cell: np.ndarray | None = None  # of frames that have none, rows in Å
    type_map: tuple[str, ...] = ()  # of DeePMD systems


def read_ase(path: Path, reading: Reading) -> RawFrames:
    """All frames of a file.

    Args:
        path: of the file.
        reading: names of labels and format, where they cannot be found.

    Raises:
        DatasetError: ASE cannot read the file, labels are missing or ambiguous, or frames do not fit together.
    """
    images, format = _read(path, reading.format)
    total = len(images)
    kept, singles = _kept(path, images, reading.formula)
    images = [images[index] for index in kept]
    _check_composition(path, images, kept)
    units = ASE_UNITS if format in CONVERTED else Units(velocities="ase")
    cp2k_forces = path.with_name(path.name.replace("-pos-", "-frc-"))
    if cp2k_forces != path and cp2k_forces.is_file():
        images, units = _with_cp2k_forces(images, cp2k_forces), CP2K_UNITS
    energy_key = _choose(path, images, "energy", "--energy-key", reading.energy_key)
    forces_key = _choose(path, images, "forces", "--forces-key", reading.forces_key)
    raw = RawFrames(
        np.asarray(images[0].numbers, dtype=np.int64),
        np.stack([image.positions for image in images]),
        _collect(path, images, "energy", energy_key).reshape(len(images)),
        _collect(path, images, "forces", forces_key),
        velocities=_velocities(images),
        cell=_cell(path, images, reading),
        units=units,
        index=np.array(kept),
        n_in_file=total,
    )
    check_finite(str(path), raw)
    raw = raw.note("labels", f"{energy_key} and {forces_key}")
    if aside := _names(images[0]) - {energy_key, forces_key, "momenta"}:
        raw = raw.note("left aside", ", ".join(sorted(aside)))
    if singles:
        raw = raw.note("isolated atoms", f"{singles} frames of one atom left out")
    return _compare_free_energy(images, energy_key, raw)


def _read(path: Path, format: str | None) -> tuple[list[Atoms], str]:
    if not path.exists():
        raise DatasetError(f"{path}: no such file")
    try:
        chosen = format or ase.io.formats.filetype(str(path))
        images = list(ase.io.iread(str(path), index=":", format=chosen))
    except Exception as error:  # readers raise whatever comes to them
        raise DatasetError(
            f"{path}: ASE cannot read it{f' as {format}' if format else ''} ({type(error).__name__}: {error}); name the"
            " format with --format (`ase info --formats` lists them)"
        ) from error
    if not images:
        raise DatasetError(f"{path}: holds no frames")
    return images, chosen


def _with_cp2k_forces(images: list[Atoms], path: Path) -> list[Atoms]:
    """The same frames with the forces of the other file, in which these stand where positions usually do."""
    others, _ = _read(path, "extxyz")
    steps = [[image.info.get("i") for image in half] for half in (images, others)]
    if steps[0] != steps[1]:
        raise DatasetError(f"{path}: holds other steps than the file of positions beside it")
    for image, other in zip(images, others, strict=True):
        image.arrays["forces"] = other.positions
    return images


def _kept(path: Path, images: list[Atoms], formula: str | None) -> tuple[list[int], int]:
    """Indices of the frames of one composition, in whatever order its formula is written, and without isolated atoms.

    Some programs keep these beside the frames, for their energies. Their number is returned too.
    """
    chosen = list(range(len(images)))
    if formula is not None:
        try:
            wanted = Formula(formula).count()
        except ValueError as error:
            raise DatasetError(f"--formula {formula}: {error}") from error
        chosen = [index for index in chosen if images[index].symbols.formula.count() == wanted]
    if not chosen:
        raise DatasetError(f"{path}: has no frames of {formula}; {_compositions(images)}")
    several = [index for index in chosen if len(images[index]) > 1]
    return (several, len(chosen) - len(several)) if several else (chosen, 0)


def _check_composition(path: Path, images: list[Atoms], places: list[int]) -> None:
    """One list of elements in one order for all frames."""
    first = images[0].numbers
    if all(np.array_equal(image.numbers, first) for image in images):
        return
    if len({image.get_chemical_formula() for image in images}) > 1:
        raise DatasetError(f"{path}: {_compositions(images)}; a data set here has one, choose it with --formula")
    frame = next(index for index, image in enumerate(images) if not np.array_equal(image.numbers, first))
    atom = int(np.flatnonzero(images[frame].numbers != first)[0])
    raise DatasetError(
        f"{path}: frame {places[frame]} lists its atoms in another order than frame {places[0]} (atom {atom} is"
        f" {images[frame].symbols[atom]} instead of {images[0].symbols[atom]}): write all frames in one order"
    )


def _compositions(images: list[Atoms]) -> str:
    formulas = Counter(image.get_chemical_formula() for image in images)
    found = ", ".join(f"{formula} ({count} frames)" for formula, count in formulas.most_common(5))
    return f"the compositions found are {found}{', …' if len(formulas) > 5 else ''}"


def _candidates(image: Atoms, what: str) -> list[str]:
    """Names under which a frame may have energies or forces."""
    shape, word = ((len(image), 3), "force") if what == "forces" else ((), "energy")
    found = []
    for content in _places(image):
        for name, value in content.items():
            fits = np.shape(value) in (shape, shape or (1,)) and np.asarray(value).dtype.kind in "fi"
            if fits and word in name.lower() and name != "free_energy" and name not in found:
                found.append(name)
    if not found and what == "energy" and "E" in image.info:
        found.append("E")
    return found


def _places(image: Atoms) -> tuple[dict, dict, dict]:
    return (image.calc.results if image.calc is not None else {}, image.info, image.arrays)


def _choose(path: Path, images: list[Atoms], what: str, flag: str, asked: str | None) -> str:
    """The name of a label: the one asked for, the only one there is, or the first of several with the same values."""
    if asked is not None:
        return asked
    candidates = _candidates(images[0], what)
    if not candidates:
        raise DatasetError(
            f"{path}: the frames have no {what}; they have {_there(images[0])}. If one of these is meant, give it with"
            f" {flag}"
        )
    values = [_collect(path, images, what, name) for name in candidates]
    if any(not np.array_equal(values[0], other) for other in values[1:]):
        raise DatasetError(f"{path}: {' and '.join(candidates)} may each be the {what}: choose with {flag}")
    return candidates[0]


def _names(image: Atoms) -> set[str]:
    return {name for place in _places(image) for name in place} - {"numbers", "positions"}


def _there(image: Atoms) -> str:
    return ", ".join(sorted(_names(image))) or "no labels"


def _collect(path: Path, images: list[Atoms], what: str, key: str) -> np.ndarray:
    """One label of all frames."""
    values = []
    for index, image in enumerate(images):
        value = next((place[key] for place in _places(image) if key in place), None)
        if value is None:
            raise DatasetError(f"{path}: frame {index} has no {what} named {key!r}; it has {_there(image)}")
        shape = (len(image), 3) if what == "forces" else (1,)
        array = np.asarray(value, dtype=np.float64)
        if array.size != int(np.prod(shape)):
            raise DatasetError(f"{path}: {key} of frame {index} has shape {array.shape}, expected {shape}")
        values.append(array.reshape(shape))
    return np.stack(values)


def _velocities(images: list[Atoms]) -> np.ndarray | None:
    if not all("momenta" in image.arrays for image in images):
        return None
    return np.stack([image.get_velocities() for image in images])


def _cell(path: Path, images: list[Atoms], reading: Reading) -> np.ndarray | None:
    """The one cell of all frames, or None with open boundaries."""
    periodic = {tuple(map(bool, image.pbc)) for image in images}
    if reading.open_boundaries or periodic == {(False, False, False)}:
        return None if reading.open_boundaries else reading.cell
    if periodic != {(True, True, True)}:
        raise DatasetError(
            f"{path}: is periodic in {sorted(periodic)}; all frames must be periodic in three directions, or none"
            " (--open forgets the cells)"
        )
    cells = np.stack([image.cell.array for image in images])
    change = float(np.ptp(cells, axis=0).max())
    if change > SAME_CELL_A:
        raise DatasetError(
            f"{path}: the cell changes between frames, by up to {change:.3g} Å (constant pressure?);"
            " a data set here has one cell"
        )
    return cells[0]


def _compare_free_energy(images: list[Atoms], key: str, raw: RawFrames) -> RawFrames:
    """With smeared occupations forces are derivatives of the free energy, not of the energy at zero smearing."""
    results = [_places(image)[0] for image in images]
    if key != "energy" or not all("free_energy" in result for result in results):
        return raw
    free = np.array([float(result["free_energy"]) for result in results])
    spread = float(np.std(free - raw.energy))
    if spread < FREE_ENERGY_EV:
        return raw
    return raw.note(
        "warning",
        f"energy and free_energy differ, by {spread:.2g} from frame to frame; forces belong to the latter"
        " (--energy-key free_energy)",
    )
