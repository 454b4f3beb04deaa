"""XTC, the compressed format of GROMACS, by MDAnalysis: rounded, unwrapped positions and cells in nm, times in ps.

Positions are rounded to 1 / `Header.xtc_precision_per_nm`, by default 0.01 Å. Times are in single precision, and the
step of a frame is its time in whole femtoseconds. There is no room for velocities and energies. Elements, names and
bonds are in a PDB file of the same name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from MDAnalysis.lib.formats.libmdaxdr import XTCFile

from mdsim.reporting.trajectories import topology
from mdsim.reporting.trajectories.axes import in_standard_axes
from mdsim.reporting.trajectories.frames import FS_PER_PS, Header, ReplicaFrames, Stored, stored
from mdsim.units import NM

OPEN = np.zeros((3, 3), dtype=np.float32)


class XtcWriter:
    """Writes one replica."""

    def __init__(self, path: Path, header: Header) -> None:
        self.precision = header.xtc_precision_per_nm
        self.file = XTCFile(str(path), "w")

    def append(self, frames: ReplicaFrames) -> None:
        """Append frames."""
        frames = in_standard_axes(frames)
        positions = (frames.positions / NM).astype(np.float32)
        boxes = None if frames.cell is None else (frames.cell / NM).astype(np.float32)
        steps = np.rint(FS_PER_PS * frames.times_ps).astype(np.int64)
        for index, time_ps in enumerate(frames.times_ps):
            box = OPEN if boxes is None else boxes[index]
            self.file.write(positions[index], box, int(steps[index]) % 2**31, time_ps, self.precision)

    def close(self) -> None:
        """Complete the file."""
        self.file.close()


def read(path: Path) -> Stored:
    """Read a file of `XtcWriter`, with the PDB file beside it."""
    with XTCFile(str(path)) as file:
        frames = list(file)
    boxes = np.stack([frame.box for frame in frames]).astype(np.float64) * NM
    found = ReplicaFrames(
        np.array([frame.time for frame in frames], dtype=np.float64),
        np.stack([frame.x for frame in frames]).astype(np.float64) * NM,
        None,
        None,
        boxes if boxes.any() else None,
    )
    return stored(topology.read(path, found.cell), found)
