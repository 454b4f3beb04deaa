"""Distribution of coordination numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.observables.bins import Bins
from mdsim.observables.near import near_pairs
from mdsim.observables.pairs import PairKind, check_range
from mdsim.observables.sites import SiteDistribution
from mdsim.observables.tuples import atoms_of
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class CoordinationNumber(SiteDistribution):
    """Probability density of the number of neighbors of an element within a distance, over the atoms of another one.

    With a sharp cutoff the numbers are integers, and the bins are 1 wide. With a switching width w, a neighbor at
    distance r counts as s(r) = ½ [1 + cos(π (r - r_c + w/2) / w)] between r_c - w/2 and r_c + w/2, 1 before and 0
    beyond.

    Args:
        pair: chemical symbols of the central atoms and of the neighbors.
        cutoff_A: distance r_c; in a periodic system at most half the smallest height of the cell.
        max_number: upper end of the range. Larger numbers count in the last bin.
        switching_width_A: width w. None: a sharp cutoff.
        bin_width: width of a bin with a switching width, which must divide ``max_number``.
        intermolecular_only: leave out neighbors in the same molecule.

    Raises:
        ValueError: a cutoff or width that is not positive, or bins that do not fill the range.
    """

    pair: tuple[str, str]
    cutoff_A: float
    max_number: int = 12
    switching_width_A: float | None = None
    bin_width: float = 0.25
    intermolecular_only: bool = False

    unit: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        width = self.switching_width_A
        if not self.cutoff_A > 0 or (width is not None and not 0 < width < 2 * self.cutoff_A):
            raise ValueError(
                f"cutoff_A must be positive and switching_width_A shorter than twice as long, found {self.cutoff_A} "
                f"and {width}"
            )
        _ = self.bins

    @property
    def name(self) -> str:
        return "coordination_" + "".join(self.pair) + ("_intermolecular" if self.intermolecular_only else "")

    @property
    def bins(self) -> Bins:
        if self.switching_width_A is None:
            return Bins(-0.5, 1.0, self.max_number + 1)
        return Bins.spanning(0.0, float(self.max_number), self.bin_width)

    def sites(self, system: System) -> Int[Tensor, "site"]:
        return system.molecules[self._centers(system)]

    def values(self, system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row site"]:
        half_width = 0.0 if self.switching_width_A is None else 0.5 * self.switching_width_A
        check_range(system, self.cutoff_A + half_width)
        kind = PairKind(self.pair, same_molecule=False if self.intermolecular_only else None)
        center, neighbor = (atoms_of(system, symbol) for symbol in self.pair)
        numbers = []
        for found in near_pairs(system, rows, kind, self.cutoff_A + half_width):
            counted = self._switch(found.distance)
            table = rows.new_zeros(found.n_rows, system.n_atoms)
            for one, other in ((found.first, found.second), (found.second, found.first)):
                share = torch.where(center[one] & neighbor[other], counted, 0.0)
                table.index_put_((found.row, one), share, accumulate=True)
            numbers.append(table)
        return torch.cat(numbers)[:, self._centers(system)]

    def _switch(self, distance: Float[Tensor, "pair"]) -> Float[Tensor, "pair"]:
        if self.switching_width_A is None:
            return torch.ones_like(distance)
        beyond = ((distance - self.cutoff_A) / self.switching_width_A + 0.5).clamp(0.0, 1.0)
        return 0.5 * (1.0 + torch.cos(math.pi * beyond))

    def _centers(self, system: System) -> Int[Tensor, "site"]:
        return torch.nonzero(atoms_of(system, self.pair[0]))[:, 0]
