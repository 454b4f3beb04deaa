"""The systems of labeled frames, with bonds from their geometry."""

from __future__ import annotations

import torch

from mdsim.datasets.bonds import bond_matrix
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.npz import Frames
from mdsim.state import System
from mdsim.typing import Int, Tensor

FRAMES_TO_FIND_BONDS = 200


def system_of(frames: Frames, dtype: torch.dtype = torch.float32) -> System:
    """The system with the bonds that are present in at least half of the frames.

    Up to 200 evenly spaced frames are used.
    """
    return with_bonds(frames, bonds_of(frames), dtype)


def bonds_of(frames: Frames) -> Int[Tensor, "bond 2"]:
    """The bonds of `system_of`."""
    some = frames.positions[:: -(-len(frames) // FRAMES_TO_FIND_BONDS)]
    bonded, pairs = bond_matrix(frames.atomic_numbers, some, frames.cell)
    return pairs[bonded.double().mean(0) >= 0.5]


def with_bonds(frames: Frames, bonds: Int[Tensor, "bond 2"], dtype: torch.dtype) -> System:
    """The system of the frames with given bonds."""
    return System.from_bonds(frames.atomic_numbers, bonds, frames.cell, frames.masses, dtype)


def systems_of(frames: MixedFrames, dtype: torch.dtype = torch.float32, find_bonds: bool = True) -> list[System]:
    """The system of each frame. Frames of one kind (see `MixedFrames.kinds`) share theirs.

    Args:
        frames: frames of any compositions and cells.
        dtype: type of masses and cells.
        find_bonds: with bonds as in `system_of`, over the frames of one kind. Otherwise there are none.
    """
    systems: dict[int, System] = {}
    none = torch.zeros(0, 2, dtype=torch.long)
    for kind in frames.kinds():
        alike = frames.alike(kind)
        system = with_bonds(alike, bonds_of(alike) if find_bonds else none, dtype)
        systems |= dict.fromkeys(kind.tolist(), system)
    return [systems[frame] for frame in range(len(frames))]
