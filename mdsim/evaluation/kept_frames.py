"""Trajectory files of an evaluation: the frames before breaks, the last frames of a stable replica, whole replicas."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from mdsim.reporting.trajectories import LARGEST_COORDINATE_A, write_gsd
from mdsim.state import System, Trajectory

FOLDER = "trajectories"
BREAK, STABLE = "break_replica{:04d}.gsd", "stable_replica{:04d}.gsd"
REPLICA = re.compile(r"(break|stable)_replica(\d+)\.gsd")


def write_break(out_dir: Path, system: System, frames: Trajectory, replica: int, last_ps: float) -> None:
    """Write the frames before a break, the last of which is the first unstable one.

    Args:
        out_dir: folder of the evaluation.
        system: the simulated system.
        frames: of all replicas.
        replica: the one that broke.
        last_ps: time of the last frame.
    """
    _write(out_dir / FOLDER / BREAK.format(replica), system, frames, replica, last_ps)


def write_stable(out_dir: Path, system: System, frames: Trajectory, replica: int, last_ps: float) -> None:
    """Write the last frames of a replica that never broke. Arguments are those of `write_break`."""
    _write(out_dir / FOLDER / STABLE.format(replica), system, frames, replica, last_ps)


def write_whole(out_dir: Path, system: System, frames: Trajectory, column: int, replica: int) -> None:
    """Write the whole trajectory of a replica, which is a column of ``frames``."""
    write_gsd(out_dir / FOLDER / f"replica{replica:04d}.gsd", system, _drawable(frames, column), column)


def _write(path: Path, system: System, frames: Trajectory, replica: int, last_ps: float) -> None:
    start_ps = last_ps - (frames.n_frames - 1) * frames.frame_interval_fs / 1000
    if (drawable := _drawable(frames, replica)).n_frames:
        write_gsd(path, system, drawable, replica, start_time_ps=max(0.0, start_ps))


def _drawable(trajectory: Trajectory, replica: int) -> Trajectory:
    """The frames of a replica with positions that a file can hold: finite, and not too large."""
    drawable = (trajectory.positions[:, replica].abs() <= LARGEST_COORDINATE_A).all(-1).all(-1)
    return trajectory[torch.nonzero(drawable).squeeze(-1)]
