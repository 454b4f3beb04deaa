"""Preparation of custom frames of several compositions and cells, for conversion to a mixed data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

from mdsim.datasets.divide import Division
from mdsim.datasets.folder import write_dataset
from mdsim.datasets.label_checks import mismatch
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.mixed_folder import MixedDataset, opened
from mdsim.datasets.sources import convert
from mdsim.datasets.sources.cleaning import first_of_each, joined_atomic_energies
from mdsim.datasets.sources.isolated_atoms import binding_energy_eV, described, doubt
from mdsim.datasets.sources.mixed_files import read_pieces
from mdsim.datasets.sources.own import Conversion, divided
from mdsim.datasets.sources.raw import RawFrames, Units
from mdsim.datasets.sources.unit_detection import stretch_constant, with_units
from mdsim.errors import DatasetError
from mdsim.typing import Int
from mdsim.units import GPA

EXAMINED = 20  # kinds of frames, the most frequent ones, whose units and labels are checked
FEWEST_TO_CHECK = 6  # frames of one kind
COMPOSITIONS_SHOWN = 10
PLAUSIBLE_FORCES = (0.01, 5.0)  # root mean square in eV/Å, of sets without bonds to hydrogen that move


@dataclass(frozen=True)
class PreparedMixed:
    """All frames of all files in the order of the files, cleaned, in eV and Å."""

    frames: MixedFrames
    place: Int[np.ndarray, "frame"]  # position of each frame in the files
    lengths: list[int]  # frames of each file or system
    atoms_eV: Mapping[str, float]  # energies of isolated atoms by chemical symbol
    found: tuple[tuple[str, str], ...]  # findings to print

    def divide(self, conversion: Conversion, size: str) -> Division:
        """The frames of one size."""
        return divided(self.lengths, conversion, size)

    def table(self) -> list[list[str]]:
        """The findings as lines of a table."""
        frames = self.frames
        per_atom = (frames.energy / frames.n_atoms).double()
        sizes = f"{int(frames.n_atoms.min())} to {int(frames.n_atoms.max())}"
        rms, largest = float(frames.labels.square().mean().sqrt()), float(frames.labels.abs().max())
        lengths = "" if len(self.lengths) == 1 else f" in {len(self.lengths)} files or systems"
        rows = [
            ["frames", f"{len(frames):,}{lengths}; {int(frames.is_periodic.sum()):,} periodic"],
            ["atoms", f"{sizes} per frame, {len(frames.atomic_numbers):,} in all"],
            ["compositions", _counted(frames)],
            ["energy", f"{float(per_atom.min()):.3f} to {float(per_atom.max()):.3f} eV per atom"],
            ["forces", f"root mean square {rms:.3f} eV/Å, largest component {largest:.1f}"],
            ["stress", _stress_text(frames)],
        ]
        return [*rows, *(list(line) for line in self.found)]


def prepare(conversion: Conversion) -> PreparedMixed:
    """Read all files, detect units, remove repeated frames, and check labels where there are enough frames of a kind.

    Raises:
        DatasetError: the files cannot form one data set.
    """
    if conversion.contiguous is not None:
        raise DatasetError("--contiguous: a data set of several compositions has no frames in time order")
    of_files = [read_pieces(path, conversion.reading) for path in conversion.paths]
    pieces = [piece for of_file in of_files for piece in of_file]
    names = [str(path) for path, of_file in zip(conversion.paths, of_files, strict=True) for _ in of_file]
    owners = _systems_of(conversion.paths, of_files)
    if conversion.negate_forces:
        pieces = [replace(piece, forces=None if piece.forces is None else -piece.forces) for piece in pieces]
    pieces, units_note = _with_one_unit(names[0], pieces, conversion.units)
    pieces, repeated = _without_repeats(names, pieces)
    notes = [units_note, *([("repeated frames", f"{repeated} left out")] if repeated else [])]
    notes += _label_notes(names, pieces, conversion)
    atoms = _atomic_energies_eV(names, pieces, conversion)
    frames, place, lengths = _in_order(pieces, owners)
    notes += _atomic_notes(frames, atoms)
    found = tuple(dict.fromkeys((*(line for piece in pieces for line in piece.found), *notes)))
    return PreparedMixed(frames, place, lengths, atoms, found)


def make(
    prepared: PreparedMixed, conversion: Conversion, folder: Path, settings: Mapping[str, Any], command: str
) -> MixedDataset:
    """Write one size and read it back: ``folder`` is ``<root>/<name>/<molecule>/<size>``.

    Raises:
        DatasetError: there are too few frames, or the written files are not a valid data set.
    """
    division = prepared.divide(conversion, folder.name)
    parts = {name: prepared.frames[torch.from_numpy(getattr(division, name))] for name in ("train", "val", "test")}
    written = MixedFrames.cat(list(parts.values()))
    metadata = convert.metadata_of(
        conversion.description,
        dict(settings) | {"found": [list(line) for line in prepared.found]},
        convert.split_of(division, conversion.seed, prepared.place),
        command,
        sorted(set(written.atomic_numbers.tolist())),
        prepared.atoms_eV,
        bool(written.has_stress.any()),
    )
    own = {name: parts[name] for name in ("train", "val")}
    write_dataset(folder, own, {"test": parts["test"]}, replace(metadata, compositions=written.compositions))
    dataset = opened(folder)
    assert isinstance(dataset, MixedDataset)
    _ = dataset.train, dataset.val, dataset.test  # read, and checked
    return dataset


def _systems_of(paths: Sequence[Path], of_files: list[list[RawFrames]]) -> list[int]:
    """The file of each piece, or its system in a folder: what `--split blocks` divides."""
    owners: list[int] = []
    for path, of_file in zip(paths, of_files, strict=True):
        first = max(owners, default=-1) + 1
        owners += [first + number if path.is_dir() else first for number in range(len(of_file))]
    return owners


def _with_one_unit(name: str, pieces: list[RawFrames], asked: Units) -> tuple[list[RawFrames], tuple[str, str]]:
    """The pieces in the units of the most frequent kind in which bonds to hydrogen move.

    Without such a kind, forces are in eV/Å if their size is plausible.

    Raises:
        DatasetError: units cannot be determined, or kinds differ in them.
    """
    by_size = sorted(pieces, key=len, reverse=True)
    in_A = (
        replace(piece, units=replace(piece.units, length=asked.length or piece.units.length or "angstrom"))
        for piece in by_size[:EXAMINED]
    )
    telling = [piece for piece in in_A if stretch_constant(piece) is not None]
    if telling:
        found = _agreed(name, telling, asked)
    else:
        by_force = _by_size(name, pieces, asked)
        found = with_units(name, by_size[0], replace(asked, forces=asked.forces or by_force))
    note = next(line for line in reversed(found.found) if line[0] == "units")
    if not telling and by_force is not None and asked.forces is None:
        note = (
            "units",
            f"{found.units.energy}, {by_force}, {found.units.length}: assumed, from the size of the forces",
        )
    known_units = found.units
    return [
        replace(
            piece,
            units=replace(piece.units, length=known_units.length, energy=known_units.energy, forces=known_units.forces),
        )
        for piece in pieces
    ], note


def _agreed(name: str, telling: list[RawFrames], asked: Units) -> RawFrames:
    """The most frequent of the kinds whose units can be told.

    Total energies of a single composition can resemble those of another unit by chance, so that one kind is enough.
    The labels of all kinds are compared with each other later.
    """
    known, problems = [], []
    for piece in telling:
        try:
            known.append(with_units(name, piece, asked))
        except DatasetError as problem:
            problems.append(problem)
    if not known:
        raise problems[0]
    if len({(raw.units.length, raw.units.energy, raw.units.forces) for raw in known}) > 1:
        raise DatasetError(
            f"{name}: bonds to hydrogen of {_formula(known[0])} and of other compositions speak for different units"
            " of forces; give the units with --energy-unit and --force-unit"
        )
    return known[0]


def _by_size(name: str, pieces: list[RawFrames], asked: Units) -> str | None:
    """The unit of forces of frames without bonds to hydrogen that move."""
    if asked.energy is not None or pieces[0].units.forces is not None:
        return None  # stated
    squares = np.concatenate(
        [np.square(piece.forces, dtype=np.float64).ravel() for piece in pieces if piece.forces is not None]
    )
    rms, (low, high) = float(np.sqrt(squares.mean())), PLAUSIBLE_FORCES
    if low < rms < high:
        return "eV/angstrom"
    raise DatasetError(
        f"{name}: forces have a root mean square of {rms:.3g}, too {'large' if rms > 1 else 'small'} for eV/Å; give the"
        " units with --energy-unit and --force-unit"
    )


def _without_repeats(names: Sequence[str], pieces: list[RawFrames]) -> tuple[list[RawFrames], int]:
    """The frames that do not repeat an earlier one of the same kind, and the number of the others."""
    kept = [piece[first_of_each(name, piece)] for name, piece in zip(names, pieces, strict=True)]
    return kept, sum(map(len, pieces)) - sum(map(len, kept))


def _label_notes(names: Sequence[str], pieces: list[RawFrames], conversion: Conversion) -> list[tuple[str, str]]:
    """Check energies against forces for the most frequent kinds; warnings where inconsistency is allowed."""
    notes = []
    ordered = sorted(zip(names, pieces, strict=True), key=lambda pair: len(pair[1]), reverse=True)
    for name, piece in ordered[:EXAMINED]:
        if len(piece) < FEWEST_TO_CHECK:
            continue
        forces_unit = str(piece.units.forces) if stretch_constant(piece) is None else None
        found = mismatch(piece.frames(), str(piece.units.energy), forces_unit)
        if found is None:
            continue
        if not conversion.allow_inconsistent:
            raise DatasetError(
                f"{name}: {_formula(piece)}: {found}. Name other labels or units (--energy-key, --forces-key,"
                " --energy-unit, --force-unit), or use --allow-inconsistent if they are right"
            )
        notes.append(("warning", f"{_formula(piece)}: {found}"))
    return notes


def _atomic_energies_eV(names: Sequence[str], pieces: list[RawFrames], conversion: Conversion) -> dict[str, float]:
    """Energies of isolated atoms by chemical symbol: those given, otherwise those in the files."""
    given = conversion.description.atomic_energies_eV
    if given is not None:
        return dict(given)
    known = replace(pieces[0], atomic_energies=joined_atomic_energies(names, pieces)).atomic_energies_eV
    present = {chemical_symbols[number] for piece in pieces for number in piece.atomic_numbers}
    return {symbol: energy for symbol, energy in known.items() if symbol in present}


def _in_order(pieces: list[RawFrames], owners: list[int]) -> tuple[MixedFrames, Int[np.ndarray, "frame"], list[int]]:
    """All frames in the order of the files, their positions in these, and the number of frames of each."""
    counts: dict[int, int] = {}
    for owner, piece in zip(owners, pieces, strict=True):
        counts[owner] = piece.n_in_file or len(piece)
    starts = dict(zip(counts, np.cumsum([0, *list(counts.values())[:-1]]).tolist(), strict=True))
    place = np.concatenate([starts[owner] + piece.place for owner, piece in zip(owners, pieces, strict=True)])
    order = np.argsort(place, kind="stable")
    frames = MixedFrames.cat([MixedFrames.of(piece.frames()) for piece in pieces])[torch.from_numpy(order)]
    owner_of = np.repeat(owners, [len(piece) for piece in pieces])
    return frames, place[order], np.bincount(owner_of)[np.unique(owner_of)].tolist()


def _atomic_notes(frames: MixedFrames, atoms: Mapping[str, float]) -> list[tuple[str, str]]:
    """Notes on the energies of isolated atoms, and whether they fit those of the frames."""
    if not atoms:
        return []
    notes = [("atomic energies", described(atoms))]
    bindings = {}
    for formula, some in frames.members().items():
        energies = frames.energy[some].numpy()
        bindings[formula] = binding_energy_eV(frames.numbers_of_frames[some[0]].numpy(), energies, atoms)
    if known := {formula: value for formula, value in bindings.items() if value is not None}:
        notes.append(("binding energy", f"{min(known.values()):.4g} to {max(known.values()):.4g} eV per atom"))
    doubts = {formula: text for formula, value in known.items() if (text := doubt(value)) is not None}
    return notes + [("warning", f"{formula}: {text}") for formula, text in list(doubts.items())[:1]]


def _counted(frames: MixedFrames) -> str:
    counts = frames.compositions
    shown = ", ".join(f"{formula} {count:,}" for formula, count in list(counts.items())[:COMPOSITIONS_SHOWN])
    return f"{len(counts)}: {shown}{', …' if len(counts) > COMPOSITIONS_SHOWN else ''}"


def _stress_text(frames: MixedFrames) -> str:
    if frames.stress is None or not frames.has_stress.any():
        return "none"
    known = frames.stress[frames.has_stress].double()
    rms = float(known.square().mean().sqrt())
    return f"{len(known):,} frames, root mean square {rms:.2g} eV/Å³ ({rms / GPA:.2g} GPa)"


def _formula(piece: RawFrames) -> str:
    return MixedFrames.of(piece[:1].frames()).formulas[0]
