"""Distribution of the tetrahedral order parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.observables import cells
from mdsim.observables.bins import Bins
from mdsim.observables.near import displacements, near_pairs
from mdsim.observables.pairs import PairKind, PairsOfRows, searchable
from mdsim.observables.sites import SiteDistribution
from mdsim.observables.tuples import atoms_of
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor

N_NEAREST = 4
FIRST_REACH_A = 4.5  # of the first search for the four nearest; five oxygens are within 3.7 Å in liquid water


@dataclass(frozen=True)
class TetrahedralOrder(SiteDistribution):
    """Probability density of q = 1 - 3/8 Σ (cos ψ_jk + 1/3)² over the atoms of an element.

    The sum is over the six pairs of the four nearest atoms of the same element, and ψ is the angle that they have at
    the central atom. q is 1 in a perfect tetrahedral network, 0 on average for random directions, and -3 at least.
    Source: Errington and Debenedetti, Nature 409, 318 (2001).

    Args:
        bin_width: width of a bin, which must divide the range.
        element: chemical symbol of the atoms.
        min_order: lower end of the range up to 1. Lower values count in the first bin.

    Raises:
        ValueError: bins that do not fill the range.
    """

    bin_width: float = 0.02
    element: str = "O"
    min_order: float = -0.5

    unit: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        _ = self.bins

    @property
    def name(self) -> str:
        return f"tetrahedral_order_{self.element}"

    @property
    def bins(self) -> Bins:
        return Bins.spanning(self.min_order, 1.0, self.bin_width)

    def sites(self, system: System) -> Int[Tensor, "site"]:
        return system.molecules[self._atoms(system)]

    def values(self, system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row site"]:
        atoms = self._atoms(system)
        nearest = nearest_of_kind(system, rows, PairKind((self.element, self.element)), N_NEAREST)
        row = torch.arange(len(rows), device=rows.device)[:, None, None].expand_as(nearest)
        arms = displacements(system, rows, row, atoms[None, :, None].expand_as(nearest), nearest)
        arms = torch.nn.functional.normalize(arms, dim=-1)
        first, second = torch.triu_indices(N_NEAREST, N_NEAREST, offset=1, device=rows.device)
        cosines = (arms[:, :, first] * arms[:, :, second]).sum(-1)
        return 1.0 - 3.0 / 8.0 * (cosines + 1.0 / 3.0).square().sum(-1)

    def _atoms(self, system: System) -> Int[Tensor, "site"]:
        atoms = torch.nonzero(atoms_of(system, self.element))[:, 0]
        if len(atoms) <= N_NEAREST:
            raise ValueError(
                f"the tetrahedral order needs {N_NEAREST + 1} atoms of {self.element}, but the system has {len(atoms)}"
            )
        return atoms


def nearest_of_kind(
    system: System, rows: Float[Tensor, "row atom 3"], kind: PairKind, count: int
) -> Int[Tensor, "row site neighbor"]:
    """The nearest atoms (minimum image) of each atom of pairs of one element, nearest first.

    Args:
        system: the system of the rows, with more than ``count`` atoms of the element.
        rows: finite positions, Å.
        kind: the pairs.
        count: number of neighbors of each atom.
    """
    atoms = kind.atoms(system)
    place = torch.full((system.n_atoms,), -1, device=rows.device)
    place[atoms] = torch.arange(len(atoms), device=rows.device)
    nearest = torch.empty(len(rows), len(atoms), count, dtype=torch.long, device=rows.device)
    missing, reach = torch.arange(len(rows), device=rows.device), FIRST_REACH_A
    while len(missing):
        if not searchable(system, len(atoms), reach):
            reach = math.inf
        pairs = near_pairs(cells.of_some(system, missing), rows[missing], kind, reach)
        found = torch.cat([_ranked(block, place, len(atoms), count) for block in pairs])
        nearest[missing] = found
        missing = missing[(found < 0).flatten(1).any(1)]
        reach *= 1.5
    return nearest


def _ranked(
    found: PairsOfRows, place: Int[Tensor, "atom"], n_sites: int, count: int
) -> Int[Tensor, "row site neighbor"]:
    """The nearest partners in the pairs found. -1 where a site has too few."""
    site = found.row.repeat(2) * n_sites + place[torch.cat([found.first, found.second])]
    partner = torch.cat([found.second, found.first])
    order = torch.argsort(found.distance.repeat(2))
    order = order[torch.argsort(site[order], stable=True)]
    site, partner = site[order], partner[order]
    n_of_site = torch.bincount(site, minlength=found.n_rows * n_sites)
    rank = torch.arange(len(site), device=site.device) - (n_of_site.cumsum(0) - n_of_site)[site]
    near = rank < count
    table = partner.new_full((found.n_rows * n_sites, count), -1)
    table[site[near], rank[near]] = partner[near]
    return table.unflatten(0, (found.n_rows, n_sites))
