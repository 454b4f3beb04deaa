"""Mass density of periodic systems, which fluctuates at constant pressure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import volume
from mdsim.observables.histogram import finite_frames
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor
from mdsim.units import AMU_PER_A3_IN_G_PER_CM3


@dataclass(frozen=True)
class Density:
    """Mass density in g/cm³ of each frame and replica. It is constant unless a barostat moves the cells.

    Args:
        reference_g_per_cm3: density to compare with, for example from an experiment. None: that of the reference data.
    """

    reference_g_per_cm3: float | None = None

    name: ClassVar[str] = "density"
    unit: ClassVar[str] = "g/cm³"
    has_mean: ClassVar[bool] = True

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return torch.zeros(1)

    @property
    def reference(self) -> Float[Tensor, "bin"] | None:
        """The reference, if it is not that of the data."""
        return None if self.reference_g_per_cm3 is None else torch.tensor([self.reference_g_per_cm3]).double()

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica 1"]:
        """The density in g/cm³; NaN for frames with a coordinate that is not finite.

        Args:
            system: masses and, unless cells move, the cell.
            trajectory: positions and, if they move, cells in Å.

        Raises:
            ValueError: the boundaries are open.
        """
        cell = trajectory.in_cells(system).cell
        if cell is None:
            raise ValueError("the density needs the volume of a periodic system, but the system has no cell")
        density = density_g_per_cm3(system, cell).to(trajectory.positions).expand(trajectory.positions.shape[:2])
        return torch.where(finite_frames(trajectory.positions), density, torch.nan)[..., None]


def density_g_per_cm3(system: System, cell: Float[Tensor, "*cells 3 3"]) -> Float[Tensor, "*cells"]:
    """Mass density in g/cm³ of a system in each cell (Å)."""
    return AMU_PER_A3_IN_G_PER_CM3 * system.masses.sum() / volume(cell)
