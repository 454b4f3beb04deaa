"""Distribution of the number of hydrogen bonds of a molecule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.observables import cells
from mdsim.observables.adf import bonded_partners
from mdsim.observables.bins import Bins
from mdsim.observables.near import displacements, near_pairs
from mdsim.observables.pairs import PairKind, PairsOfRows, check_range
from mdsim.observables.rotatable import HYDROGEN
from mdsim.observables.sites import SiteDistribution
from mdsim.observables.tuples import atomic_number, elements_of
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class HydrogenBonds(SiteDistribution):
    """Probability of the number of hydrogen bonds of a molecule, given and accepted ones together.

    A hydrogen atom H bonded to a donor D makes a bond with an acceptor A of another molecule if the distance D-A is
    below ``max_distance_A`` and the angle H-D-A below ``max_angle_deg``. Source: Luzar and Chandler, Nature 379, 55
    (1996). Molecules without a donor or acceptor are left out.

    Args:
        max_distance_A: longest distance between donor and acceptor.
        max_angle_deg: largest angle H-D-A.
        elements: chemical symbols of donors and acceptors.
        max_number: upper end of the range. Larger numbers count in the last bin.

    Raises:
        ValueError: a limit that is not positive, or no element.
    """

    max_distance_A: float = 3.5
    max_angle_deg: float = 30.0
    elements: tuple[str, ...] = ("O",)
    max_number: int = 8

    unit: ClassVar[str] = "1"
    name: ClassVar[str] = "hydrogen_bonds"

    def __post_init__(self) -> None:
        if not (self.max_distance_A > 0 and 0 < self.max_angle_deg <= 180 and self.max_number > 0 and self.elements):
            raise ValueError(
                "hydrogen bonds need elements, a positive distance and number, and an angle of at most 180 degrees; "
                f"found {self.elements}, {self.max_distance_A} Å, {self.max_number}, {self.max_angle_deg} degrees"
            )

    @property
    def bins(self) -> Bins:
        return Bins(-0.5, 1.0, self.max_number + 1)

    def sites(self, system: System) -> Int[Tensor, "site"]:
        return torch.unique(system.molecules[self._heavy(system)])

    def values(self, system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row site"]:
        check_range(system, self.max_distance_A)
        heavy, hydrogens = self._heavy(system), self._hydrogens(system)
        kind = PairKind(None if len(self.elements) > 1 else (self.elements[0],) * 2, same_molecule=False)
        numbers = []
        start = 0
        for found in near_pairs(system, rows, kind, self.max_distance_A):
            here = slice(start, start + found.n_rows)
            start += found.n_rows
            pairs = found.chosen(torch.nonzero(heavy[found.first] & heavy[found.second])[:, 0])
            numbers.append(self._bonds_of_molecules(cells.of_some(system, here), rows[here], pairs, hydrogens))
        return torch.cat(numbers)[:, self.sites(system)]

    def _bonds_of_molecules(
        self,
        system: System,
        rows: Float[Tensor, "row atom 3"],
        pairs: PairsOfRows,
        hydrogens: Int[Tensor, "atom hydrogen"],
    ) -> Float[Tensor, "row molecule"]:
        table = rows.new_zeros(pairs.n_rows, system.n_molecules)
        for donor, acceptor in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
            bonds = self._bonds(system, rows, pairs.row, donor, acceptor, hydrogens[donor]).to(table)
            for atom in (donor, acceptor):
                table.index_put_((pairs.row, system.molecules[atom]), bonds, accumulate=True)
        return table

    def _bonds(
        self,
        system: System,
        rows: Float[Tensor, "row atom 3"],
        row: Int[Tensor, "pair"],
        donor: Int[Tensor, "pair"],
        acceptor: Int[Tensor, "pair"],
        hydrogens: Int[Tensor, "pair hydrogen"],
    ) -> Int[Tensor, "pair"]:
        """Number of hydrogens of each donor that point to its acceptor."""
        axis = displacements(system, rows, row, donor, acceptor)[:, None]
        many, center = row[:, None].expand_as(hydrogens), donor[:, None].expand_as(hydrogens)
        arms = displacements(system, rows, many, center, hydrogens.clamp_min(0))
        cosine = (axis * arms).sum(-1)
        limit = math.cos(math.radians(self.max_angle_deg))
        lengths = torch.linalg.vector_norm(axis, dim=-1) * torch.linalg.vector_norm(arms, dim=-1)
        return ((hydrogens >= 0) & (cosine > limit * lengths)).sum(-1)

    def _heavy(self, system: System) -> Bool[Tensor, "atom"]:
        """Mask of the donors and acceptors."""
        wanted = torch.tensor([atomic_number(symbol) for symbol in self.elements], device=system.molecules.device)
        heavy = torch.isin(system.atomic_numbers, wanted)
        if not heavy.any():
            raise ValueError(
                f"the system (elements {elements_of(system)}) has no donor or acceptor of {', '.join(self.elements)}"
            )
        return heavy

    def _hydrogens(self, system: System) -> Int[Tensor, "atom hydrogen"]:
        """Hydrogens bonded to each atom, padded with -1.

        Raises:
            ValueError: no donor has one.
        """
        if not len(system.bonds):
            raise ValueError("hydrogen bonds need donors with bonded hydrogens, but the system has no bonds")
        partners = bonded_partners(system)
        is_hydrogen = (partners >= 0) & (system.atomic_numbers[partners.clamp_min(0)] == HYDROGEN)
        if not (is_hydrogen & self._heavy(system)[:, None]).any():
            raise ValueError(f"no {' or '.join(self.elements)} atom of the system has a bonded hydrogen")
        return torch.where(is_hydrogen, partners, -1)
