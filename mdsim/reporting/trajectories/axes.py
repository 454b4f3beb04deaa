"""Standard axes of cells: the first lattice vector along x, the second in the xy plane, and right-handed.

Most trajectory formats know no other axes. Frames are rotated into them, which preserves distances, angles and
chirality, but not the laboratory axes. A left-handed cell is replaced by its opposite, which spans the same lattice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdsim.reporting.trajectories.frames import ReplicaFrames
from mdsim.typing import Float


def in_standard_axes(frames: ReplicaFrames) -> ReplicaFrames:
    """The frames with lower triangular cells of positive diagonal; those without a cell unchanged."""
    if frames.cell is None:
        return frames
    rotation, cell = _standard(frames.cell[:1] if frames.moving_cell is None else frames.cell)
    return replace(
        frames,
        positions=frames.positions @ rotation,
        velocities=None if frames.velocities is None else frames.velocities @ rotation,
        cell=np.broadcast_to(cell, frames.cell.shape),
    )


def _standard(
    cell: Float[np.ndarray, "frame 3 3"],
) -> tuple[Float[np.ndarray, "frame 3 3"], Float[np.ndarray, "frame 3 3"]]:
    """Rotations (applied from the right), and the lower triangular cells that they give."""
    right_handed = cell * np.sign(np.linalg.det(cell))[:, None, None]
    orthogonal, upper = np.linalg.qr(right_handed.swapaxes(1, 2))
    signs = np.sign(np.diagonal(upper, axis1=1, axis2=2))
    return orthogonal * signs[:, None, :], (signs[:, :, None] * upper).swapaxes(1, 2)


def lengths_and_angles(cell: Float[np.ndarray, "frame 3 3"]) -> Float[np.ndarray, "frame 6"]:
    """Lengths a, b, c (Å), and the cosines of α, β, γ."""
    lengths = np.linalg.norm(cell, axis=-1)
    unit = cell / lengths[..., None]
    cosines = [(unit[:, i] * unit[:, j]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, np.stack(cosines, axis=-1)], axis=-1)


def cell_from(lengths: Float[np.ndarray, "frame 3"], cosines: Float[np.ndarray, "frame 3"]) -> np.ndarray:
    """Lower triangular lattice vectors from lengths and the cosines of α, β, γ."""
    alpha, beta, gamma = cosines.T
    sine = np.sqrt(1 - gamma**2)
    zy = (alpha - beta * gamma) / sine
    unit = np.zeros((len(lengths), 3, 3))
    unit[:, 0, 0] = 1
    unit[:, 1, 0], unit[:, 1, 1] = gamma, sine
    unit[:, 2, 0], unit[:, 2, 1], unit[:, 2, 2] = beta, zy, np.sqrt(1 - beta**2 - zy**2)
    return lengths[:, :, None] * unit
