"""Frames from all formats of ASE: extended xyz, .traj, ASE databases, outputs of VASP and Quantum ESPRESSO.

Energies and forces are results of ASE calculators, or have custom names (`REF_energy`, `REF_forces`, `Energy`, ...). A
unique candidate is the label. Several different candidates are an error that asks for a choice.

CP2K writes positions and forces to two xyz files: `NAME-frc-1.xyz` is read together with `NAME-pos-1.xyz`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.formula import Formula

from mdsim.datasets.sources import labels, stress_labels
from mdsim.datasets.sources.ase_databases import DATABASES, read_database
from mdsim.datasets.sources.ase_frames import (
    Reading,
    as_text,
    cell_of,
    check_all_move,
    check_same_state,
    info_of,
    masses_of,
)
from mdsim.datasets.sources.cleaning import OR_MIXED
from mdsim.datasets.sources.isolated_atoms import energies_of
from mdsim.datasets.sources.raw import RawFrames, Units, check_atoms, check_finite
from mdsim.datasets.sources.xyz_counts import check_counts
from mdsim.errors import DatasetError

#: Formats whose readers convert to eV and Å. The units of others are unknown.
CONVERTED = {"vasp-xml", "vasp-out", "espresso-out", "traj", "aims-output", "gpaw-out", "castep-castep"}
FREE_ENERGY_EV = 1e-3  # largest difference from the energy per frame without a message


CP2K_UNITS = Units("angstrom", "Hartree", "Hartree/bohr", "ase")
ASE_UNITS = Units("angstrom", "eV", "eV/angstrom", "ase")


def read_ase(path: Path, reading: Reading) -> RawFrames:
    """All frames of a file.

    Args:
        path: path of the file.
        reading: names of labels, format and filters.

    Raises:
        DatasetError: ASE cannot read the file, labels are missing or ambiguous, or frames are inconsistent.
    """
    everything, units = read_images(path, reading.format)
    images, total = everything, len(everything)
    kept, singles = _kept(path, images, reading)
    images = [images[index] for index in kept]
    _check_composition(path, images, kept)
    check_same_state(path, images)
    check_all_move(path, images, kept)
    cp2k_forces = path.with_name(path.name.replace("-pos-", "-frc-"))
    if cp2k_forces != path and cp2k_forces.is_file():
        images, units = _with_cp2k_forces(images, cp2k_forces), CP2K_UNITS
    energy_key = labels.choose(path, images, "energy", "--energy-key", reading.energy_key)
    forces_key = labels.choose(path, images, "forces", "--forces-key", reading.forces_key)
    atoms, remarks = energies_of(path, everything, energy_key) if len(images[0]) > 1 else ({}, [])
    raw = RawFrames(
        np.asarray(images[0].numbers, dtype=np.int64),
        np.stack([image.positions for image in images]),
        labels.collect(path, images, "energy", energy_key).reshape(len(images)),
        labels.collect(path, images, "forces", forces_key),
        velocities=_velocities(images),
        cell=cell_of(path, images, reading),
        units=units,
        index=np.array(kept),
        n_in_file=total,
        masses=masses_of(path, images),
        atomic_energies={number: atoms[number] for number in set(images[0].numbers.tolist()) & atoms.keys()},
    )
    raw, stress_key = _with_stress(path, images, reading, raw)
    check_finite(str(path), raw)
    check_atoms(str(path), raw)
    used = [energy_key, forces_key, *([] if stress_key is None else [stress_key])]
    raw = raw.note("labels", f"{', '.join(used[:-1])} and {used[-1]}")
    if aside := labels.names(images[0]) - {*used, "momenta"}:
        raw = raw.note("left aside", ", ".join(sorted(aside)))
    if singles:
        raw = raw.note("isolated atoms", f"{singles} frames of one atom left out")
    for remark in remarks:
        raw = raw.note("warning", remark)
    return _compare_free_energy(images, energy_key, raw)


def _with_stress(path: Path, images: list[Atoms], reading: Reading, raw: RawFrames) -> tuple[RawFrames, str | None]:
    """The frames with their stresses, and the name of the label. Without a cell there are none."""
    if raw.cell is None:
        return raw, None
    key, stresses, remarks = stress_labels.stresses_of(path, images, reading.stress_key)
    for remark in remarks:
        raw = raw.note("stress", remark)
    if key is None or all(stress is None for stress in stresses):
        return raw, None
    blank = np.full((3, 3), np.nan)
    return replace(raw, stress=np.stack([blank if stress is None else stress for stress in stresses])), key


def read_images(path: Path, format: str | None = None) -> tuple[list[Atoms], Units]:
    """All frames, and the units of their format.

    Args:
        path: path of the file.
        format: name of the format in ASE; None: recognized by name and content.

    Raises:
        DatasetError: there is no such file, or ASE cannot read it.
    """
    if not path.exists():
        raise DatasetError(f"{path}: no such file")
    try:
        chosen = format or ase.io.formats.filetype(str(path))
        if chosen in DATABASES:
            images, units = read_database(path)
        else:
            if chosen in ("xyz", "extxyz"):
                check_counts(path)
            images = list(ase.io.iread(str(path), index=":", format=chosen))
            units = ASE_UNITS if chosen in CONVERTED else Units(velocities="ase")
    except DatasetError:
        raise
    except Exception as error:  # readers raise many kinds of errors
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DatasetError(
            f"{path}: ASE cannot read it{f' as {format}' if format else ''} ({what}); name the"
            " format with --format (`ase info --formats` lists them)"
        ) from error
    if not images:
        raise DatasetError(f"{path}: has no frames")
    return images, units


def read_images_in_A(path: Path, format: str | None = None) -> tuple[list[Atoms], Units]:
    """All frames as in `read_images`, from a file whose positions are in Å.

    Raises:
        DatasetError: ASE cannot read the file, or its format has another unit of length.
    """
    images, units = read_images(path, format)
    if units.length not in (None, "angstrom"):
        raise DatasetError(f"{path}: its positions are in {units.length}; write them in angstrom")
    return images, units


def _with_cp2k_forces(images: list[Atoms], path: Path) -> list[Atoms]:
    """The frames with the forces of the other file, which stores them in place of positions."""
    others, _ = read_images(path, "extxyz")
    steps = [[image.info.get("i") for image in half] for half in (images, others)]
    if steps[0] != steps[1]:
        raise DatasetError(f"{path}: has other steps than the file of positions")
    for image, other in zip(images, others, strict=True):
        image.arrays["forces"] = other.positions
    return images


def _kept(path: Path, images: list[Atoms], reading: Reading) -> tuple[list[int], int]:
    """Indices of the frames of one composition, for any order of its formula, without isolated atoms.

    Some programs store isolated atoms with the frames. Their number is also returned.
    """
    chosen = chosen_frames(path, images, reading)
    several = [index for index in chosen if len(images[index]) > 1]
    return (several, len(chosen) - len(several)) if several else (chosen, 0)


def chosen_frames(path: Path, images: list[Atoms], reading: Reading) -> list[int]:
    """Indices of the frames that the filters keep."""
    chosen, formula = list(range(len(images))), reading.formula
    if formula is not None:
        try:
            wanted = Formula(formula).count()
        except ValueError as error:
            raise DatasetError(f"--formula {formula}: {error}") from error
        chosen = [index for index in chosen if images[index].symbols.formula.count() == wanted]
    if not chosen:
        raise DatasetError(f"{path}: has no frames of {formula}; {_compositions(images)}")
    for key, value in reading.where:
        there = [as_text(info_of(images[index], key)) for index in chosen]
        found = Counter(there)
        chosen = [index for index, text in zip(chosen, there, strict=True) if text == as_text(value)]
        if not chosen:
            shown = ", ".join(f"{text} ({count} frames)" for text, count in found.most_common(5))
            raise DatasetError(f"{path}: has no frames with {key} = {value}; found {shown}")
    return chosen


def _check_composition(path: Path, images: list[Atoms], places: list[int]) -> None:
    """The elements of all frames, which must have one order."""
    first = images[0].numbers
    if all(np.array_equal(image.numbers, first) for image in images):
        return
    if len({image.get_chemical_formula() for image in images}) > 1:
        raise DatasetError(
            f"{path}: {_compositions(images)}; a data set here has one, choose it with --formula; or {OR_MIXED}"
        )
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


def _velocities(images: list[Atoms]) -> np.ndarray | None:
    if not all("momenta" in image.arrays for image in images):
        return None
    return np.stack([image.get_velocities() for image in images])


def _compare_free_energy(images: list[Atoms], key: str, raw: RawFrames) -> RawFrames:
    """Message if the free energy differs from the energy: with smearing, forces are derivatives of the free energy."""
    results = [labels.places(image)[0] for image in images]
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
