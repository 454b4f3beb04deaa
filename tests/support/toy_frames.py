"""Toy frames with known motion: a water molecule, a box of water, and argon."""

from __future__ import annotations

import tiny
import torch

from mdsim.datasets.npz import Frames
from mdsim.units import kT_eV

TEMPERATURE_K = 300.0
SPRING_EV_PER_A2 = 45.0
SIDE_A = 4.0  # between the molecules of the box
BOX_A = 2 * SIDE_A


def vibrating(n: int, seed: int) -> torch.Tensor:
    """Water whose O-H bonds stretch as thermal springs do, <x²> = kT/k; angles bend by two degrees."""
    generator = torch.Generator().manual_seed(seed)
    stretch = (kT_eV(TEMPERATURE_K) / SPRING_EV_PER_A2) ** 0.5 * torch.randn(n, 2, generator=generator).double()
    angle = torch.deg2rad(104.0 + 2.0 * torch.randn(n, generator=generator)).double()
    second = torch.tensor([1.0, 0.0, 0.0]).double().expand(n, 3)
    directions = torch.stack([torch.stack([angle.cos(), angle.sin(), 0 * angle], -1), second], dim=1)
    hydrogens = (0.97 + stretch)[..., None] * directions
    return torch.cat([torch.zeros(n, 1, 3).double(), hydrogens], dim=1)


def labeled(numbers: torch.Tensor, positions: torch.Tensor, cell: torch.Tensor | None = None) -> Frames:
    """Frames with labels of the right size."""
    forces = torch.randn(positions.shape, generator=torch.Generator().manual_seed(9))
    return Frames(numbers, positions.float(), torch.linspace(-1, 1, len(positions)).double(), forces, cell=cell)


def molecule(n: int, seed: int) -> Frames:
    return labeled(tiny.NUMBERS, vibrating(n, seed))


def liquid(n: int, seed: int) -> Frames:
    """Eight molecules on a grid, each shaken as a whole by 0.2 Å."""
    generator = torch.Generator().manual_seed(seed)
    places = SIDE_A * torch.cartesian_prod(*[torch.arange(2.0)] * 3).double()
    shaken = places + 0.2 * torch.randn(n, 8, 3, generator=generator).double()
    positions = vibrating(8 * n, seed).reshape(n, 8, 3, 3) + shaken[:, :, None]
    return labeled(tiny.NUMBERS.repeat(8), positions.reshape(n, 24, 3), BOX_A * torch.eye(3).double())


def argon(n: int, seed: int) -> Frames:
    generator = torch.Generator().manual_seed(seed)
    places = SIDE_A * torch.cartesian_prod(*[torch.arange(2.0)] * 3).double()
    positions = places + 0.1 * torch.randn(n, 8, 3, generator=generator).double()
    return labeled(torch.full((8,), 18), positions, BOX_A * torch.eye(3).double())
