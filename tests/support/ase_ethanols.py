"""Thermally disordered ethanol molecules of ASE, held by springs, and readers of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from mdsim.datasets.sources.ase_files import Reading
from mdsim.datasets.sources.convert import Description
from mdsim.datasets.sources.own import Conversion, prepare
from mdsim.datasets.sources.raw import RawFrames, Units

N_FRAMES = 12
DESCRIPTION = Description("test", "none", "MIT")


def images(n_frames: int = N_FRAMES, seed: int = 0) -> list[Atoms]:
    """Ethanols in thermal disorder, in springs of 30 eV/Å² between bonded atoms."""
    rng = np.random.default_rng(seed)
    start = molecule("CH3CH2OH")
    distances = start.get_all_distances()
    bonded = np.argwhere(np.triu(distances < 1.7) & np.triu(distances > 0.1))
    frames = []
    for _ in range(n_frames):
        atoms = start.copy()
        atoms.positions += 0.03 * rng.standard_normal((len(atoms), 3))
        energy, forces = -100.0, np.zeros((len(atoms), 3))
        for i, j in bonded:
            arm = atoms.positions[j] - atoms.positions[i]
            stretched = np.linalg.norm(arm) - distances[i, j]
            pull = -30.0 * stretched * arm / np.linalg.norm(arm)
            energy += 15.0 * stretched**2
            forces[j] += pull
            forces[i] -= pull
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def labels(frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.stack([atoms.positions for atoms in frames]),
        np.array([atoms.get_potential_energy() for atoms in frames]),
        np.stack([atoms.get_forces() for atoms in frames]),
    )


def prepared(*paths: Path, units: Units | None = None, reading: Reading | None = None, **options):
    return prepare(Conversion(tuple(paths), DESCRIPTION, reading or Reading(), units or Units(), **options))


def assert_same(raw: RawFrames, frames: list[Atoms], atol: float = 1e-7) -> None:
    converted = raw.frames()
    for found, expected in zip((converted.positions, converted.energy, converted.labels), labels(frames), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


def periodic(change: float = 0.0) -> list[Atoms]:
    frames = images()
    for index, atoms in enumerate(frames):
        atoms.cell, atoms.pbc = np.eye(3) * (8.0 + change * index), True
    return frames
