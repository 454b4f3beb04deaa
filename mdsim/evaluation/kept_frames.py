"""Trajectory files of an evaluation: the frames before breaks, the last frames of a stable replica, whole replicas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mdsim.reporting.trajectories import FORMATS, GSD, FileSettings, Header, frames_of, write_frames, write_stretches
from mdsim.state import System, Trajectory

FOLDER = "trajectories"
BREAK, STABLE, WHOLE = "break_replica{:04d}.{}", "stable_replica{:04d}.{}", "replica{:04d}.{}"
REPLICA = re.compile(rf"(break|stable)_replica(\d+)\.({'|'.join(FORMATS)})")


def write_break(
    out_dir: Path, system: System, frames: Trajectory, replica: int, last_ps: float, files: FileSettings = GSD
) -> None:
    """Write the frames before a break, the last of which is the first unstable one.

    Args:
        out_dir: folder of the evaluation.
        system: the simulated system.
        frames: of all replicas.
        replica: the one that broke.
        last_ps: time of the last frame.
        files: format of the file.
    """
    _write(out_dir / FOLDER / BREAK.format(replica, files.format), system, frames, replica, last_ps, files)


def write_stable(
    out_dir: Path, system: System, frames: Trajectory, replica: int, last_ps: float, files: FileSettings = GSD
) -> None:
    """Write the last frames of a replica that never broke. Arguments are those of `write_break`."""
    _write(out_dir / FOLDER / STABLE.format(replica, files.format), system, frames, replica, last_ps, files)


def write_whole(
    out_dir: Path,
    system: System,
    stretches: Iterable[Trajectory],
    column: int,
    replica: int,
    n_frames: int,
    files: FileSettings = GSD,
) -> None:
    """Write the first ``n_frames`` frames of a replica, which is a column of the frames of consecutive stretches."""
    path = out_dir / FOLDER / WHOLE.format(replica, files.format)
    write_stretches(path, system, stretches, column, n_frames, files)


def _write(path: Path, system: System, frames: Trajectory, replica: int, last_ps: float, files: FileSettings) -> None:
    start_ps = max(0.0, last_ps - (frames.n_frames - 1) * frames.frame_interval_fs / 1000)
    header = Header(system, frames.frame_interval_fs, files.xtc_precision_per_nm)
    write_frames(path, header, [frames_of(system, frames, replica, start_ps)])
