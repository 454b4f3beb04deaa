"""Frames of several compositions and cells from files, as pieces of one kind each: the same atoms and the same cell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from mdsim.datasets.sources import labels
from mdsim.datasets.sources.ase_files import chosen_frames, read_images
from mdsim.datasets.sources.ase_frames import Reading, cell_of, check_all_move, check_same_state, masses_of
from mdsim.datasets.sources.deepmd import read_deepmd
from mdsim.datasets.sources.isolated_atoms import energies_of, is_isolated
from mdsim.datasets.sources.raw import RawFrames, check_atoms, check_finite
from mdsim.datasets.sources.sgdml import read_sgdml
from mdsim.datasets.sources.stress_labels import NONE, stresses_of
from mdsim.errors import DatasetError
from mdsim.typing import Float


def read_pieces(path: Path, reading: Reading) -> list[RawFrames]:
    """All frames of a file, or of the systems in a DeePMD-kit folder.

    Raises:
        DatasetError: the file cannot be read, labels are missing or ambiguous, or frames are inconsistent.
    """
    if path.is_dir():
        return read_deepmd(path, reading.type_map)
    if path.suffix == ".npz":
        return [read_sgdml(path)]
    return _read_ase(path, reading)


@dataclass(frozen=True)
class _Labels:
    """Labels of the frames of one file, in its units, and what to say about them."""

    energies: Float[np.ndarray, "frame"]
    forces: list[Float[np.ndarray, "_ 3"]]
    stresses: list[Float[np.ndarray, "3 3"] | None]
    atomic_energies: dict[int, float]
    notes: tuple[tuple[str, str], ...]


def _read_ase(path: Path, reading: Reading) -> list[RawFrames]:
    everything, units = read_images(path, reading.format)
    chosen = chosen_frames(path, everything, reading)
    kept = np.array([index for index in chosen if not is_isolated(everything[index])], dtype=np.int64)
    if not len(kept):
        raise DatasetError(f"{path}: has no frames besides isolated atoms")
    images = [everything[index] for index in kept]
    check_same_state(path, images)
    check_all_move(path, images, kept.tolist())
    found = _labels(path, everything, images, reading)
    if isolated := len(chosen) - len(kept):
        note = ("isolated atoms", f"{isolated} frames of one atom left out")
        found = replace(found, notes=(*found.notes, note))
    pieces = []
    for places in _kinds(images, reading.open_boundaries):
        raw = _piece(path, [images[place] for place in places], found, places, reading)
        raw = replace(raw, units=units, index=kept[places], n_in_file=len(everything))
        check_finite(str(path), raw)
        check_atoms(str(path), raw)
        pieces.append(raw)
    return pieces


def _labels(path: Path, everything: list[Atoms], images: list[Atoms], reading: Reading) -> _Labels:
    energy_key = labels.choose(path, images, "energy", "--energy-key", reading.energy_key)
    forces_key = labels.choose(path, images, "forces", "--forces-key", reading.forces_key)
    asked = NONE if reading.open_boundaries else reading.stress_key
    stress_key, stresses, remarks = stresses_of(path, images, asked)
    atoms, doubts = energies_of(path, everything, energy_key)
    keys = ", ".join(key for key in (energy_key, forces_key, stress_key) if key is not None)
    notes = [("labels", keys), *(("stress", text) for text in remarks), *(("warning", text) for text in doubts)]
    energies = np.concatenate(labels.each(path, images, "energy", energy_key))
    return _Labels(energies, labels.each(path, images, "forces", forces_key), stresses, atoms, tuple(notes))


def _kinds(images: list[Atoms], open_boundaries: bool) -> list[list[int]]:
    """Places of the frames with the same atoms in the same order and the same cell, for each such kind."""
    found: dict[tuple, list[int]] = {}
    for place, image in enumerate(images):
        cell = b"" if open_boundaries or not image.pbc.any() else image.pbc.tobytes() + image.cell.array.tobytes()
        found.setdefault((image.numbers.tobytes(), cell), []).append(place)
    return list(found.values())


def _piece(path: Path, images: list[Atoms], found: _Labels, places: list[int], reading: Reading) -> RawFrames:
    """Frames of one kind."""
    if masses_of(path, images) is not None:
        raise DatasetError(f"{path}: has special masses, which a data set of several compositions does not store")
    cell, blank = cell_of(path, images, reading), np.full((3, 3), np.nan)
    stresses = [found.stresses[place] for place in places]
    has_stress = cell is not None and any(stress is not None for stress in stresses)
    return RawFrames(
        np.asarray(images[0].numbers, dtype=np.int64),
        np.stack([image.positions for image in images]),
        found.energies[places],
        np.stack([found.forces[place] for place in places]),
        cell=cell,
        found=found.notes,
        atomic_energies=found.atomic_energies,
        stress=np.stack([blank if stress is None else stress for stress in stresses]) if has_stress else None,
    )
