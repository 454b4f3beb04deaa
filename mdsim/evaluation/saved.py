"""Formats of saved evaluations: their state, and the files of kept frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints
from mdsim.payloads import Check, Form, Mismatch, check, like, number, optional, tensor
from mdsim.state import Trajectory

ROUNDING = 1e-9


def evaluation_state(fresh: dict[str, Any], interval_fs: float, moving_cells: bool = False) -> Form:
    """The form of the state of an evaluation.

    Args:
        fresh: the state before the first stretch.
        interval_fs: interval between the stored frames.
        moving_cells: frames have cells.
    """
    n_replicas, n_atoms, _ = fresh["state"]["positions"].shape
    return {
        **like(fresh),
        "state": like(fresh["state"], finite=False),  # a replica that flew apart is stored unchanged
        "epoch": number(low=0, high=2**31, whole=True),
        "stable_frames": Check(lambda value, place: _counts(value, n_replicas, place)),
        "recent": optional(frames(None, n_replicas, n_atoms, interval_fs, moving_cells)),
    }


def frames(n_frames: int | None, n_replicas: int, n_atoms: int, interval_fs: float, moving_cells: bool = False) -> Form:
    """The form of a trajectory. NaN is allowed for replicas that no longer move."""
    vectors = tensor(n_frames, n_replicas, n_atoms, 3, finite=False)
    return {
        "positions": vectors,
        "velocities": optional(vectors),
        "energy": optional(tensor(n_frames, n_replicas, finite=False)),
        "frame_interval_fs": number(low=interval_fs * (1 - ROUNDING), high=interval_fs * (1 + ROUNDING)),
        **({"cell": tensor(n_frames, n_replicas, 3, 3, finite=False)} if moving_cells else {}),
    }


def fields_of(trajectory: Trajectory) -> dict[str, Any]:
    """The fields to store, without cells that do not move. `Trajectory(**fields)` restores it."""
    stored = dict(vars(trajectory))
    return {name: value for name, value in stored.items() if name != "cell" or value is not None}


def write_frames(path: Path, trajectory: Trajectory) -> None:
    """Write the kept frames of one stretch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save_atomically(path, checkpoints.new_payload("frames", frames=fields_of(trajectory)))


def read_frames(path: Path, form: Form) -> Trajectory:
    """The kept frames of one stretch.

    Raises:
        CheckpointError: the file is damaged, or of another run.
    """
    return Trajectory(**checkpoints.load_state(path, "frames", "frames", form))


def _counts(value: Any, n_replicas: int, place: str) -> None:
    check(value, tensor(n_replicas, dtype=torch.long), place)
    if bool((value < 0).any()):
        raise Mismatch(f"{place}: expected counts, found a negative number")
