"""A custom observable: the distribution of the radius of gyration of a molecule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import center_of_mass
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import finite_frames, histogram
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class RadiusOfGyration:
    """Probability density in 1/Å of the radius of gyration: the mass-weighted distance from the center (RMS).

    Args:
        min_A, max_A: range of the radius.
        bin_width_A: width of a bin, which must divide the range.

    Raises:
        ValueError: bins that do not fill the range.
    """

    min_A: float
    max_A: float
    bin_width_A: float = 0.05

    name: ClassVar[str] = "radius_of_gyration"  # of the results in final_metrics.json, the .npy files and the figure
    unit: ClassVar[str] = "Å"

    def __post_init__(self) -> None:
        Bins.spanning(self.min_A, self.max_A, self.bin_width_A)

    @property
    def bins(self) -> Bins:
        return Bins.spanning(self.min_A, self.max_A, self.bin_width_A)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density of each frame, which has one radius. NaN for frames with a coordinate that is not finite."""
        positions = trajectory.positions
        radii = radii_of_gyration_A(positions, system.masses)
        counts = histogram(radii.reshape(-1, 1), self.bins).unflatten(0, radii.shape)
        density = counts.to(positions) / self.bins.width
        return torch.where(finite_frames(positions)[..., None], density, torch.nan)


def radii_of_gyration_A(
    positions: Float[Tensor, "*batch atom 3"], masses: Float[Tensor, "atom"]
) -> Float[Tensor, "*batch"]:
    """Radii of gyration of all atoms together, Å."""
    squared = (positions - center_of_mass(positions, masses)).square().sum(-1)
    return (squared @ (masses / masses.sum()).to(squared)).sqrt()
