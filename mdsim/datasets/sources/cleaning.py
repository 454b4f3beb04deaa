"""Cleaning of source frames: removal of repeated frames, and detection of changed bonds and atom orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mdsim.datasets.bonds import bond_matrix
from mdsim.datasets.repeats import repeated_frames
from mdsim.datasets.sources.raw import RawFrames
from mdsim.errors import DatasetError
from mdsim.typing import Bool, Float, Int, Tensor

#: Metals and noble gases, whose close contacts are not bonds of a molecule.
_METALS = [3, 4, *range(11, 14), *range(19, 32), *range(37, 51), *range(55, 84), *range(87, 117)]
NO_MOLECULES = [2, 10, 18, 36, 54, 86, 118, *_METALS]
OR_MIXED = "--mixed makes a data set of several compositions and cells"
SAME_CELL = 1e-4  # in the unit of the file
SAME_POSITION = 2e-5  # in the unit of the file: text files round; in 0.1 fs atoms move by 5e-4 Å
SAME_ENERGY = 1e-3  # in the unit of the file


def join(names: Sequence[str], pieces: Sequence[RawFrames]) -> tuple[RawFrames, Int[np.ndarray, "frame"]]:
    """Several files as one, with consecutive frame numbers, and the file of each frame.

    Raises:
        DatasetError: the files differ in their system, order of atoms, or labels.
    """
    first = pieces[0]
    for name, piece in zip(names[1:], pieces[1:], strict=True):
        against = f"{name}: differs from {names[0]} in"
        if not np.array_equal(piece.atomic_numbers, first.atomic_numbers):
            same = sorted(piece.atomic_numbers) == sorted(first.atomic_numbers)
            raise DatasetError(f"{against} {'the order of its atoms' if same else 'composition'} ({OR_MIXED})")
        if (piece.cell is None) != (first.cell is None) or (
            piece.cell is not None and first.cell is not None and np.abs(piece.cell - first.cell).max() > SAME_CELL
        ):
            raise DatasetError(f"{against} its cell; a data set here has one cell ({OR_MIXED})")
        if (piece.masses is None) != (first.masses is None) or (
            piece.masses is not None and first.masses is not None and not np.allclose(piece.masses, first.masses)
        ):
            raise DatasetError(f"{against} the masses of its atoms")
        if piece.units != first.units:
            raise DatasetError(f"{against} its units: {piece.units} and {first.units}")
    atoms = joined_atomic_energies(names, pieces)
    counts = [piece.n_in_file or len(piece) for piece in pieces]
    starts = np.cumsum([0, *counts[:-1]])
    have_velocities = all(piece.velocities is not None for piece in pieces)
    joined = replace(
        first,
        positions=np.concatenate([piece.positions for piece in pieces]),
        energy=np.concatenate([piece.energy for piece in pieces]),
        forces=np.concatenate([piece.forces for piece in pieces]),  # type: ignore[misc]
        velocities=np.concatenate([piece.velocities for piece in pieces]) if have_velocities else None,  # type: ignore[misc]
        index=np.concatenate([start + piece.place for start, piece in zip(starts, pieces, strict=True)]),
        n_in_file=sum(counts),
        found=tuple(dict.fromkeys(line for piece in pieces for line in piece.found)),
        atomic_energies=atoms,
        stress=_joined_stress(pieces),
    )
    return joined, np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])


def joined_atomic_energies(names: Sequence[str], pieces: Sequence[RawFrames]) -> dict[int, float]:
    """Energies of the isolated atoms of all files.

    Raises:
        DatasetError: two files have different ones.
    """
    atoms: dict[int, float] = {}
    for name, piece in zip(names, pieces, strict=True):
        for number, energy in piece.atomic_energies.items():
            if abs(atoms.setdefault(number, energy) - energy) > SAME_ENERGY:
                raise DatasetError(f"{name}: differs from the files before in the energies of isolated atoms")
    return atoms


def _joined_stress(pieces: Sequence[RawFrames]) -> Float[np.ndarray, "frame 3 3"] | None:
    if all(piece.stress is None for piece in pieces):
        return None
    blank = (np.full((len(piece), 3, 3), np.nan) for piece in pieces)
    return np.concatenate(
        [none if piece.stress is None else piece.stress for piece, none in zip(pieces, blank, strict=True)]
    )


def first_of_each(name: str, raw: RawFrames) -> Int[np.ndarray, "kept"]:
    """Indices of the frames that do not repeat an earlier one, ascending. Translated or rotated copies are repeats.

    Raises:
        DatasetError: the same positions have different energies.
    """
    original = repeated_frames(raw.positions, raw.cell, SAME_POSITION)
    allowed = np.full(len(raw), SAME_ENERGY)
    if raw.forces is not None:  # effect of rounded positions on energies
        allowed += SAME_POSITION * np.abs(np.asarray(raw.forces, dtype=np.float64)).reshape(len(raw), -1).sum(1)
    differing = np.flatnonzero(np.abs(raw.energy - raw.energy[original]) > allowed)
    if len(differing):
        frame = int(differing[0])
        raise DatasetError(
            f"{name}: frames {raw.place[original[frame]]} and {raw.place[frame]} have the same positions but energies"
            f" of {raw.energy[original[frame]]:.6f} and {raw.energy[frame]:.6f}: were two methods mixed?"
        )
    return np.flatnonzero(original == np.arange(len(raw)))


def check_bonds(name: str, raw: RawFrames, relabeled_allowed: bool = False) -> Bool[np.ndarray, "frame"]:
    """Mask of the frames whose bonds differ from those of most frames. Renumbered atoms are an error.

    Args:
        name: name of the file, for error messages.
        raw: frames in known units.
        relabeled_allowed: allow them, because reactions such as proton transfer in water may look like a renumbering.

    Raises:
        DatasetError: atoms of one element are exchanged between frames.
    """
    frames = raw.frames()
    bonded, pairs = bond_matrix(frames.atomic_numbers, frames.positions, frames.cell)
    molecular = ~torch.isin(frames.atomic_numbers[pairs], torch.tensor(NO_MOLECULES)).any(1)
    bonded, pairs = bonded[:, molecular], pairs[molecular]
    usual = bonded.double().mean(0) >= 0.5
    other = (bonded != usual).any(1)
    if bool(other.all()) and len(other):  # a bond shared equally by two positions: no frame agrees with every majority
        kinds, counts = bonded.unique(dim=0, return_counts=True)
        usual = kinds[counts.argmax()]
        other = (bonded != usual).any(1)
    expected = _environments(usual[None], pairs, frames.atomic_numbers)[0]
    suspects = torch.nonzero(other).ravel()
    if not relabeled_allowed and len(suspects):
        same = (_environments(bonded[suspects], pairs, frames.atomic_numbers) == expected).all(1)
        if same.any():
            frame = int(suspects[same][0])
            moved = ", ".join(map(str, pairs[bonded[frame] != usual].unique().tolist()[:8]))
            raise DatasetError(
                f"{name}: in {int(same.sum())} frames, the first of them {raw.place[frame]}, the same molecule has its"
                f" atoms in another order (atoms {moved} have other neighbors): write all frames in one order, or use"
                " --allow-reactions if these are reactions"
            )
    return other.numpy()


def _environments(
    bonded: Bool[Tensor, "frame pair"], pairs: Int[Tensor, "pair 2"], numbers: Int[Tensor, "atom"]
) -> Int[Tensor, "frame atom"]:
    """A number per atom that encodes its element and its environment up to three bonds, sorted within each frame.

    Two frames with equal numbers contain the same molecule up to the order of atoms. The numbers are refined by those
    of the neighbors (Weisfeiler and Leman), which distinguishes almost all molecules.
    """
    labels = numbers[None].repeat(len(bonded), 1)
    for _ in range(3):
        mixed = (labels * 2654435761 + 40503) % 2147483647  # so that sums of labels rarely agree by chance
        sums = torch.zeros_like(labels)
        sums.index_add_(1, pairs[:, 0], mixed[:, pairs[:, 1]] * bonded)
        sums.index_add_(1, pairs[:, 1], mixed[:, pairs[:, 0]] * bonded)
        labels = (labels * 31 + sums * 17) % 2147483647
    return labels.sort(1).values
