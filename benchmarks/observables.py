"""Benchmark of observables: microseconds per frame, compared with MDAnalysis or numpy on the same frames.

    python -m benchmarks.observables [--frames 1000]

Both times are for the same quantity and frames. The last column is the difference between the results. MDAnalysis
processes one frame at a time, numpy all frames at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.cases import load_system
from benchmarks.common import announce, arguments, median_seconds, print_table
from mdsim.observables.adf import ADF, bonded_triplets
from mdsim.observables.bonds import BondLengths
from mdsim.observables.rdf import RDF
from mdsim.observables.vacf import VACF
from mdsim.state import System, Trajectory

WIDTH_A, REACH_A, REACH_PERIODIC_A = 0.02, 10.0, 6.0


@dataclass(frozen=True)
class Comparison:
    """An observable of this package and the same quantity from another program, as arrays of equal shape."""

    name: str
    ours: Callable[[], np.ndarray]
    peer_name: str
    peer: Callable[[], np.ndarray]


def comparisons(system: System, trajectory: Trajectory) -> list[Comparison]:
    """The observables of this package with a counterpart in another program."""
    return [
        Comparison("RDF", lambda: _mean(RDF(_reach(system), WIDTH_A), system, trajectory), *_rdf(system, trajectory)),
        Comparison("ADF", lambda: _mean(ADF(1.0), system, trajectory), "numpy", lambda: _adf(system, trajectory)),
        Comparison(
            "bond lengths",
            lambda: _mean(BondLengths(), system, trajectory),
            "numpy",
            lambda: _bond_lengths(system, trajectory),
        ),
        Comparison(
            "VACF",
            lambda: VACF(100 * trajectory.frame_interval_fs)(system, trajectory)[0].numpy(),
            "numpy",
            lambda: _vacf(trajectory, 100),
        ),
    ]


def _mean(observable: Callable, system: System, trajectory: Trajectory) -> np.ndarray:
    return observable(system, trajectory).mean((0, 1)).numpy()


def _reach(system: System) -> float:
    return REACH_A if system.cell is None else REACH_PERIODIC_A


def _rdf(system: System, trajectory: Trajectory) -> tuple[str, Callable[[], np.ndarray]]:
    """Pair density by MDAnalysis's distances in C, one frame after the other."""
    try:
        from MDAnalysis.lib.distances import self_distance_array
    except ImportError:
        return "numpy", lambda: _rdf_numpy(system, trajectory)
    box = None if system.cell is None else np.array([*system.cell.diagonal().tolist(), 90.0, 90.0, 90.0], np.float32)
    frames = trajectory.positions[:, 0].numpy()
    n_bins = round(_reach(system) / WIDTH_A)
    n_pairs = system.n_atoms * (system.n_atoms - 1) // 2
    out = np.empty(n_pairs)

    def rdf() -> np.ndarray:
        counts = np.zeros(n_bins)
        for frame in frames:
            self_distance_array(frame, box, out)
            counts += np.histogram(out, n_bins, (0.0, _reach(system)))[0]
        return counts / (len(frames) * n_pairs * WIDTH_A)

    return "MDAnalysis", rdf


def _rdf_numpy(system: System, trajectory: Trajectory) -> np.ndarray:
    frames = trajectory.positions[:, 0].numpy()
    first, second = np.triu_indices(system.n_atoms, 1)
    distances = np.linalg.norm(_nearest(frames[:, second] - frames[:, first], system), axis=-1)
    n_bins = round(_reach(system) / WIDTH_A)
    counts = np.histogram(distances, n_bins, (0.0, _reach(system)))[0]
    return counts / (distances.size * WIDTH_A)


def _nearest(vectors: np.ndarray, system: System) -> np.ndarray:
    if system.cell is None:
        return vectors
    edges = system.cell.diagonal().numpy()
    return vectors - edges * np.round(vectors / edges)


def _adf(system: System, trajectory: Trajectory) -> np.ndarray:
    frames = trajectory.positions[:, 0].numpy()
    i, j, k = bonded_triplets(system).numpy().T
    a, b = _nearest(frames[:, i] - frames[:, j], system), _nearest(frames[:, k] - frames[:, j], system)
    cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return np.histogram(angles, 180, (0.0, 180.0))[0] / angles.size


def _bond_lengths(system: System, trajectory: Trajectory) -> np.ndarray:
    frames = trajectory.positions[:, 0].numpy()
    first, second = system.bonds.numpy().T
    return np.linalg.norm(_nearest(frames[:, second] - frames[:, first], system), axis=-1).mean(0)


def _vacf(trajectory: Trajectory, longest: int) -> np.ndarray:
    velocities = trajectory.velocities[:, 0].double().numpy()
    n_frames = len(velocities)
    sums = [(velocities[: n_frames - lag] * velocities[lag:]).sum() / (n_frames - lag) for lag in range(longest + 1)]
    return np.array(sums) / sums[0]


def trajectory_of(name: str, n_frames: int) -> tuple[System, Trajectory]:
    """The test frames in sequence, with random velocities, on which the cost does not depend."""
    system, frames, _ = load_system(name)
    positions = frames.repeat(-(-n_frames // len(frames)), 1, 1)[:n_frames, None]
    generator = torch.Generator().manual_seed(0)
    return system, Trajectory(positions, torch.randn(positions.shape, generator=generator), None, 10.0)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum() / np.abs(b).sum())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--systems", nargs="+", default=["aspirin", "water"])
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    warnings.simplefilter("ignore")
    announce()
    for name in known.systems:
        system, trajectory = trajectory_of(name, known.frames)
        rows = []
        for item in comparisons(system, trajectory):
            seconds = median_seconds({"ours": item.ours, "peer": item.peer}, repetitions=3)
            ours, peer = (1e6 * seconds[key] / known.frames for key in ("ours", "peer"))
            differs = difference(item.ours(), item.peer())
            rows.append(
                [item.name, f"{ours:.1f}", item.peer_name, f"{peer:.1f}", f"{peer / ours:.2f}", f"{differs:.1e}"]
            )
        header = ["observable", "µs/frame", "peer", "µs/frame", "ratio", "difference"]
        print_table(f"{name}, {system.n_atoms} atoms, {known.frames} frames", header, rows)


if __name__ == "__main__":
    main()
