"""Isothermal bulk modulus of systems at constant pressure, by the fluctuations of their volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from mdsim.geometry import volume
from mdsim.observables.histogram import finite_frames
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor
from mdsim.units import GPA, kT_eV


@dataclass(frozen=True)
class BulkModulus:
    """Volume (Å³) and its square (Å⁶) of each frame and replica.

    Their means give the isothermal bulk modulus, see `bulk_modulus_GPa`. It is no mean over frames, and no training
    target.
    """

    name: ClassVar[str] = "bulk_modulus"

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica 2"]:
        """Volume and squared volume; NaN for frames with a coordinate that is not finite.

        Args:
            system: not needed.
            trajectory: positions and cells in Å.

        Raises:
            ValueError: cells do not move.
        """
        if trajectory.cell is None:
            raise ValueError("the bulk modulus needs a volume that fluctuates, but cells do not move; add a barostat")
        volumes = volume(trajectory.cell.double())
        moments = torch.stack([volumes, volumes.square()], dim=-1)
        return torch.where(finite_frames(trajectory.positions)[..., None], moments, torch.nan)


def bulk_modulus_GPa(moments: np.ndarray, temperature_K: float) -> np.ndarray:
    """Isothermal bulk modulus kT <V> / (<V²> - <V>²) in GPa, the inverse of the isothermal compressibility.

    Args:
        moments: rows of the means of volume (Å³) and squared volume (Å⁶).
        temperature_K: temperature.

    Returns:
        One number for each row. NaN where the volume does not fluctuate.
    """
    mean, variance = moments[:, 0], moments[:, 1] - moments[:, 0] ** 2
    fluctuates = variance > 0
    return np.where(fluctuates, kT_eV(temperature_K) * mean / np.where(fluctuates, variance, 1.0) / GPA, np.nan)
