"""DCD, the format of CHARMM and NAMD, by MDAnalysis: unwrapped positions in Å in single precision, and cells.

Cells are lengths and cosines of angles. The file has no times of its frames: they follow from the number of the first
frame and the interval, which is in AKMA units (48.88821 fs) in single precision. There is no room for velocities and
energies. Elements, names and bonds are in a PDB file of the same name.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from MDAnalysis.lib.formats.libdcd import DCDFile

from mdsim.reporting.trajectories import topology
from mdsim.reporting.trajectories.axes import cell_from, in_standard_axes, lengths_and_angles
from mdsim.reporting.trajectories.frames import FS_PER_PS, Header, ReplicaFrames, Stored, stored
from mdsim.units import FS, KCAL_PER_MOL

AKMA_FS = 1 / (FS * KCAL_PER_MOL**0.5)  # Å √(amu / (kcal/mol)): 48.88821 fs
ORDER = (0, 5, 1, 4, 3, 2)  # of a, b, c, α, β, γ in the file: a, γ, b, β, α, c
MOST_STEPS = 1000  # between frames, to express the time of the first one in steps
LONGEST_TITLE = 239


class DcdWriter:
    """Writes one replica."""

    def __init__(self, path: Path, header: Header) -> None:
        self.header = header
        self.n_frames = 0
        self.start_ps = 0.0
        self.file = DCDFile(str(path), "w")

    def append(self, frames: ReplicaFrames) -> None:
        """Append frames.

        Raises:
            ValueError: the frames are not evenly spaced.
        """
        if self.n_frames == 0:
            self._begin(frames)
        interval_ps = self.header.frame_interval_fs / FS_PER_PS
        due = self.start_ps + interval_ps * (self.n_frames + np.arange(len(frames)))
        if np.abs(frames.times_ps - due).max() > 1e-3 * interval_ps:
            raise ValueError("frames of a DCD file must be evenly spaced in time; choose another format")
        frames = in_standard_axes(frames)
        boxes = None if frames.cell is None else lengths_and_angles(frames.cell)[:, ORDER]
        positions = frames.positions.astype(np.float32)
        for index in range(len(frames)):
            self.file.write(positions[index], None if boxes is None else boxes[index])
        self.n_frames += len(frames)

    def _begin(self, frames: ReplicaFrames) -> None:
        self.start_ps = float(frames.times_ps[0])
        interval_fs = self.header.frame_interval_fs
        start = Fraction(FS_PER_PS * self.start_ps / interval_fs).limit_denominator(MOST_STEPS)
        self.file.write_header(
            remarks=self.header.comment.encode("ascii", "replace").decode()[:LONGEST_TITLE],
            natoms=self.header.system.n_atoms,
            istart=start.numerator,
            nsavc=start.denominator,
            delta=interval_fs / start.denominator / AKMA_FS,
            is_periodic=int(frames.cell is not None),
        )

    def close(self) -> None:
        """Complete the file."""
        self.file.close()


def read(path: Path) -> Stored:
    """Read a file of `DcdWriter`, with the PDB file beside it."""
    with DCDFile(str(path)) as file:
        header, is_periodic = file.header, bool(file.is_periodic)
        frames = file.readframes()
    interval_ps = header["delta"] * header["nsavc"] * AKMA_FS / FS_PER_PS
    numbers = header["istart"] / header["nsavc"] + np.arange(len(frames.xyz))
    cell = None
    if is_periodic:
        box = np.empty((len(frames.xyz), 6))
        box[:, ORDER] = frames.unitcell
        cell = cell_from(box[:, :3], box[:, 3:])
    found = ReplicaFrames(interval_ps * numbers, frames.xyz.astype(np.float64), None, None, cell)
    return stored(topology.read(path, cell), found, FS_PER_PS * interval_ps)
