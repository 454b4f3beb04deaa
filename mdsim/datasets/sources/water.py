"""Liquid water of "Forces are not Enough" (Fu et al., arXiv 2210.07237): 64 molecules of flexible SPC at 300 K."""

from __future__ import annotations

from pathlib import Path

import ase.data
import numpy as np

from mdsim.datasets.divide import Division, at_random
from mdsim.datasets.sources.convert import Description
from mdsim.datasets.sources.plain_pickle import read_pickled_arrays
from mdsim.datasets.sources.published import PublishedSet
from mdsim.datasets.sources.raw import VELOCITY_UNITS_A_PER_FS, RawFrames, Units, check_finite
from mdsim.datasets.sources.remote import RemoteFile
from mdsim.errors import DatasetError
from mdsim.units import FS, KB_EV_PER_K

TEST_FRAMES = 10_000
TEMPERATURE_K = 300.0
TEMPERATURE_TOLERANCE = 0.15  # relative; above the fluctuations of the mean, below the effect of a wrong unit
SAME_CELL_A = 1e-4
ARRAYS = ("unwrapped_coords", "velocities", "forces", "energy", "atom_types", "lengths", "angles")

DESCRIPTION = Description(
    source="water of Fu et al., arXiv 2210.07237, zenodo.org/record/7196767",
    level_of_theory="flexible SPC force field (classical; not density-functional theory)",
    license="that of the Zenodo record 7196767",
    temperature_K=TEMPERATURE_K,
    timestep_fs=1.0,
    frame_interval_fs=10.0,
)


def read_water(path: Path) -> RawFrames:
    """Frames of `water.npy`: unwrapped positions in Å, energies in kcal/mol, forces in kcal/mol/Å.

    The file does not give the unit of velocities. It is the unit in which they have the right temperature.

    Raises:
        DatasetError: the file is damaged, has other arrays, or is not water in one orthorhombic cell.
    """
    arrays = read_pickled_arrays(path)
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise DatasetError(f"{path}: misses {', '.join(missing)}; it holds {', '.join(arrays)}")
    numbers = _atomic_numbers(path, arrays["atom_types"])
    positions = arrays["unwrapped_coords"]
    frames, atoms = positions.shape[0], len(numbers)
    for name in ("unwrapped_coords", "velocities", "forces"):
        if arrays[name].shape != (frames, atoms, 3):
            raise DatasetError(f"{path}: {name} has shape {arrays[name].shape}, expected ({frames}, {atoms}, 3)")
    if arrays["energy"].size != frames:
        raise DatasetError(f"{path}: holds {arrays['energy'].size} energies for {frames} frames")
    raw = RawFrames(
        numbers,
        positions,
        arrays["energy"].reshape(frames),
        arrays["forces"],
        arrays["velocities"],
        _cell(path, arrays["lengths"], arrays["angles"]),
        Units("angstrom", "kcal/mol", "kcal/mol/angstrom", _velocity_unit(path, arrays["velocities"], numbers)),
    )
    check_finite(str(path), raw)
    return raw


def divide(n_frames: int, size: str, seed: int, n_test: int | None) -> Division:
    """Division into 95 % training and 5 % validation frames of the size, and 10,000 other test frames."""
    return at_random(n_frames, size, n_test or TEST_FRAMES, seed)


def _atomic_numbers(path: Path, types: np.ndarray) -> np.ndarray:
    """Elements from two labels of atoms. The label that is twice as frequent is hydrogen."""
    kinds, counts = np.unique(types.reshape(-1) if types.ndim == 1 else types[0], return_counts=True)
    if len(kinds) != 2 or sorted(counts) != [counts.sum() // 3, 2 * counts.sum() // 3] or counts.sum() % 3:
        raise DatasetError(f"{path}: atom_types {kinds.tolist()} occur {counts.tolist()} times, which is not water")
    hydrogen = kinds[counts.argmax()]
    return np.where((types if types.ndim == 1 else types[0]) == hydrogen, 1, 8).astype(np.int64)


def _cell(path: Path, lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    lengths, angles = lengths.reshape(-1, 3), angles.reshape(-1, 3)
    if not np.allclose(angles, 90.0):
        raise DatasetError(f"{path}: the cell is not orthorhombic, its angles are {angles[0]}")
    if np.ptp(lengths, axis=0).max() > SAME_CELL_A:
        raise DatasetError(f"{path}: the cell changes between frames")
    return np.diag(lengths[0].astype(np.float64))


def _velocity_unit(path: Path, velocities: np.ndarray, numbers: np.ndarray) -> str:
    """The unit of velocities in which the mean kinetic energy matches the temperature (equipartition)."""
    some = velocities[:: max(1, len(velocities) // 200)].astype(np.float64)
    twice_kinetic = (ase.data.atomic_masses[numbers][:, None] * some**2).sum((1, 2)).mean()
    momenta = 3 * len(numbers) - 3
    for unit, size in VELOCITY_UNITS_A_PER_FS.items():
        temperature = twice_kinetic * (size / FS) ** 2 / (momenta * KB_EV_PER_K)
        if abs(temperature / TEMPERATURE_K - 1) < TEMPERATURE_TOLERANCE:
            return unit
    raise DatasetError(
        f"{path}: in none of {', '.join(VELOCITY_UNITS_A_PER_FS)} do velocities have {TEMPERATURE_K:g} K"
    )


ADDRESS = "https://zenodo.org/records/7196767/files/water.npy?download=1"
MOLECULES = (
    PublishedSet(
        "water",
        "water",
        RemoteFile("water.npy", (ADDRESS,), b"\x93NUMPY"),
        "H128O64",
        100_001,
        read_water,
        divide,
        DESCRIPTION,
    ),
)
