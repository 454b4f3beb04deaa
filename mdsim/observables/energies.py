"""Distribution of the potential energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.observables.bins import Bins
from mdsim.observables.histogram import finite_frames, histogram
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class EnergyDistribution:
    """Probability density in 1/eV of the potential energy, around a given energy.

    Energies beyond the range count in the first or the last bin, so that structures of much too low or too high energy
    remain visible and the density integrates to 1.

    It depends on the parameters of the force field θ through the energy itself. The derivative of its mean therefore
    has a second term, <∂g/∂θ>, which the Boltzmann estimator lacks, and which a histogram does not have. It is a metric
    and no target.

    Args:
        center_eV: energy at the center of the range, from the zero of the trajectory's energies.
        half_range_eV: the range extends this far on both sides.
        bin_width_eV: width of a bin, which must divide the range.
        aligned: the zero of the energies was chosen for a mean error of zero, because it is not determined.

    Raises:
        ValueError: bins that do not fill the range.
    """

    center_eV: float
    half_range_eV: float
    bin_width_eV: float
    aligned: bool = False

    name: ClassVar[str] = "potential_energy"
    unit: ClassVar[str] = "eV"
    depends_on_parameters: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Bins.spanning(-self.half_range_eV, self.half_range_eV, self.bin_width_eV)

    @property
    def bins(self) -> Bins:
        """Bins of the energy relative to ``center_eV``."""
        return Bins.spanning(-self.half_range_eV, self.half_range_eV, self.bin_width_eV)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density in each bin; NaN for frames with an energy or a coordinate that is not finite.

        Args:
            system: not needed.
            trajectory: positions in Å and energies in eV.

        Raises:
            ValueError: the trajectory has no energies.
        """
        if trajectory.energy is None:
            raise ValueError("the distribution of energies needs a trajectory with energies, but it has none")
        known = finite_frames(trajectory.positions) & trajectory.energy.isfinite()
        bins = self.bins
        energies = (trajectory.energy - self.center_eV).clamp(bins.start, bins.stop)
        counts = histogram(energies.reshape(-1, 1), bins).unflatten(0, energies.shape)
        return torch.where(known[..., None], counts.to(energies.dtype) / bins.width, torch.nan)
