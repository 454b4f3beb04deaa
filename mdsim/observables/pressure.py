"""Instantaneous pressure of periodic systems, at constant volume or constant pressure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import volume
from mdsim.interfaces import CellPotential
from mdsim.observables.histogram import finite_frames
from mdsim.state import System, Trajectory, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import BAR


@dataclass(frozen=True, eq=False)
class Pressure:
    """Instantaneous pressure in bar of each frame and replica, P = (2 K / V - Tr σ) / 3 with the stress σ.

    It depends on the parameters of the force field through the stress itself. It is a metric and no training target,
    see `EnergyDistribution`.

    Args:
        bind: makes a potential with a new neighbor list (`mdsim.moving_cells.bind_in_cells`), once per trajectory, so
            that values do not depend on earlier trajectories.
    """

    bind: Callable[[], CellPotential]

    name: ClassVar[str] = "pressure"
    unit: ClassVar[str] = "bar"
    has_mean: ClassVar[bool] = True
    depends_on_parameters: ClassVar[bool] = True

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica 1"]:
        """The pressure in bar; NaN for frames with a coordinate that is not finite.

        Args:
            system: masses and, unless cells move, the cell.
            trajectory: positions and, if they move, cells in Å, and velocities in ASE units.

        Raises:
            ValueError: the trajectory has no velocities, or the boundaries are open.
        """
        if trajectory.velocities is None:
            raise ValueError("the pressure needs a trajectory with velocities, but it has none")
        cells = trajectory.in_cells(system).cell
        if cells is None:
            raise ValueError("the pressure needs the volume of a periodic system, but the system has no cell")
        cells, potential = cells.expand(*trajectory.positions.shape[:2], 3, 3).to(trajectory.positions), self.bind()
        frames = zip(trajectory.positions, cells, strict=True)
        stress = torch.stack([potential(positions, here.contiguous())[2].detach() for positions, here in frames])
        kinetic = 2 * kinetic_energy_eV(trajectory.velocities, system.masses.to(trajectory.velocities)) / volume(cells)
        values = (kinetic - torch.diagonal(stress, dim1=-2, dim2=-1).sum(-1)) / (3 * BAR)
        return torch.where(finite_frames(trajectory.positions), values, torch.nan)[..., None]
