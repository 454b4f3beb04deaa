"""Trajectory files in HOOMD's GSD format, which OVITO, VMD and MDAnalysis open. `to_ase` serves other formats.

Units in the files are those of the package: Å, amu, eV, and Å per ASE time unit for velocities, which HOOMD also
derives from the first three. The step of a frame is its time in whole femtoseconds. The exact time is logged.

GSD boxes are centered at the origin, with the first lattice vector along x and the second in the xy plane. Cells of
another orientation are rotated into this frame, together with positions and velocities. This preserves distances,
angles and chirality, but not the laboratory axes. Positions are wrapped and stored with their images. With open
boundaries, the box encloses all frames and nothing is wrapped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import ase.data
import gsd.hoomd
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor

OPEN_BOX_PADDING_A = 5.0
LARGEST_COORDINATE_A = 1e6  # at this coordinate, single precision resolves only 0.06 Å
FS_PER_PS = 1000.0


def frames_before_break(trajectory: Trajectory, first_unstable_frame: int, n_frames: int) -> Trajectory:
    """The last stable frames of a replica, just before it broke.

    Args:
        trajectory: all frames.
        first_unstable_frame: first unstable frame of the replica, or the number of frames if it never broke.
        n_frames: number of frames. Fewer are returned if the replica broke earlier.

    Raises:
        ValueError: ``first_unstable_frame`` is not a frame of the trajectory, or ``n_frames`` is not positive.
    """
    if not 0 <= first_unstable_frame <= trajectory.n_frames:
        raise ValueError(
            f"first_unstable_frame is {first_unstable_frame}, but the trajectory has {trajectory.n_frames} frames: "
            f"give 0 to {trajectory.n_frames}"
        )
    if n_frames < 1:
        raise ValueError(f"n_frames is {n_frames}: ask for at least one frame")
    return trajectory[max(0, first_unstable_frame - n_frames) : first_unstable_frame]


def write_gsd(
    path: Path,
    system: System,
    trajectory: Trajectory,
    replica: int,
    comment: str = "",
    start_time_ps: float = 0.0,
) -> None:
    """Write one replica as a GSD file, under a temporary name that is then renamed.

    Particle types are element symbols, and bond types are pairs of them ("C-H"). Each frame logs ``time_ps`` and, if
    available, ``energy_eV``. The first frame also logs ``frame_interval_fs``, ``periodic`` and the comment as UTF-8
    bytes.

    Args:
        path: path of the file.
        system: the simulated system.
        trajectory: frames of all replicas.
        replica: index of the replica to write.
        comment: origin of the file.
        start_time_ps: time of the first frame.

    Raises:
        ValueError: there are no frames, a frame is non-finite or has huge coordinates, or the cell is left-handed.
    """
    positions = _array(trajectory.positions[:, replica])
    _check_drawable(path, positions, replica)
    velocities = None if trajectory.velocities is None else _array(trajectory.velocities[:, replica])
    if system.cell is None:
        box, images = _open_box(positions), np.zeros(positions.shape, dtype=np.int32)
    else:
        rotation, box = _to_hoomd_axes(_array(system.cell))
        positions, images = _wrap(positions @ rotation, box)
        velocities = None if velocities is None else velocities @ rotation

    constant = _constant_part(system, box)
    logs = _logs(system, trajectory, replica, comment, start_time_ps)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with gsd.hoomd.open(str(temporary), "w") as file:
        for moving in zip(positions, images, repeat(None) if velocities is None else velocities, logs, strict=False):
            file.append(_frame(constant, *moving))
    temporary.replace(path)


def read_gsd(path: Path) -> tuple[System, Trajectory]:
    """Read a file of `write_gsd`.

    Returns:
        The system, and a trajectory of one replica with unwrapped positions, in the axes of the file (see the top of
        this module). Both are in double precision, so that unwrapping the single-precision file rounds nothing.

    Raises:
        ValueError: the file was written by another program, or its particle types are not element symbols.
    """
    with gsd.hoomd.open(str(path), "r") as file:
        frames = list(file)
        has_velocities = any(file.file.chunk_exists(frame, "particles/velocity") for frame in range(len(frames)))
    first = frames[0] if frames else gsd.hoomd.Frame()
    if "periodic" not in first.log or "frame_interval_fs" not in first.log:
        raise ValueError(f"{path} lacks the log entries periodic and frame_interval_fs: it is not a file of write_gsd")
    cell = _cell_of(first.configuration.box) if first.log["periodic"][0] else None
    positions = np.stack([frame.particles.position for frame in frames]).astype(np.float64)
    if cell is not None:
        positions += np.stack([frame.particles.image for frame in frames]) @ cell
    trajectory = Trajectory(
        positions=torch.from_numpy(positions)[:, None],
        velocities=_stacked([frame.particles.velocity for frame in frames]) if has_velocities else None,
        energy=_stacked([frame.log["energy_eV"][0] for frame in frames]) if "energy_eV" in first.log else None,
        frame_interval_fs=float(first.log["frame_interval_fs"][0]),
    )
    return _system_of(path, first, cell), trajectory


def start_time_ps(path: Path) -> float:
    """Time of the first frame in a file of `write_gsd`."""
    with gsd.hoomd.open(str(path), "r") as file:
        return float(file[0].log["time_ps"][0])


def to_ase(system: System, trajectory: Trajectory, replica: int) -> list[Atoms]:
    """The frames of one replica for `ase.io.write`: unwrapped positions, cell, momenta, and energies as results."""
    cell = None if system.cell is None else _array(system.cell)
    masses = _array(system.masses)
    frames = []
    for index, positions in enumerate(_array(trajectory.positions[:, replica])):
        atoms = Atoms(system.atomic_numbers.cpu().numpy(), positions, masses=masses, cell=cell, pbc=cell is not None)
        atoms.info["time_ps"] = index * trajectory.frame_interval_fs / FS_PER_PS
        if trajectory.velocities is not None:
            atoms.set_velocities(_array(trajectory.velocities[index, replica]))
        if trajectory.energy is not None:
            atoms.calc = SinglePointCalculator(atoms, energy=float(trajectory.energy[index, replica]))
        frames.append(atoms)
    return frames


def _check_drawable(path: Path, positions: np.ndarray, replica: int) -> None:
    if len(positions) == 0:
        raise ValueError(f"{path}: the trajectory of replica {replica} has no frames, so there is nothing to write")
    drawable = (np.abs(positions) <= LARGEST_COORDINATE_A).all(axis=(1, 2))  # false for NaN, too
    if not drawable.all():
        raise ValueError(
            f"{path}: frame {drawable.argmin()} of replica {replica} has non-finite coordinates or some beyond "
            f"{LARGEST_COORDINATE_A:g} Å: write only the frames before it (frames_before_break)"
        )


def _open_box(positions: Float[np.ndarray, "frame atom 3"]) -> Float[np.ndarray, "6"]:
    edges = 2 * (np.abs(positions).max(axis=(0, 1)) + OPEN_BOX_PADDING_A)
    return np.concatenate([edges, np.zeros(3)]).astype(np.float32)


def _to_hoomd_axes(cell: Float[np.ndarray, "3 3"]) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "6"]]:
    """The rotation (applied from the right) to a lower triangular cell, and its box (Lx, Ly, Lz, xy, xz, yz)."""
    if np.linalg.det(cell) <= 0:
        raise ValueError(
            f"the cell {cell.tolist()} is left-handed or flat, which GSD cannot express: swap two lattice vectors"
        )
    orthogonal, upper = np.linalg.qr(cell.T)
    signs = np.sign(np.diagonal(upper))
    a, b, c = (signs[:, None] * upper).T
    box = [a[0], b[1], c[2], b[0] / b[1], c[0] / c[2], c[1] / c[2]]
    return orthogonal * signs, np.array(box, dtype=np.float32)


def _cell_of(box: Float[np.ndarray, "6"]) -> Float[np.ndarray, "3 3"]:
    """Lattice vectors as rows."""
    lx, ly, lz, xy, xz, yz = np.asarray(box, dtype=np.float64)
    return np.array([[lx, 0, 0], [xy * ly, ly, 0], [xz * lz, yz * lz, lz]])


def _wrap(
    positions: Float[np.ndarray, "frame atom 3"], box: Float[np.ndarray, "6"]
) -> tuple[Float[np.ndarray, "frame atom 3"], Int[np.ndarray, "frame atom 3"]]:
    cell = _cell_of(box)  # of the rounded box, so that readers unwrap with the same vectors
    images = np.floor(positions @ np.linalg.inv(cell) + 0.5)
    return positions - images @ cell, images.astype(np.int32)


def _constant_part(system: System, box: Float[np.ndarray, "6"]) -> gsd.hoomd.Frame:
    """A frame with all constant data."""
    frame = gsd.hoomd.Frame()
    frame.configuration.box = box
    symbols = [ase.data.chemical_symbols[number] for number in system.atomic_numbers.tolist()]
    frame.particles.N = system.n_atoms
    frame.particles.types, frame.particles.typeid = _typed(symbols)
    frame.particles.mass = system.masses.cpu().numpy()
    if len(system.bonds):
        names = ["-".join(sorted((symbols[i], symbols[j]))) for i, j in system.bonds.tolist()]
        frame.bonds.N = len(names)
        frame.bonds.types, frame.bonds.typeid = _typed(names)
        frame.bonds.group = system.bonds.cpu().numpy()
    return frame


def _typed(names: list[str]) -> tuple[list[str], np.ndarray]:
    types, typeid = np.unique(names, return_inverse=True)
    return types.tolist(), typeid.astype(np.uint32)


def _logs(
    system: System, trajectory: Trajectory, replica: int, comment: str, start_time_ps: float
) -> Iterator[dict[str, np.ndarray]]:
    energy = None if trajectory.energy is None else _array(trajectory.energy[:, replica])
    for index in range(trajectory.n_frames):
        log = {"time_ps": np.array([start_time_ps + index * trajectory.frame_interval_fs / FS_PER_PS])}
        if energy is not None:
            log["energy_eV"] = energy[index : index + 1]
        if index == 0:
            log["frame_interval_fs"] = np.array([trajectory.frame_interval_fs], dtype=np.float64)
            log["periodic"] = np.array([system.cell is not None], dtype=np.uint8)
            if comment:
                log["comment"] = np.frombuffer(comment.encode(), dtype=np.uint8)
        yield log


def _frame(
    constant: gsd.hoomd.Frame,
    positions: Float[np.ndarray, "atom 3"],
    images: Int[np.ndarray, "atom 3"],
    velocities: Float[np.ndarray, "atom 3"] | None,
    log: dict[str, np.ndarray],
) -> gsd.hoomd.Frame:
    frame = copy.copy(constant)
    frame.configuration, frame.particles = copy.copy(constant.configuration), copy.copy(constant.particles)
    frame.configuration.step = round(FS_PER_PS * log["time_ps"][0])
    frame.particles.position, frame.particles.image = positions, images
    frame.particles.velocity = velocities
    frame.log = log
    return frame


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


def _stacked(values: list) -> Tensor:
    """Frames of one replica as a tensor (frame, replica, ...)."""
    return torch.from_numpy(np.stack(values).astype(np.float64))[:, None]


def _system_of(path: Path, frame: gsd.hoomd.Frame, cell: np.ndarray | None) -> System:
    particles = frame.particles
    unknown = [name for name in particles.types if name not in ase.data.atomic_numbers]
    if unknown:
        raise ValueError(f"{path} has particle types {unknown}, which are not element symbols")
    numbers = np.array([ase.data.atomic_numbers[name] for name in particles.types], dtype=np.int64)[particles.typeid]
    bonds = np.asarray(frame.bonds.group, dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(bonds)), bonds.T), shape=(particles.N, particles.N))
    return System(
        atomic_numbers=torch.from_numpy(numbers),
        masses=torch.from_numpy(particles.mass.astype(np.float64)),
        cell=None if cell is None else torch.from_numpy(cell),
        bonds=torch.from_numpy(bonds),
        molecules=torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64)),
    )
