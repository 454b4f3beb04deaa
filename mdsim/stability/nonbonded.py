"""Closest nonbonded contacts of many structures, by element pair, within molecules and between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

import torch
from ase.data import chemical_symbols
from ase.data.vdw_alvarez import vdw_radii

from mdsim.geometry import all_pairs, pair_distances
from mdsim.observables import cells
from mdsim.observables.histogram import VALUES_PER_CHUNK, finite_frames
from mdsim.observables.pairs import PairKind, search, searchable
from mdsim.stability.topology import pairs_held_by_bonds
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor

ALL_PAIRS = PairKind()
UNKNOWN_RADIUS_A = 2.0  # of elements without a van der Waals radius in the table


@dataclass(frozen=True, eq=False)
class Contacts:
    """Nonbonded pairs of a system, sorted into kinds: by element pair, within one molecule or between two.

    Pairs within a molecule are nonbonded from three bonds on (1-4 and farther).
    """

    system: System

    @cached_property
    def elements(self) -> list[int]:
        """Atomic numbers, each once."""
        return sorted(set(self.system.atomic_numbers.tolist()))

    @cached_property
    def names(self) -> list[str]:
        """A name per kind: those within molecules, then, if there are several molecules, those between them."""
        pairs = ["-".join(chemical_symbols[number] for number in pair) for pair in self.element_pairs]
        between = [f"contact {pair} between molecules" for pair in pairs] if self.system.n_molecules > 1 else []
        return [f"contact {pair}" for pair in pairs] + between

    @cached_property
    def van_der_waals_A(self) -> Float[Tensor, "kind"]:
        """Sum of the van der Waals radii of each kind, Å (Alvarez, Dalton Trans. 42, 8617 (2013))."""
        radii = torch.nan_to_num(torch.tensor(vdw_radii, dtype=torch.float64), nan=UNKNOWN_RADIUS_A)
        sums = radii[torch.tensor(self.element_pairs)].sum(-1)
        return sums.repeat(len(self.names) // len(sums))

    def closest_A(
        self,
        positions: Float[Tensor, "row atom 3"],
        reach_A: float,
        cell: Float[Tensor, "*row 3 3"] | None = None,
    ) -> Float[Tensor, "row kind"]:
        """Shortest distance of each kind in each structure. At least all contacts within the reach are considered.

        Args:
            positions: Å.
            reach_A: longest distance of interest.
            cell: Å, one for all rows or one for each. None: that of the system.

        Returns:
            Distances in Å, infinite where there is no pair. NaN or infinite if a coordinate is not finite.
        """
        system = self.system if cell is None else replace(self.system, cell=cell)
        if not searchable(system, system.n_atoms, reach_A):
            return self._among_all(system, positions)
        finite = finite_frames(positions[None])[0]
        closest = positions.new_full((len(positions), len(self.names)), torch.inf)
        return closest.index_put((finite,), self._found(cells.of_some(system, finite), positions[finite], reach_A))

    def _among_all(self, system: System, positions: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row kind"]:
        closest = positions.new_full((len(positions), len(self.names)), torch.inf)
        for pairs, kinds in zip(self._pairs.split(VALUES_PER_CHUNK), self._kinds.split(VALUES_PER_CHUNK), strict=True):
            if not len(pairs):  # bonds hold all atoms together
                break
            parts = []
            size = max(1, VALUES_PER_CHUNK // len(pairs))
            of_rows = cells.split(system.cell, len(positions), size)
            for rows, of_these in zip(positions.split(size), of_rows, strict=True):
                distances = pair_distances(rows, pairs, of_these)
                empty = rows.new_full((len(rows), len(self.names)), torch.inf)
                parts.append(empty.scatter_reduce(1, kinds.expand_as(distances), distances, "amin"))
            closest = torch.minimum(closest, torch.cat(parts))
        return closest

    def _found(
        self, system: System, positions: Float[Tensor, "row atom 3"], reach_A: float
    ) -> Float[Tensor, "row kind"]:
        """The distances in finite structures, by a neighbor search."""
        parts = []
        for found in search(system, positions, ALL_PAIRS, reach_A):
            low, high = torch.minimum(found.first, found.second), torch.maximum(found.first, found.second)
            nonbonded = ~torch.isin(self._code(low, high), self._held)
            places = found.row * len(self.names) + self._kind(low, high)
            table = positions.new_full((found.n_rows * len(self.names),), torch.inf)
            distances = torch.where(nonbonded, found.distance, torch.inf)
            parts.append(table.scatter_reduce(0, places, distances, "amin").unflatten(0, (found.n_rows, -1)))
        return torch.cat(parts) if parts else positions.new_full((0, len(self.names)), torch.inf)

    @cached_property
    def element_pairs(self) -> list[tuple[int, int]]:
        """The pairs of elements, in the order of the kinds."""
        return list(combinations_with_replacement(self.elements, 2))

    @cached_property
    def _pairs(self) -> Int[Tensor, "pair 2"]:
        pairs = all_pairs(self.system.n_atoms, self.system.atomic_numbers.device)
        return pairs[~torch.isin(self._code(*pairs.T), self._held)]

    @cached_property
    def _kinds(self) -> Int[Tensor, "pair"]:
        return self._kind(*self._pairs.T)

    @cached_property
    def _held(self) -> Int[Tensor, "pair"]:
        return self._code(*pairs_held_by_bonds(self.system).T)

    def _code(self, low: Int[Tensor, "pair"], high: Int[Tensor, "pair"]) -> Int[Tensor, "pair"]:
        return low * self.system.n_atoms + high

    def _kind(self, first: Int[Tensor, "pair"], second: Int[Tensor, "pair"]) -> Int[Tensor, "pair"]:
        between = self.system.molecules[first] != self.system.molecules[second]
        return self._table[self._element[first], self._element[second]] + between * len(self.element_pairs)

    @cached_property
    def _element(self) -> Int[Tensor, "atom"]:
        return torch.unique(self.system.atomic_numbers, return_inverse=True)[1]

    @cached_property
    def _table(self) -> Int[Tensor, "element element"]:
        """Number of each pair of elements, in either order."""
        n = len(self.elements)
        first, second = torch.tensor(list(combinations_with_replacement(range(n), 2))).T
        table = torch.zeros(n, n, dtype=torch.long)
        table[first, second] = table[second, first] = torch.arange(len(first))
        return table.to(self.system.atomic_numbers.device)
