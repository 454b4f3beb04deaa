"""Frames of one replica, as trajectory files get them and give them back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

LARGEST_COORDINATE_A = 1e6  # at this coordinate, single precision resolves only 0.06 Å
FS_PER_PS = 1000.0


@dataclass(frozen=True)
class FileSettings:
    """The format of the trajectory files of a run.

    Attributes:
        format: one of `FORMATS`, which is also the suffix.
        xtc_precision_per_nm: steps of a coordinate per nm in XTC files.
    """

    format: str = "gsd"
    xtc_precision_per_nm: float = 1000.0


GSD = FileSettings()


@dataclass(frozen=True)
class Header:
    """What is constant in a file.

    Attributes:
        system: the simulated system, on the CPU.
        frame_interval_fs: between frames.
        xtc_precision_per_nm: steps of a coordinate per nm in XTC files.
        comment: origin of the file.
    """

    system: System
    frame_interval_fs: float
    xtc_precision_per_nm: float = 1000.0
    comment: str = ""


@dataclass(frozen=True)
class ReplicaFrames:
    """Frames of one replica on the host, in Å, eV and ASE velocity units. Positions are unwrapped.

    Attributes:
        times_ps: time of each frame.
        cell: lattice vectors of each frame as rows; None with open boundaries.
    """

    times_ps: Float[np.ndarray, "frame"]
    positions: Float[np.ndarray, "frame atom 3"]
    velocities: Float[np.ndarray, "frame atom 3"] | None
    energy: Float[np.ndarray, "frame"] | None
    cell: Float[np.ndarray, "frame 3 3"] | None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def moving_cell(self) -> Float[np.ndarray, "frame 3 3"] | None:
        """The lattice vectors of each frame, if they differ."""
        return None if self.cell is None or bool((self.cell == self.cell[:1]).all()) else self.cell

    def __getitem__(self, frames: slice) -> ReplicaFrames:
        given = {name: value[frames] for name, value in vars(self).items() if value is not None}
        return replace(self, **given)


@dataclass(frozen=True)
class Stored:
    """The content of a trajectory file.

    Attributes:
        system: the system, with the cell of the first frame.
        trajectory: one replica, in double precision, with cells if they move.
        times_ps: time of each frame.
        cell: lattice vectors of each frame as rows; None with open boundaries.
    """

    system: System
    trajectory: Trajectory
    times_ps: Float[np.ndarray, "frame"]
    cell: Float[np.ndarray, "frame 3 3"] | None


def frames_of(system: System, trajectory: Trajectory, replica: int, start_time_ps: float = 0.0) -> ReplicaFrames:
    """The frames of one replica.

    Args:
        system: whose cell all frames have, unless the trajectory has cells of its own.
        trajectory: frames of all replicas.
        replica: index of the replica.
        start_time_ps: time of the first frame.
    """
    n_frames = trajectory.n_frames
    cell = None if trajectory.cell is None else as_array(trajectory.cell[:, replica])
    if cell is None and system.cell is not None:
        cell = np.broadcast_to(as_array(system.cell), (n_frames, 3, 3))
    return ReplicaFrames(
        start_time_ps + np.arange(n_frames) * (trajectory.frame_interval_fs / FS_PER_PS),
        as_array(trajectory.positions[:, replica]),
        None if trajectory.velocities is None else as_array(trajectory.velocities[:, replica]),
        None if trajectory.energy is None else as_array(trajectory.energy[:, replica]),
        cell,
    )


def stored(system: System, frames: ReplicaFrames, frame_interval_fs: float | None = None) -> Stored:
    """Frames that were read, with the interval between them unless the file states it."""
    if frame_interval_fs is None:
        n_intervals = len(frames) - 1
        span_fs = FS_PER_PS * float(frames.times_ps[-1] - frames.times_ps[0])
        frame_interval_fs = span_fs / n_intervals if n_intervals else float("nan")
    trajectory = Trajectory(
        as_tensor(frames.positions)[:, None],
        None if frames.velocities is None else as_tensor(frames.velocities)[:, None],
        None if frames.energy is None else as_tensor(frames.energy)[:, None],
        frame_interval_fs,
        None if frames.moving_cell is None else as_tensor(frames.moving_cell)[:, None],
    )
    return Stored(system, trajectory, frames.times_ps, frames.cell)


def n_writable(frames: ReplicaFrames) -> int:
    """Number of frames before the first one that no file can hold: non-finite, or with huge coordinates."""
    writable = (np.abs(frames.positions) <= LARGEST_COORDINATE_A).all(axis=(1, 2))  # false for NaN, too
    if frames.cell is not None:
        writable &= np.abs(np.linalg.det(frames.cell)) > 0
    return len(frames) if writable.all() else int(writable.argmin())


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


def as_array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


def as_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))
