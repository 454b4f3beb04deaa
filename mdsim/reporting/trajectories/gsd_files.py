"""GSD, the format of HOOMD: single precision, wrapped positions with their images, velocities, energies, bonds, masses.

Units are those of the package: Å, amu, eV, and Å per ASE time unit for velocities, which HOOMD also derives from the
first three. The step of a frame is its time in whole femtoseconds. The exact time is logged as ``time_ps``. Boxes are
centered at the origin. With open boundaries, the box encloses all frames so far, and nothing is wrapped.
"""

from __future__ import annotations

import copy
from pathlib import Path

import ase.data
import gsd.hoomd
import numpy as np
import torch

from mdsim.reporting.trajectories.axes import in_standard_axes
from mdsim.reporting.trajectories.frames import FS_PER_PS, Header, ReplicaFrames, Stored, stored
from mdsim.state import System
from mdsim.typing import Float, Int

OPEN_BOX_PADDING_A = 5.0


class GsdWriter:
    """Writes one replica. Particle types are element symbols, and bond types are pairs of them ("C-H").

    Each frame logs ``time_ps`` and, if available, ``energy_eV``. The first frame also logs ``frame_interval_fs``,
    ``periodic`` and the comment as UTF-8 bytes.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.header = header
        self.constant = _constant_part(header.system)
        self.reach = np.zeros(3)  # largest coordinates so far, Å
        self.is_first = True
        self.file = gsd.hoomd.open(str(path), "w")

    def append(self, frames: ReplicaFrames) -> None:
        """Append frames."""
        frames = in_standard_axes(frames)
        positions, images = frames.positions, np.zeros(frames.positions.shape, dtype=np.int32)
        if frames.cell is None:
            self.reach = np.maximum(self.reach, np.abs(positions).max(axis=(0, 1)))
            boxes = np.tile(np.append(2 * (self.reach + OPEN_BOX_PADDING_A), np.zeros(3)), (len(frames), 1))
            boxes = boxes.astype(np.float32)
        else:
            boxes = _boxes(frames.cell)
            positions, images = _wrap(positions, boxes)
        for index in range(len(frames)):
            frame = _frame(self.constant, boxes[index], positions[index], images[index])
            frame.particles.velocity = None if frames.velocities is None else frames.velocities[index]
            frame.configuration.step = round(FS_PER_PS * frames.times_ps[index])
            frame.log = self._log(frames, index)
            self.file.append(frame)
            self.is_first = False

    def _log(self, frames: ReplicaFrames, index: int) -> dict[str, np.ndarray]:
        log = {"time_ps": frames.times_ps[index : index + 1]}
        if frames.energy is not None:
            log["energy_eV"] = frames.energy[index : index + 1]
        if self.is_first:
            log["frame_interval_fs"] = np.array([self.header.frame_interval_fs], dtype=np.float64)
            log["periodic"] = np.array([frames.cell is not None], dtype=np.uint8)
            if self.header.comment:
                log["comment"] = np.frombuffer(self.header.comment.encode(), dtype=np.uint8)
        return log

    def close(self) -> None:
        """Complete the file."""
        self.file.close()


def read(path: Path) -> Stored:
    """Read a file of `GsdWriter`. Positions are unwrapped in double precision, which rounds nothing.

    Raises:
        ValueError: the file was written by another program, or its particle types are not element symbols.
    """
    with gsd.hoomd.open(str(path), "r") as file:
        frames = list(file)
        has_velocities = any(file.file.chunk_exists(frame, "particles/velocity") for frame in range(len(frames)))
    first = frames[0] if frames else gsd.hoomd.Frame()
    if "periodic" not in first.log or "frame_interval_fs" not in first.log:
        raise ValueError(f"{path} lacks the log entries periodic and frame_interval_fs: it is not a file of mdsim")
    positions = np.stack([frame.particles.position for frame in frames]).astype(np.float64)
    cell = None
    if first.log["periodic"][0]:
        cell = _cells(np.stack([frame.configuration.box for frame in frames]))
        positions += np.stack([frame.particles.image for frame in frames]) @ cell
    found = ReplicaFrames(
        np.array([frame.log["time_ps"][0] for frame in frames]),
        positions,
        np.stack([frame.particles.velocity for frame in frames]) if has_velocities else None,
        np.array([frame.log["energy_eV"][0] for frame in frames]) if "energy_eV" in first.log else None,
        cell,
    )
    return stored(_system_of(path, first, cell), found, float(first.log["frame_interval_fs"][0]))


def _boxes(cell: Float[np.ndarray, "frame 3 3"]) -> Float[np.ndarray, "frame 6"]:
    """Boxes (Lx, Ly, Lz, xy, xz, yz) of lower triangular cells."""
    a, b, c = np.moveaxis(cell, 1, 0)
    box = [a[:, 0], b[:, 1], c[:, 2], b[:, 0] / b[:, 1], c[:, 0] / c[:, 2], c[:, 1] / c[:, 2]]
    return np.stack(box, axis=-1).astype(np.float32)


def _cells(boxes: Float[np.ndarray, "frame 6"]) -> Float[np.ndarray, "frame 3 3"]:
    """Lattice vectors as rows."""
    lx, ly, lz, xy, xz, yz = np.asarray(boxes, dtype=np.float64).T
    zero = np.zeros_like(lx)
    rows = [[lx, zero, zero], [xy * ly, ly, zero], [xz * lz, yz * lz, lz]]
    return np.moveaxis(np.array(rows), -1, 0)


def _wrap(
    positions: Float[np.ndarray, "frame atom 3"], boxes: Float[np.ndarray, "frame 6"]
) -> tuple[Float[np.ndarray, "frame atom 3"], Int[np.ndarray, "frame atom 3"]]:
    cell = _cells(boxes)  # of the rounded boxes, so that readers unwrap with the same vectors
    images = np.floor(positions @ np.linalg.inv(cell) + 0.5)
    return positions - images @ cell, images.astype(np.int32)


def _constant_part(system: System) -> gsd.hoomd.Frame:
    """A frame with all constant data."""
    frame = gsd.hoomd.Frame()
    symbols = [ase.data.chemical_symbols[number] for number in system.atomic_numbers.tolist()]
    frame.particles.N = system.n_atoms
    frame.particles.types, frame.particles.typeid = _typed(symbols)
    frame.particles.mass = system.masses.numpy()
    if len(system.bonds):
        names = ["-".join(sorted((symbols[i], symbols[j]))) for i, j in system.bonds.tolist()]
        frame.bonds.N = len(names)
        frame.bonds.types, frame.bonds.typeid = _typed(names)
        frame.bonds.group = system.bonds.numpy()
    return frame


def _typed(names: list[str]) -> tuple[list[str], np.ndarray]:
    types, typeid = np.unique(names, return_inverse=True)
    return types.tolist(), typeid.astype(np.uint32)


def _frame(
    constant: gsd.hoomd.Frame,
    box: Float[np.ndarray, "6"],
    positions: Float[np.ndarray, "atom 3"],
    images: Int[np.ndarray, "atom 3"],
) -> gsd.hoomd.Frame:
    frame = copy.copy(constant)
    frame.configuration, frame.particles = copy.copy(constant.configuration), copy.copy(constant.particles)
    frame.configuration.box = box
    frame.particles.position, frame.particles.image = positions, images
    return frame


def _system_of(path: Path, frame: gsd.hoomd.Frame, cell: Float[np.ndarray, "frame 3 3"] | None) -> System:
    particles = frame.particles
    unknown = [name for name in particles.types if name not in ase.data.atomic_numbers]
    if unknown:
        raise ValueError(f"{path} has particle types {unknown}, which are not element symbols")
    numbers = np.array([ase.data.atomic_numbers[name] for name in particles.types], dtype=np.int64)[particles.typeid]
    bonds = np.asarray(frame.bonds.group, dtype=np.int64).reshape(-1, 2)
    first_cell, masses = None if cell is None else cell[0], particles.mass.astype(np.float64)
    return System.from_bonds(numbers, torch.from_numpy(bonds), first_cell, masses, torch.float64)
