"""Frames as read from source files, and their conversion to the units of the data set format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from ase.data import chemical_symbols

from mdsim.datasets.npz import Frames
from mdsim.errors import DatasetError
from mdsim.typing import Bool, Float, Int
from mdsim.units import BOHR, FS, HARTREE, KCAL_PER_MOL, KJ_PER_MOL, NM, RYDBERG

ENERGY_UNITS_EV = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
    "Hartree": HARTREE,
    "Ry": RYDBERG,
}
LENGTH_UNITS_A = {"angstrom": 1.0, "bohr": BOHR, "nm": NM}
FORCE_UNITS_EV_PER_A = {
    f"{energy}/{length}": value / size
    for energy, value in ENERGY_UNITS_EV.items()
    for length, size in LENGTH_UNITS_A.items()
}
#: Units of forces, each with the unit of energy that programs use together with it.
COMMON = {
    "eV/angstrom": "eV",
    "kcal/mol/angstrom": "kcal/mol",
    "kJ/mol/angstrom": "kJ/mol",
    "kJ/mol/nm": "kJ/mol",
    "Hartree/bohr": "Hartree",
    "Ry/bohr": "Ry",
}
VELOCITY_UNITS_A_PER_FS = {"angstrom/fs": 1.0, "angstrom/ps": 1e-3, "ase": FS}
HEAVIEST = 118  # atomic number
SMALLEST_VOLUME = 5e-4  # cell volume per atom, in any unit: hydrogen under pressure has 1 Å³, or 0.001 nm³
Index = slice | Int[np.ndarray, "chosen"] | Bool[np.ndarray, "frame"]


@dataclass(frozen=True)
class Units:
    """Names of the units of a file, as in the tables above. None if unknown."""

    length: str | None = None
    energy: str | None = None
    forces: str | None = None
    velocities: str = "angstrom/fs"


@dataclass(frozen=True)
class RawFrames:
    """Frames of one system in the units of their file."""

    atomic_numbers: Int[np.ndarray, "atom"]
    positions: Float[np.ndarray, "frame atom 3"]
    energy: Float[np.ndarray, "frame"]
    forces: Float[np.ndarray, "frame atom 3"] | None = None
    velocities: Float[np.ndarray, "frame atom 3"] | None = None
    cell: Float[np.ndarray, "3 3"] | None = None
    units: Units = field(default_factory=Units)
    found: tuple[tuple[str, str], ...] = ()  # findings to print: label and text
    index: Int[np.ndarray, "frame"] | None = None  # position of each frame in the file, if some were removed
    n_in_file: int | None = None  # frames in the file, if some were removed
    masses: Float[np.ndarray, "atom"] | None = None  # amu; None for natural isotope mixtures
    atomic_energies: dict[int, float] = field(default_factory=dict)  # of isolated atoms by atomic number
    stress: Float[np.ndarray, "frame 3 3"] | None = None  # energy per volume; NaN where a frame has none

    @property
    def place(self) -> Int[np.ndarray, "frame"]:
        """Position of each frame in the file, counted from zero."""
        return np.arange(len(self)) if self.index is None else self.index

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Index) -> RawFrames:
        """The chosen frames."""
        return replace(
            self,
            positions=self.positions[index],
            energy=self.energy[index],
            forces=None if self.forces is None else self.forces[index],
            velocities=None if self.velocities is None else self.velocities[index],
            stress=None if self.stress is None else self.stress[index],
            index=self.place[index],
            n_in_file=self.n_in_file or len(self),
        )

    @property
    def atomic_energies_eV(self) -> dict[str, float]:
        """Energies of isolated atoms by chemical symbol, once the units are known."""
        unit = ENERGY_UNITS_EV[str(self.units.energy)]
        return {chemical_symbols[number]: unit * energy for number, energy in sorted(self.atomic_energies.items())}

    @property
    def stress_unit_eV_per_A3(self) -> float:
        """The unit of energy per cubed unit of length."""
        return ENERGY_UNITS_EV[str(self.units.energy)] / LENGTH_UNITS_A[str(self.units.length)] ** 3

    def note(self, label: str, text: str) -> RawFrames:
        """The same frames with one more finding."""
        return replace(self, found=(*self.found, (label, text)))

    def frames(self, index: Index = slice(None)) -> Frames:
        """The chosen frames in eV, Å, eV/Å and ASE velocity units, in double precision.

        Raises:
            DatasetError: a unit is not known.
        """
        if None in (self.units.length, self.units.energy, self.units.forces):
            raise DatasetError(f"the units of these frames are not known: {self.units}")
        length = LENGTH_UNITS_A[str(self.units.length)]
        force = FORCE_UNITS_EV_PER_A[str(self.units.forces)]
        velocity = VELOCITY_UNITS_A_PER_FS[self.units.velocities] / FS
        chosen = self[index]
        return Frames(
            torch.from_numpy(self.atomic_numbers.astype(np.int64)),
            _scaled(chosen.positions, length),
            _scaled(chosen.energy, ENERGY_UNITS_EV[str(self.units.energy)]),
            None if chosen.forces is None else _scaled(chosen.forces, force),
            None if chosen.velocities is None else _scaled(chosen.velocities, velocity),
            None if self.cell is None else _scaled(self.cell, length),
            None if self.masses is None else _scaled(self.masses, 1.0),
            None if chosen.stress is None else _scaled(chosen.stress, self.stress_unit_eV_per_A3),
        )


def _scaled(values: np.ndarray, unit: float) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64) * unit)


def check_finite(name: str, raw: RawFrames) -> None:
    """Raise an error for values that are not finite.

    Args:
        name: name of the file, for error messages.
        raw: frames.

    Raises:
        DatasetError: there are some.
    """
    for label, values in {
        "positions": raw.positions,
        "energies": raw.energy,
        "forces": raw.forces,
        "velocities": raw.velocities,
    }.items():
        if values is None:
            continue
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
        if len(bad):
            shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
            raise DatasetError(
                f"{name}: {label} of {len(bad)} frames ({shown}) are not finite: those calculations failed;"
                " remove the frames"
            )


def check_atoms(name: str, raw: RawFrames) -> None:
    """Raise an error for unknown elements, and for cells that are too small for the atoms.

    Args:
        name: name of the file, for error messages.
        raw: frames.

    Raises:
        DatasetError: there are some.
    """
    bad = np.flatnonzero((raw.atomic_numbers < 1) | (raw.atomic_numbers > HEAVIEST))
    if len(bad):
        raise DatasetError(
            f"{name}: atom {bad[0]} has the atomic number {raw.atomic_numbers[bad[0]]}, which is not an element"
        )
    if raw.cell is None:
        return
    volume = abs(float(np.linalg.det(raw.cell))) if np.isfinite(raw.cell).all() else 0.0
    if not SMALLEST_VOLUME * len(raw.atomic_numbers) < volume:
        vectors = "; ".join(" ".join(f"{number:.4g}" for number in vector) for vector in raw.cell)
        raise DatasetError(
            f"{name}: a cell of volume {volume:.3g} cannot hold {len(raw.atomic_numbers)} atoms; its lattice vectors"
            f" are {vectors}: give the cell with --cell, or use --open"
        )
