"""Rounding noise of energies: the scatter of energies around a parabola along a path of microscopic steps."""

from __future__ import annotations

import numpy as np
import torch

from mdsim.interfaces import Potential
from mdsim.typing import Float, Tensor

STEP_A = 1e-6
N_POINTS = 13


def energy_noise_eV(potential: Potential, positions: Float[Tensor, "atom 3"], generator: torch.Generator) -> float:
    """Standard deviation of the rounding errors of energies, eV.

    Differences of energies below it mean nothing. It is 1e-12 eV for a double-precision model without a large constant
    energy, and 1e-3 eV for a single-precision model that adds -17,000 eV.

    Args:
        potential: energies (eV) of positions (Å).
        positions: one structure.
        generator: source of the direction.
    """
    direction = torch.randn(positions.shape, generator=generator, dtype=positions.dtype)
    steps = STEP_A * torch.arange(-(N_POINTS // 2), N_POINTS // 2 + 1, dtype=positions.dtype)
    energy, _ = potential(positions + steps[:, None, None] * direction)
    x, y = np.arange(N_POINTS, dtype=np.float64) - N_POINTS // 2, energy.double().numpy()
    if not np.isfinite(y).all():
        return float("nan")
    y = y - y.mean()
    residual = y - np.polyval(np.polyfit(x, y, 2), x)
    return float(np.sqrt(np.square(residual).sum() / (N_POINTS - 3)))
