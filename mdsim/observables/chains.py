"""Distributions of the size of molecules: radius of gyration and end-to-end distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import pair_distances, whole_molecules
from mdsim.observables.bins import Bins
from mdsim.observables.sites import SiteDistribution
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class RadiusOfGyration(SiteDistribution):
    """Probability density in 1/Å of the mass-weighted radius of gyration, over the molecules of two or more atoms.

    R_g² = Σ m_i |r_i - r_com|² / Σ m_i, for molecules made whole along their bonds.

    Args:
        max_radius_A: upper end of the range.
        bin_width_A: width of a bin, which must divide the range.
        min_radius_A: lower end of the range.

    Raises:
        ValueError: bins that do not fill the range.
    """

    max_radius_A: float
    bin_width_A: float
    min_radius_A: float = 0.0

    name: ClassVar[str] = "radius_of_gyration"
    unit: ClassVar[str] = "Å"

    def __post_init__(self) -> None:
        _ = self.bins

    @property
    def bins(self) -> Bins:
        return Bins.spanning(self.min_radius_A, self.max_radius_A, self.bin_width_A)

    def sites(self, system: System) -> Int[Tensor, "site"]:
        sites = torch.nonzero(torch.bincount(system.molecules) > 1)[:, 0]
        if not len(sites):
            raise ValueError("the radius of gyration needs a molecule of two atoms, but all atoms are alone")
        return sites

    def values(self, system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row site"]:
        return radii_of_gyration_A(system, rows)[:, self.sites(system)]


def radii_of_gyration_A(system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row molecule"]:
    """Mass-weighted radius of gyration of each molecule in Å, zero for single atoms.

    Args:
        system: masses, bonds and molecules.
        rows: positions in Å, wrapped or not.
    """
    whole = whole_molecules(rows, system.bonds, system.cell)
    masses = system.masses.to(rows)
    shares = masses / masses.new_zeros(system.n_molecules).index_add(0, system.molecules, masses)[system.molecules]
    weighted = shares[:, None] * whole
    centers = rows.new_zeros(len(rows), system.n_molecules, 3).index_add(1, system.molecules, weighted)
    squares = shares * (whole - centers[:, system.molecules]).square().sum(-1)
    return rows.new_zeros(len(rows), system.n_molecules).index_add(1, system.molecules, squares).sqrt()


@dataclass(frozen=True)
class EndToEndDistance(SiteDistribution):
    """Probability density in 1/Å of the distance between the ends of molecules, which are made whole along their bonds.

    Args:
        ends: indices of both end atoms, for each molecule that has them. `chain_ends` finds those of chains.
        max_distance_A: upper end of the range.
        bin_width_A: width of a bin, which must divide the range.
        label: added to the name of the results.
        min_distance_A: lower end of the range.

    Raises:
        ValueError: no ends, twice the same atom, or bins that do not fill the range.
    """

    ends: tuple[tuple[int, int], ...]
    max_distance_A: float
    bin_width_A: float
    label: str = ""
    min_distance_A: float = 0.0

    unit: ClassVar[str] = "Å"

    def __post_init__(self) -> None:
        _ = self.bins
        if not self.ends:
            raise ValueError("an end-to-end distance needs at least one pair of atoms")
        for pair in self.ends:
            if len(pair) != 2 or pair[0] == pair[1] or min(pair) < 0:
                raise ValueError(f"the ends of a molecule are two different atoms, found {list(pair)}")

    @property
    def name(self) -> str:
        return "end_to_end" + (f"_{self.label}" if self.label else "")

    @property
    def bins(self) -> Bins:
        return Bins.spanning(self.min_distance_A, self.max_distance_A, self.bin_width_A)

    def sites(self, system: System) -> Int[Tensor, "site"]:
        ends = self._pairs(system)
        one, other = (system.molecules[column] for column in ends.T)
        if (one != other).any():
            apart = ends[one != other][0].tolist()
            raise ValueError(f"end_to_end: atoms {apart} are not in one molecule")
        return one

    def values(self, system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row site"]:
        return pair_distances(whole_molecules(rows, system.bonds, system.cell), self._pairs(system))

    def _pairs(self, system: System) -> Int[Tensor, "site 2"]:
        if missing := [pair for pair in self.ends if max(pair) >= system.n_atoms]:
            raise ValueError(f"end_to_end: atoms {list(missing[0])}: the system has 0 to {system.n_atoms - 1}")
        return torch.tensor(self.ends, device=system.bonds.device)
