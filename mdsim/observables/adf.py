"""Angular distribution function of bonded angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import angles_deg
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import molecule_histogram, tuple_histogram
from mdsim.observables.tuples import of_elements
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class ADF:
    """Probability density in 1/degree of the angles i-j-k between bonds, over 0 to 180 degrees.

    Args:
        bin_width_deg: width of a bin, which must divide 180 degrees.
        elements: symbols of i, j and k, as in ("H", "O", "H"); None takes all bonded angles.

    Raises:
        ValueError: a width that does not divide 180 degrees.
    """

    bin_width_deg: float
    elements: tuple[str, str, str] | None = None

    unit: ClassVar[str] = "degree"

    def __post_init__(self) -> None:
        Bins.spanning(0.0, 180.0, self.bin_width_deg)

    @property
    def name(self) -> str:
        return "adf" if self.elements is None else "adf_" + "".join(self.elements)

    @property
    def bins(self) -> Bins:
        return Bins.spanning(0.0, 180.0, self.bin_width_deg)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density in each bin; it integrates to 1, and is NaN for frames with a coordinate that is not finite.

        Args:
            system: its bonds define the angles.
            trajectory: positions in Å.

        Raises:
            ValueError: the system has no such angle.
        """
        triplets = of_elements(system, bonded_triplets(system), self.elements, "bonded angle")
        counts = tuple_histogram(
            angles_deg, trajectory.positions, triplets, trajectory.in_cells(system).cell, self.bins
        )
        return counts / (len(triplets) * self.bins.width)

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule. The mean over molecules is the density of the frame, see `LocalObservable`."""
        triplets = of_elements(system, bonded_triplets(system), self.elements, "bonded angle")
        counts = molecule_histogram(angles_deg, trajectory.positions, triplets, trajectory.in_cells(system), self.bins)
        return counts * (system.n_molecules / (len(triplets) * self.bins.width))


def bonded_triplets(system: System) -> Int[Tensor, "triplet 3"]:
    """Every pair of bonds that share an atom, once: (i, j, k) with j in the middle and i < k."""
    partners = bonded_partners(system)
    first, second = torch.triu_indices(partners.shape[1], partners.shape[1], offset=1, device=partners.device)
    center = torch.arange(system.n_atoms, device=partners.device)[:, None].expand(-1, len(first))
    triplets = torch.stack([partners[:, first], center, partners[:, second]], dim=-1).flatten(0, 1)
    return triplets[triplets[:, 2] >= 0]


def bonded_partners(system: System) -> Int[Tensor, "atom degree"]:
    """Atoms bonded to each atom, in order, padded with -1: no loop over atoms, and memory linear in their number."""
    bonds = system.bonds
    edges = torch.cat([bonds, bonds.flip(1)])  # center, partner
    edges = edges[torch.argsort(edges[:, 0] * system.n_atoms + edges[:, 1])]
    degree = torch.bincount(edges[:, 0], minlength=system.n_atoms)
    rank = torch.arange(len(edges), device=edges.device) - (degree.cumsum(0) - degree)[edges[:, 0]]
    partners = bonds.new_full((system.n_atoms, int(degree.max())), -1)
    partners[edges[:, 0], rank] = edges[:, 1]
    return partners
