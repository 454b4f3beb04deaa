"""Benchmark of trajectory files: bytes per frame, and frames written and read per second, by format.

    python -m benchmarks.trajectories [--repetitions 3]

Frames have velocities and energies, as evaluations keep them; XTC and DCD have no room for these. Files are written in
parts of 100 frames, with their topologies.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.cases import load_system
from benchmarks.common import median_seconds
from mdsim.reporting.console import format_table
from mdsim.reporting.trajectories import FORMATS, FileSettings, read_trajectory, write_stretches
from mdsim.state import Trajectory

CASES = {"aspirin": 2000, "water": 1000, "water_2x2x2": 200}  # frames
PART = 100


def frames_of(name: str) -> Trajectory:
    """Test frames of a bundled system one after the other, with random velocities and energies."""
    n_frames, positions = CASES[name], load_system(name)[1]
    generator = torch.Generator().manual_seed(1)
    chosen = positions[torch.arange(n_frames) % len(positions)][:, None]
    velocities = 0.02 * torch.randn(chosen.shape, generator=generator)
    return Trajectory(chosen, velocities, velocities.sum((-1, -2)), frame_interval_fs=10.0)


def rows_of(name: str, folder: Path, repetitions: int) -> list[list[str]]:
    """Table rows of one system."""
    system, frames = load_system(name)[0], frames_of(name)
    n_frames = frames.n_frames
    parts = [frames[start : start + PART] for start in range(0, n_frames, PART)]
    paths = {kind: folder / f"{name}.{kind}" for kind in FORMATS}

    def writing(kind: str):
        return lambda: write_stretches(paths[kind], system, parts, 0, None, FileSettings(kind))

    written = median_seconds({kind: writing(kind) for kind in FORMATS}, repetitions)
    read = median_seconds({kind: lambda kind=kind: read_trajectory(paths[kind]) for kind in FORMATS}, repetitions)
    return [
        [
            *(f"{name} ({system.n_atoms} atoms)", kind, f"{paths[kind].stat().st_size / n_frames:,.0f}"),
            *(f"{n_frames / written[kind]:,.0f}", f"{n_frames / read[kind]:,.0f}"),
        ]
        for kind in FORMATS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in CASES for row in rows_of(name, Path(folder), known.repetitions)]
    print(format_table(["system", "format", "bytes per frame", "frames written per s", "frames read per s"], rows))


if __name__ == "__main__":
    main()
