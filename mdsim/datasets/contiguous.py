"""Contiguous frames: a check of their time order, and velocities from finite differences."""

from __future__ import annotations

from dataclasses import replace

import torch

from mdsim.datasets.npz import Frames
from mdsim.datasets.sources.raw import RawFrames
from mdsim.errors import DatasetError
from mdsim.geometry import minimum_image
from mdsim.typing import Float, Tensor
from mdsim.units import FS

#: Ten standard deviations of a component of the velocity of hydrogen at 500 K, four at 3000 K.
FASTEST_A_PER_FS = 0.2
#: Longer intervals lose the stretch vibrations of hydrogen (period 9 fs): 0.1 % of their velocity at 1 fs, 4 % at 2 fs.
LONGEST_INTERVAL_FS = 2.0
#: Sixth-order central difference: weights of x(t + k Δt) - x(t - k Δt), over Δt.
DIFFERENCE = (45 / 60, -9 / 60, 1 / 60)
MARGIN = len(DIFFERENCE)  # frames lost at each end


def check_time_order(name: str, frames: Frames, interval_fs: float) -> None:
    """Raise an error for frames that are not in time order.

    Args:
        name: name of the file, for error messages.
        frames: Å.
        interval_fs: time between them.

    Raises:
        DatasetError: an atom moves farther between frames than is physically possible.
    """
    steps = minimum_image(frames.positions[1:] - frames.positions[:-1], frames.cell)
    farthest = torch.linalg.vector_norm(steps, dim=-1).amax(-1)
    limit = FASTEST_A_PER_FS * interval_fs
    broken = torch.nonzero(farthest > limit).ravel().tolist()
    if broken:
        raise DatasetError(
            f"{name}: frames are not in time order: in {len(broken)} of {len(steps)} steps, the first after frame"
            f" {broken[0]}, an atom moves {float(farthest[broken[0]]):.2f} Å in {interval_fs:g} fs; more than"
            f" {limit:.2g} Å is not possible"
        )


def with_velocities(frames: Frames, interval_fs: float) -> Frames:
    """All frames except three at each end, with velocities by sixth-order central differences of the positions.

    Args:
        frames: in time order, at least seven. Å.
        interval_fs: time between them.
    """
    velocities = central_differences(frames.positions, frames.cell) / (interval_fs * FS)
    return replace(frames[MARGIN:-MARGIN], velocities=velocities)


def central_differences(
    positions: Float[Tensor, "frame atom 3"], cell: Float[Tensor, "3 3"] | None
) -> Float[Tensor, "inner atom 3"]:
    """Displacement per frame interval at all frames except three at each end, exact for polynomials of degree six."""
    inner = len(positions) - 2 * MARGIN
    total = torch.zeros_like(positions[:inner])
    for reach, weight in enumerate(DIFFERENCE, start=1):
        ahead, behind = (positions[MARGIN + shift : MARGIN + shift + inner] for shift in (reach, -reach))
        total += weight * minimum_image(ahead - behind, cell)
    return total


def contiguous_frames(name: str, raw: RawFrames, n_frames: int, start: int, interval_fs: float) -> tuple[Frames, str]:
    """A stretch of frames in time order, with velocities from the file or from differences if possible.

    Args:
        name: name of the file, for error messages.
        raw: all frames, in known units.
        n_frames: number of frames in the stretch.
        start: index of its first frame.
        interval_fs: time between frames.

    Returns:
        The stretch, and the source of its velocities.

    Raises:
        DatasetError: there are too few frames, or they are not in time order.
    """
    differences = raw.velocities is None and interval_fs <= LONGEST_INTERVAL_FS
    stop = start + n_frames + 2 * MARGIN * differences
    if stop > len(raw):
        raise DatasetError(
            f"{name}: {n_frames} contiguous frames from frame {start} on need {stop} frames, but there are {len(raw)};"
            " ask for fewer (--contiguous_frames)"
        )
    frames = raw.frames(slice(start, stop))
    check_time_order(name, frames, interval_fs)
    if differences:
        return with_velocities(frames, interval_fs), "sixth-order central differences of positions"
    return frames, "none" if raw.velocities is None else "of the source"
