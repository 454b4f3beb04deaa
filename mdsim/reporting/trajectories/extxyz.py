"""Extended XYZ, by ASE: text with eight decimals, unwrapped positions, the cell in its own axes, momenta, energies.

Momenta are in ASE units. Masses are columns only where they differ from the natural averages. The comment line has
``time_ps``; that of the first frame also has the bonds, ``frame_interval_fs`` and the comment.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses
from ase.io.extxyz import read_extxyz, write_extxyz

from mdsim.reporting.trajectories.frames import Header, ReplicaFrames, Stored, as_array, frames_of, stored
from mdsim.state import System, Trajectory

SAME_MASS = 1e-6  # relative: rounding of single precision


class ExtxyzWriter:
    """Writes one replica."""

    def __init__(self, path: Path, header: Header) -> None:
        self.header = header
        self.is_first = True
        self.file = path.open("w", encoding="utf-8")

    def append(self, frames: ReplicaFrames) -> None:
        """Append frames."""
        for atoms in _atoms(self.header.system, frames):
            if self.is_first:
                atoms.info["frame_interval_fs"] = self.header.frame_interval_fs
                if len(self.header.system.bonds):
                    atoms.info["bonds"] = " ".join(f"{i}-{j}" for i, j in self.header.system.bonds.tolist())
                if self.header.comment:
                    atoms.info["comment"] = self.header.comment
                self.is_first = False
            write_extxyz(self.file, [atoms])

    def close(self) -> None:
        """Complete the file."""
        self.file.close()


def read(path: Path) -> Stored:
    """Read a file of `ExtxyzWriter`.

    Raises:
        ValueError: the file was written by another program.
    """
    with path.open(encoding="utf-8") as file:
        images = list(read_extxyz(file, index=slice(None)))
    if not images or any("time_ps" not in image.info for image in images):
        raise ValueError(f"{path} has frames without time_ps: it is not a file of mdsim")
    first = images[0]
    bonds = [tuple(map(int, bond.split("-"))) for bond in str(first.info.get("bonds", "")).split()]
    cell = np.stack([image.cell.array for image in images]) if first.pbc.all() else None
    system = System.from_bonds(
        first.numbers,
        torch.tensor(bonds, dtype=torch.int64).reshape(-1, 2),
        None if cell is None else cell[0],
        first.get_masses(),
        torch.float64,
    )
    frames = ReplicaFrames(
        np.array([float(image.info["time_ps"]) for image in images]),
        np.stack([image.positions for image in images]),
        np.stack([image.get_velocities() for image in images]) if first.has("momenta") else None,
        _energies(images),
        cell,
    )
    return stored(system, frames, float(first.info["frame_interval_fs"]))


def to_ase(system: System, trajectory: Trajectory, replica: int) -> list[Atoms]:
    """The frames of one replica for `ase.io.write`: unwrapped positions, cell, momenta, and energies as results."""
    return list(_atoms(system, frames_of(system, trajectory, replica)))


def _atoms(system: System, frames: ReplicaFrames) -> Iterator[Atoms]:
    numbers, masses = system.atomic_numbers.cpu().numpy(), as_array(system.masses)
    are_natural = np.allclose(masses, atomic_masses[numbers], rtol=SAME_MASS, atol=0)
    for index, positions in enumerate(frames.positions):
        cell = None if frames.cell is None else frames.cell[index]
        atoms = Atoms(numbers, positions, masses=None if are_natural else masses, cell=cell, pbc=cell is not None)
        atoms.info["time_ps"] = float(frames.times_ps[index])
        if frames.velocities is not None:
            atoms.set_velocities(frames.velocities[index])
        if frames.energy is not None:
            atoms.calc = SinglePointCalculator(atoms, energy=float(frames.energy[index]))
        yield atoms


def _energies(images: list[Atoms]) -> np.ndarray | None:
    try:
        return np.array([image.get_potential_energy() for image in images])
    except (RuntimeError, PropertyNotImplementedError):
        return None
