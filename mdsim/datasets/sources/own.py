"""Preparation of custom frames, in any supported format, for conversion to a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.symbols import Symbols

from mdsim.datasets.divide import Division, at_random, in_blocks
from mdsim.datasets.folder import Dataset
from mdsim.datasets.label_checks import TEMPERATURE_FACTOR, mismatch, stiffness_temperature_K
from mdsim.datasets.sources import convert
from mdsim.datasets.sources.ase_files import Reading, read_ase
from mdsim.datasets.sources.cleaning import check_bonds, first_of_each, join
from mdsim.datasets.sources.convert import Description, Excerpt
from mdsim.datasets.sources.deepmd import is_deepmd, read_deepmd
from mdsim.datasets.sources.isolated_atoms import binding_energy_eV, described, doubt
from mdsim.datasets.sources.raw import COMMON, FORCE_UNITS_EV_PER_A, RawFrames, Units
from mdsim.datasets.sources.remote import sha256_of
from mdsim.datasets.sources.sgdml import read_sgdml
from mdsim.datasets.sources.unit_detection import stretch_constant, with_units
from mdsim.errors import DatasetError

CLOSE_K = 1.8  # factor within which a temperature fits, for hints
TEST_FRACTION, MOST_TEST_FRAMES = 0.1, 10_000


@dataclass(frozen=True)
class Conversion:
    """Settings for the conversion of files to a data set."""

    paths: tuple[Path, ...]
    description: Description
    reading: Reading = field(default_factory=Reading)
    units: Units = field(default_factory=Units)  # given by the user; None: detected
    negate_forces: bool = False
    allow_relabeled: bool = False
    allow_inconsistent: bool = False
    split: str = "random"  # or "blocks"
    test_frames: int | None = None
    gap_frames: int = 0
    validation_fraction: float = 0.05
    seed: int = 0
    contiguous: Excerpt | None = None
    mixed: bool = False  # several compositions or cells

    def settings(self) -> dict[str, Any]:
        """Settings that determine the content of all sizes, as JSON data."""
        return {
            "files": [path.name for path in self.paths],
            "source_sha256": fingerprint(self.paths),
            "labels": [self.reading.energy_key, self.reading.forces_key],
            "formula": self.reading.formula,
            "open_boundaries": self.reading.open_boundaries,
            "cell": None if self.reading.cell is None else self.reading.cell.tolist(),
            "units": [self.units.length, self.units.energy, self.units.forces],
            "negate_forces": self.negate_forces,
            "split": self.split,
            "test_frames": self.test_frames,
            "gap_frames": self.gap_frames,
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
        } | self._further_settings()

    def _further_settings(self) -> dict[str, Any]:
        """Settings that are stated only where they are used, as in data sets of earlier releases."""
        further = {
            "where": [list(pair) for pair in self.reading.where],
            "stress_key": self.reading.stress_key,
            "mixed": self.mixed,
        }
        return {key: value for key, value in further.items() if value}


@dataclass(frozen=True)
class Prepared:
    """All frames of all files, cleaned and in known units."""

    raw: RawFrames
    lengths: list[int]  # frames of each file

    def divide(self, conversion: Conversion, size: str) -> Division:
        """The frames of one size."""
        return divided(self.lengths, conversion, size)

    def table(self) -> list[list[str]]:
        """The findings as lines of a table."""
        return table(self)


def divided(lengths: list[int], conversion: Conversion, size: str) -> Division:
    """The frames of one size, given the number of frames of each file."""
    n_frames = sum(lengths)
    n_test = conversion.test_frames or max(1, min(MOST_TEST_FRAMES, round(TEST_FRACTION * n_frames)))
    if conversion.split == "random":
        return at_random(n_frames, size, n_test, conversion.seed, conversion.validation_fraction)
    return in_blocks(lengths, size, n_test, conversion.gap_frames, conversion.seed, conversion.validation_fraction)


def fingerprint(paths: Sequence[Path]) -> str:
    """One sha256 of the content of all files, including files in folders."""
    digest = hashlib.sha256()
    for path in paths:
        if not path.exists():
            raise DatasetError(f"{path}: no such file")
        files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
        for file in files:
            digest.update(sha256_of(file).encode())
    return digest.hexdigest()


def read(path: Path, reading: Reading) -> list[RawFrames]:
    """The frames of a file, or of each system in a DeePMD-kit folder.

    Raises:
        DatasetError: the file is missing, damaged or of an unknown format, or its frames are inconsistent.
    """
    if path.is_dir():
        if not is_deepmd(path):
            raise DatasetError(f"{path}: is a folder without type.raw, so it is not a DeePMD-kit system; name a file")
        return read_deepmd(path, reading.type_map)
    if path.suffix == ".npz":
        return [read_sgdml(path)]
    return [read_ase(path, reading)]


def prepare(conversion: Conversion) -> Prepared:
    """Read all files, detect units, remove repeated frames, and check that all frames are of one system.

    Raises:
        DatasetError: the files cannot form one data set.
    """
    read_files = [(path, piece) for path in conversion.paths for piece in read(path, conversion.reading)]
    raw, owner = join([str(path) for path, _ in read_files], [piece for _, piece in read_files])
    name = str(conversion.paths[0]) if len(conversion.paths) == 1 else f"{conversion.paths[0]} and others"
    if conversion.negate_forces and raw.forces is not None:
        raw = replace(raw, forces=-raw.forces)
    raw = with_units(name, raw, conversion.units)
    raw = _check_stiffness(name, raw, conversion)
    kept = first_of_each(name, raw)
    repeated = len(raw) - len(kept)
    if repeated and conversion.contiguous is not None:
        raise DatasetError(f"{name}: {repeated} frames repeat earlier ones, so that the file is not in time order")
    raw, owner = raw[kept], owner[kept]
    if repeated:
        raw = raw.note("repeated frames", f"{repeated} left out")
    raw = _check_labels(name, raw, conversion)
    other = check_bonds(name, raw, conversion.allow_relabeled)
    if other.any():
        shown = ", ".join(map(str, raw.place[other][:5]))
        raw = raw.note("warning", f"{int(other.sum())} frames have other bonds than most (frame {shown})")
    raw = _note_atomic_energies(raw, convert.atomic_energies_eV(raw, conversion.description))
    return Prepared(_note_precision(raw), np.bincount(owner).tolist())


def _check_labels(name: str, raw: RawFrames, conversion: Conversion) -> RawFrames:
    """Check that energies are consistent with forces, unless inconsistency is allowed."""
    forces_unit = str(raw.units.forces) if stretch_constant(raw) is None else None  # else from bonds to hydrogen
    found = mismatch(raw.frames(), str(raw.units.energy), forces_unit)
    if found is None:
        return raw
    if conversion.allow_inconsistent:
        return raw.note("warning", found)
    keys = dict(raw.found).get("labels", "the labels of the file")
    raise DatasetError(
        f"{name}: {found}. Labels: {keys}, taken to be in {raw.units.energy} and {raw.units.forces}. Name others with"
        " --energy-key, --forces-key or units, or use --allow-inconsistent if they are right"
    )


def _check_stiffness(name: str, raw: RawFrames, conversion: Conversion) -> RawFrames:
    """Check the unit of forces by the temperature, if given, for systems without bonds to hydrogen."""
    stated_K = conversion.description.temperature_K
    if stated_K is None or stretch_constant(raw) is not None:
        return raw
    found_K = stiffness_temperature_K(raw.frames())
    if found_K is None or stated_K / TEMPERATURE_FACTOR < found_K < stated_K * TEMPERATURE_FACTOR:
        return raw
    text = f"atoms that forces in {raw.units.forces} hold move as far as at {found_K:.3g} K, not {stated_K:g} K"
    if conversion.allow_inconsistent:
        return raw.note("warning", text)
    now = FORCE_UNITS_EV_PER_A[str(raw.units.forces)]
    ratio = {unit: stated_K / (found_K * FORCE_UNITS_EV_PER_A[unit] / now) for unit in COMMON} if found_K > 0 else {}
    likely = [unit for unit, value in ratio.items() if 1 / CLOSE_K < value < CLOSE_K]
    hint = f", as they would with {' or '.join(likely)}" if likely else ""
    raise DatasetError(
        f"{name}: {text}{hint}; give the units with --energy-unit and --force-unit, or use --allow-inconsistent if"
        " they are right"
    )


def make(
    prepared: Prepared, conversion: Conversion, folder: Path, settings: Mapping[str, Any], command: str
) -> Dataset:
    """Write one size: ``folder`` is ``<root>/<name>/<molecule>/<size>``.

    Raises:
        DatasetError: there are too few frames, or the contiguous frames are not in time order.
    """
    division = prepared.divide(conversion, folder.name)
    return convert.write(
        folder, prepared.raw, division, conversion.description, settings, conversion.contiguous, command
    )


def table(prepared: Prepared) -> list[list[str]]:
    """The findings as lines of a table."""
    raw = prepared.raw
    frames = raw.frames()
    energy, forces = frames.energy - frames.energy.mean(), frames.labels
    lengths = "" if len(prepared.lengths) == 1 else f" in {len(prepared.lengths)} files or systems"
    cell = "open boundaries"
    if frames.cell is not None:
        sides = " × ".join(f"{float(side):.4g}" for side in frames.cell.norm(dim=-1))
        cell = f"periodic, {sides} Å"
    rms, largest = float(forces.square().mean().sqrt()), float(forces.abs().max())
    rows = [
        ["frames", f"{len(raw):,}{lengths}"],
        ["atoms", f"{len(raw.atomic_numbers)}, {Symbols(raw.atomic_numbers).get_chemical_formula()}, {cell}"],
        ["energy", f"mean {float(frames.energy.mean()):.3f} eV, standard deviation {float(energy.std()):.3f} eV"],
        ["forces", f"root mean square {rms:.3f} eV/Å, largest component {largest:.1f}"],
        ["velocities", "none" if raw.velocities is None else "yes"],
    ]
    return [*rows, *(list(line) for line in raw.found)]


def _note_atomic_energies(raw: RawFrames, atoms: Mapping[str, float]) -> RawFrames:
    """Note the energies of isolated atoms, and whether they fit those of the frames."""
    if not atoms:
        return raw
    raw = raw.note("atomic energies", described(atoms))
    binding_eV = binding_energy_eV(raw.atomic_numbers, raw.frames().energy.numpy(), atoms)
    if binding_eV is not None:
        raw = raw.note("binding energy", f"{binding_eV:.4g} eV per atom")
    warning = doubt(binding_eV)
    return raw if warning is None else raw.note("warning", warning)


def _note_precision(raw: RawFrames) -> RawFrames:
    """Message if energies were rounded to single precision."""
    single = raw.energy.astype(np.float32)
    step = float(np.spacing(np.abs(single).max()))
    if not np.array_equal(single.astype(np.float64), raw.energy.astype(np.float64)) or step < 1e-4:
        return raw
    spread = float(raw.energy.std())
    return raw.note(
        "warning",
        f"energies have single precision: steps of {step:.2g} {raw.units.energy}, standard deviation {spread:.2g}",
    )
