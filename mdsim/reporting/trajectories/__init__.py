"""Trajectory files of single replicas: GSD, extended XYZ, XTC, DCD and H5MD.

| format | program | positions | velocities, energies | times | cells | elements, bonds |
| --- | --- | --- | --- | --- | --- | --- |
| gsd | gsd | wrapped, with images; float32 | both | exact | standard axes | in the file |
| extxyz | ASE | unwrapped; 8 decimals | momenta, energies | exact | any axes | in the file |
| xtc | MDAnalysis | unwrapped; 0.01 Å | no room | float32 | standard axes | `.pdb` beside it |
| dcd | MDAnalysis | unwrapped; float32 | no room | evenly spaced | standard axes | `.pdb` beside it |
| h5md | h5py | unwrapped; float32 | both | exact | standard axes | in the file, and `.pdb` |

`mdsim.reporting.trajectories.axes` describes the standard axes.
"""

from mdsim.reporting.trajectories.extxyz import to_ase
from mdsim.reporting.trajectories.files import read_trajectory, write_frames, write_stretches, write_trajectory
from mdsim.reporting.trajectories.formats import FORMATS
from mdsim.reporting.trajectories.frames import (
    GSD,
    LARGEST_COORDINATE_A,
    FileSettings,
    Header,
    ReplicaFrames,
    Stored,
    frames_before_break,
    frames_of,
)

__all__ = [
    "FORMATS",
    "GSD",
    "LARGEST_COORDINATE_A",
    "FileSettings",
    "ReplicaFrames",
    "Header",
    "Stored",
    "frames_before_break",
    "frames_of",
    "read_trajectory",
    "to_ase",
    "write_frames",
    "write_stretches",
    "write_trajectory",
]
