"""Writing and reading of trajectory files, of the format that their suffix names."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from mdsim.reporting.trajectories.formats import format_of
from mdsim.reporting.trajectories.frames import (
    FS_PER_PS,
    LARGEST_COORDINATE_A,
    FileSettings,
    Header,
    ReplicaFrames,
    Stored,
    frames_of,
    n_writable,
)
from mdsim.state import System, Trajectory


def write_trajectory(
    path: Path,
    system: System,
    trajectory: Trajectory,
    replica: int,
    comment: str = "",
    start_time_ps: float = 0.0,
    xtc_precision_per_nm: float = 1000.0,
) -> None:
    """Write one replica, under a temporary name that is then renamed.

    Args:
        path: path of the file. Its suffix (.gsd, .extxyz, .xtc, .dcd, .h5md) is the format.
        system: the simulated system.
        trajectory: frames of all replicas.
        replica: index of the replica to write.
        comment: origin of the file. XTC has no room for it.
        start_time_ps: time of the first frame.
        xtc_precision_per_nm: steps of a coordinate per nm in XTC files.

    Raises:
        ConfigError: there is no such format, or its library is missing.
        ValueError: there are no frames, or a frame is non-finite, has huge coordinates or a flat cell.
    """
    frames = frames_of(system, trajectory, replica, start_time_ps)
    if (n_frames := n_writable(frames)) < len(frames):
        raise ValueError(
            f"{path}: frame {n_frames} of replica {replica} has non-finite coordinates, some beyond "
            f"{LARGEST_COORDINATE_A:g} Å, or a flat cell: write only the frames before it (frames_before_break)"
        )
    if not n_frames:
        raise ValueError(f"{path}: the trajectory of replica {replica} has no frames, so there is nothing to write")
    header = Header(system, trajectory.frame_interval_fs, xtc_precision_per_nm, comment)
    write_frames(path, header, [frames])


def write_frames(path: Path, header: Header, parts: Iterable[ReplicaFrames]) -> bool:
    """Write consecutive frames of one replica, which need not fit into memory together.

    The frames end before the first one that no file can hold (`n_writable`).

    Args:
        path: path of the file, with the suffix of its format.
        header: what is constant in the file.
        parts: the frames, part by part.

    Returns:
        Whether there were any frames. If not, no file is written.

    Raises:
        ConfigError: there is no such format, or its library is missing.
    """
    kind = format_of(path)
    kind.check_available()
    header = replace(header, system=header.system.to("cpu"))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    writer = None
    try:
        for part in parts:
            writable = part[: n_writable(part)]
            if len(writable) and writer is None:
                if kind.has_topology:
                    _write_topology(path, header, writable)
                writer = kind.open(temporary, header)
            if len(writable) and writer is not None:
                writer.append(writable)
            if len(writable) < len(part):
                break
    except BaseException:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
        raise
    if writer is not None:
        writer.close()
        temporary.replace(path)
    return writer is not None


def write_stretches(
    path: Path,
    system: System,
    stretches: Iterable[Trajectory],
    column: int,
    n_frames: int | None,
    settings: FileSettings,
) -> bool:
    """Write one replica of consecutive stretches, which are taken one by one. Returns whether there were any frames.

    The first frame is one interval after the start of the simulation, at time zero.

    Args:
        path: path of the file, with the suffix of its format.
        system: the simulated system.
        stretches: frames of some replicas.
        column: index of the replica in the stretches.
        n_frames: number of frames to write; None: all.
        settings: format of the file.
    """
    stretches = iter(stretches)
    first = next(stretches, None)
    if first is None:
        return False

    def parts() -> Iterator[ReplicaFrames]:
        n_done = 0
        for stretch in chain([first], stretches):
            some = stretch if n_frames is None else stretch[: n_frames - n_done]
            if some.n_frames:
                yield frames_of(system, some, column, (n_done + 1) * some.frame_interval_fs / FS_PER_PS)
            n_done += some.n_frames
            if n_done == n_frames:
                return

    return write_frames(path, Header(system, first.frame_interval_fs, settings.xtc_precision_per_nm), parts())


def read_trajectory(path: Path) -> Stored:
    """Read a file of `write_trajectory`.

    Returns:
        The system, and a trajectory of one replica with unwrapped positions, in the axes of the file.

    Raises:
        ConfigError: there is no such format, or its library is missing.
        ValueError: the file was written by another program, or its topology is missing.
    """
    return format_of(path).read(path)


def _write_topology(path: Path, header: Header, frames: ReplicaFrames) -> None:
    topology = importlib.import_module("mdsim.reporting.trajectories.topology")
    final = path.with_suffix(topology.SUFFIX)
    temporary = final.with_name(final.name + ".tmp")
    topology.write(temporary, header, frames)
    temporary.replace(final)
