"""Folders of evaluations, written without a simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mdsim.evaluation import kept_frames
from mdsim.evaluation.results import write_summary
from mdsim.reporting.trajectories import GSD, FileSettings
from mdsim.state import System, Trajectory

HORIZON_PS = 10.0
AXIS, REFERENCE = np.array([0.5, 1.5, 2.5]), np.array([0.2, 0.6, 0.2])
WATER = torch.tensor([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]], dtype=torch.float64)


def write_evaluation(
    folder: Path,
    times_ps: list[float],
    reason: str = "bond_length_deviation",
    frames: bool = True,
    files: FileSettings = GSD,
    **changes,
) -> None:
    """An evaluation whose replicas broke at the given times, or did not if that is the horizon.

    Args:
        folder: of the evaluation.
        times_ps: stable time of each replica.
        reason: why those that broke did.
        frames: write the frames before the breaks, in which the first O-H bond is torn, and those of a stable replica.
        files: format of these frames.
        changes: entries of the summary.
    """
    folder.mkdir(parents=True)
    times = np.array(times_ps)
    broken = times < HORIZON_PS
    arrays = {
        "stable_time_ps": times,
        "broken": broken,
        "stable_frames": (times * 10).astype(int),
        "rdf": np.tile(REFERENCE, (len(times), 1)),
        "rdf_axis": AXIS,
        "rdf_reference": REFERENCE,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    endings = [
        {"replica": replica, "broke_by": reason, "stable_time_ps": times_ps[replica]}
        for replica in np.flatnonzero(broken).tolist()
    ]
    summary = {"replicas": len(times), "horizon_ps": HORIZON_PS, "temperature_K": 500.0, "endings": endings}
    errors = {"energy_mae_meV": 10.0, "force_mae_meV_per_A": 20.0}
    if frames:
        _write_frames(folder, broken, times, files)
    write_summary(folder, summary | errors | changes, [f"{name}.npy" for name in arrays])


def _write_frames(folder: Path, broken: np.ndarray, times_ps: np.ndarray, files: FileSettings) -> None:
    system = System.from_geometry(torch.tensor([8, 1, 1]), WATER)
    stable = WATER.expand(12, 1, 3, 3).clone()
    torn = stable.clone()
    torn[-1, 0, 1, 0] += 0.8
    for replica in np.flatnonzero(broken).tolist():
        everyone = Trajectory(torn.expand(-1, len(broken), -1, -1), None, None, 100.0)
        kept_frames.write_break(folder, system, everyone, replica, times_ps[replica] + 0.1, files)
    for replica in np.flatnonzero(~broken).tolist()[:1]:
        everyone = Trajectory(stable.expand(-1, len(broken), -1, -1), None, None, 100.0)
        kept_frames.write_stable(folder, system, everyone, replica, HORIZON_PS, files)
