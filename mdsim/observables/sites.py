"""Distributions of a number that atoms or molecules have in each frame, such as a coordination number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.observables import cells
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import finite_frames, grouped_histogram
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor

ROWS_AT_ONCE = 2**12  # structures of which values are held at a time


@dataclass(frozen=True)
class SiteDistribution(ABC):
    """Base of the probability densities of a number that each site (an atom or a molecule) has.

    Values beyond the range count in the first or the last bin, so that unusual structures remain visible and the
    density integrates to 1. Evaluations report the mean of the density too (`has_mean`).
    """

    has_mean: ClassVar[bool] = True

    @property
    @abstractmethod
    def bins(self) -> Bins:
        """The bins of the values."""

    @abstractmethod
    def sites(self, system: System) -> Int[Tensor, "site"]:
        """The molecule of each site.

        Raises:
            ValueError: there is no site.
        """

    @abstractmethod
    def values(self, system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row site"]:
        """The number of each site in finite structures (positions in Å), whose cells may differ."""

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density in each bin; NaN for frames with a coordinate that is not finite.

        Args:
            system: the system of all replicas.
            trajectory: positions in Å.

        Raises:
            ValueError: the system has no such site.
        """
        sites = self.sites(system)
        counts = self._counts(system, trajectory, torch.zeros_like(sites), 1)[:, :, 0]
        return counts / (len(sites) * self.bins.width)

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule. The mean over molecules is the density of the frame, see `LocalObservable`."""
        sites, n_molecules = self.sites(system), system.n_molecules
        counts = self._counts(system, trajectory, sites, n_molecules)
        return counts * (n_molecules / (len(sites) * self.bins.width))

    def _counts(
        self, system: System, trajectory: Trajectory, groups: Int[Tensor, "site"], n_groups: int
    ) -> Float[Tensor, "frame replica group bin"]:
        positions, bins = trajectory.positions, self.bins
        finite = finite_frames(positions).reshape(-1)
        rows = positions.detach().flatten(0, 1)
        system = cells.in_rows(system, trajectory)
        counts = positions.new_full((len(rows), n_groups, bins.count), torch.nan)
        for index in torch.nonzero(finite)[:, 0].split(ROWS_AT_ONCE):
            values = self.values(cells.of_some(system, index), rows[index]).clamp(bins.start, bins.stop)
            counts[index] = grouped_histogram(values, bins, groups, n_groups).to(counts)
        return counts.unflatten(0, positions.shape[:2])
