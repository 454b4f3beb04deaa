"""H5MD 1.1 (de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546 (2014)), by h5py.

Positions are unwrapped (Å), velocities in Å/ps, both in single precision; times (ps), energies (eV), cells and masses
in double precision. ``species`` are atomic numbers. The step of a frame is its time in whole femtoseconds. MDAnalysis
wants elements and names in another file: the PDB file of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import mdsim
from mdsim.reporting.trajectories.axes import in_standard_axes
from mdsim.reporting.trajectories.frames import FS_PER_PS, Header, ReplicaFrames, Stored, stored
from mdsim.state import System
from mdsim.units import PS

CHUNK_BYTES = 2**15  # small, because many files have only the 50 frames before a break
ATOMS, BONDS = "particles/all", "connectivity/bonds"
ENERGY = "observables/potential_energy"


class H5mdWriter:
    """Writes one replica."""

    def __init__(self, path: Path, header: Header) -> None:
        self.header = header
        self.file = h5py.File(path, "w")
        self.is_empty = True

    def append(self, frames: ReplicaFrames) -> None:
        """Append frames."""
        frames = in_standard_axes(frames)
        if self.is_empty:
            _begin(self.file, self.header, frames)
            self.is_empty = False
        _extend(self.file[f"{ATOMS}/position/step"], np.rint(FS_PER_PS * frames.times_ps))
        _extend(self.file[f"{ATOMS}/position/time"], frames.times_ps)
        _extend(self.file[f"{ATOMS}/position/value"], frames.positions)
        if frames.velocities is not None:
            _extend(self.file[f"{ATOMS}/velocity/value"], frames.velocities * PS)
        if frames.energy is not None:
            _extend(self.file[f"{ENERGY}/value"], frames.energy)
        if frames.cell is not None:
            _extend(self.file[f"{ATOMS}/box/edges/value"], frames.cell)

    def close(self) -> None:
        """Complete the file."""
        self.file.close()


def read(path: Path) -> Stored:
    """Read a file of `H5mdWriter`."""
    with h5py.File(path, "r") as file:
        atoms = file[ATOMS]
        cell = atoms["box/edges/value"][:] if "edges" in atoms["box"] else None
        system = System.from_bonds(
            atoms["species"][:],
            torch.from_numpy(file[BONDS][:].astype(np.int64))
            if BONDS in file
            else torch.zeros(0, 2, dtype=torch.int64),
            None if cell is None else cell[0],
            atoms["mass"][:],
            torch.float64,
        )
        frames = ReplicaFrames(
            atoms["position/time"][:],
            atoms["position/value"][:].astype(np.float64),
            atoms["velocity/value"][:].astype(np.float64) / PS if "velocity" in atoms else None,
            file[f"{ENERGY}/value"][:] if ENERGY in file else None,
            cell,
        )
        return stored(system, frames, float(atoms.attrs["frame_interval_fs"]))


def _begin(file: h5py.File, header: Header, frames: ReplicaFrames) -> None:
    """The constant data, and all groups, still without frames."""
    system = header.system
    about = file.create_group("h5md")
    about.attrs["version"] = np.array([1, 1], dtype=np.int32)
    about.create_group("author").attrs["name"] = "unknown"
    creator = about.create_group("creator")
    creator.attrs["name"], creator.attrs["version"] = "mdsim", mdsim.__version__
    atoms = file.create_group(ATOMS)
    atoms.attrs["frame_interval_fs"] = header.frame_interval_fs
    if header.comment:
        atoms.attrs["comment"] = header.comment
    atoms["species"] = system.atomic_numbers.numpy().astype(np.int32)
    atoms["mass"] = system.masses.double().numpy()
    atoms["mass"].attrs["unit"] = "u"
    position = atoms.create_group("position")
    _growing(position, "step", (), np.int64)
    _growing(position, "time", (), np.float64, "ps")
    _growing(position, "value", (system.n_atoms, 3), np.float32, "Angstrom")
    if frames.velocities is not None:
        _growing(_timed(file, f"{ATOMS}/velocity"), "value", (system.n_atoms, 3), np.float32, "Angstrom ps-1")
    box = atoms.create_group("box")
    box.attrs["dimension"] = 3
    box.attrs["boundary"] = np.array(["none" if frames.cell is None else "periodic"] * 3, dtype="S8")
    if frames.cell is not None:
        _growing(_timed(file, f"{ATOMS}/box/edges"), "value", (3, 3), np.float64, "Angstrom")
    if frames.energy is not None:
        _growing(_timed(file, ENERGY), "value", (), np.float64, "eV")
    if len(system.bonds):
        file[BONDS] = system.bonds.numpy().astype(np.int32)
        file[BONDS].attrs["particles_group"] = file[ATOMS].ref


def _timed(file: h5py.File, name: str) -> h5py.Group:
    """A group with the steps and times of the positions, as links."""
    group = file.create_group(name)
    for axis in ("step", "time"):
        group[axis] = file[f"{ATOMS}/position/{axis}"]
    return group


def _growing(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, unit: str = "") -> None:
    bytes_each = np.dtype(dtype).itemsize * int(np.prod(shape))
    chunk = (max(1, CHUNK_BYTES // bytes_each // (1 if shape else 8)), *shape)
    made = group.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk)
    if unit:
        made.attrs["unit"] = unit


def _extend(dataset: h5py.Dataset, values: np.ndarray) -> None:
    n_before = len(dataset)
    dataset.resize(n_before + len(values), axis=0)
    dataset[n_before:] = values
