"""Histograms of pair distances in many frames, in time linear in the number of atoms for short ranges.

For few atoms, or a range comparable to the cell, all pairs are visited. For many atoms a neighbor search finds the
pairs. Both give the same distances within rounding (bit for bit as tensor operations). They could only differ in the
choice of image at exactly half a cell, which is beyond the range of a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from mdsim.geometry import all_pairs, half_height_A, largest_cell, pair_distances
from mdsim.neighbors import candidates_per_pair, pairs_within
from mdsim.observables import cells
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import (
    SMEARING_REACH,
    VALUES_PER_CHUNK,
    counts_are_compiled,
    finite_frames,
    histograms_of_tables,
    molecule_histogram,
    smeared_histograms_of_tables,
    smearing_stencil,
    tuple_histogram,
)
from mdsim.observables.tuples import atomic_number, of_elements
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor

ATOMS_AT_ONCE = 2**12  # searched together: bounds the memory of the pairs found
# All pairs are visited for fewer atoms (limits for tensor operations and for compiled loops) or if a search saves less.
FEW_ATOMS, FEW_ATOMS_COMPILED, MOST_CANDIDATES_PER_PAIR = 128, 512, 1 / 3
MARGIN = 1.001  # the search reaches slightly beyond the range, because its upper edge is included


@dataclass(frozen=True)
class PairKind:
    """A selection of atom pairs.

    Args:
        elements: two chemical symbols in any order. None: all pairs.
        same_molecule: True keeps pairs within a molecule, False pairs between molecules. None: both.
    """

    elements: tuple[str, str] | None = None
    same_molecule: bool | None = None

    def all_of(self, system: System) -> Int[Tensor, "pair 2"]:
        """All selected pairs.

        Raises:
            ValueError: there are none.
        """
        pairs = all_pairs(system.n_atoms, system.atomic_numbers.device)
        if self.same_molecule is None:
            return of_elements(system, pairs, self.elements, "pair")
        same = system.molecules[pairs[:, 0]] == system.molecules[pairs[:, 1]]
        noun = "pair within a molecule" if self.same_molecule else "pair between molecules"
        return of_elements(system, pairs[same == self.same_molecule], self.elements, noun)

    def atoms(self, system: System) -> Int[Tensor, "chosen"]:
        """Atoms that can be part of a selected pair."""
        return torch.nonzero(torch.stack(self._members(system)).any(0))[:, 0]

    def count(self, system: System) -> int:
        """Number of selected pairs, without listing them.

        Raises:
            ValueError: there are none.
        """
        return self.number(system) or len(self.all_of(system))  # raises an error that lists the elements

    def number(self, system: System) -> int:
        """Number of selected pairs, possibly zero."""
        alike = self.elements is None or self.elements[0] == self.elements[1]
        members = self._members(system)
        first, second = (member.sum()[None] for member in members)
        total = int(_pairs_between(first, second, alike))
        if self.same_molecule is not None:
            n_molecules = system.n_molecules
            first, second = (torch.bincount(system.molecules[m], minlength=n_molecules) for m in members)
            within = int(_pairs_between(first, second, alike).sum())
            return within if self.same_molecule else total - within
        return total

    def holds(self, system: System, first: Int[Tensor, "pair"], second: Int[Tensor, "pair"]) -> Bool[Tensor, "pair"]:
        """Mask of the given pairs that are selected."""
        one, other = self._members(system)
        right = (one[first] & other[second]) | (other[first] & one[second])
        if self.same_molecule is not None:
            right &= (system.molecules[first] == system.molecules[second]) == self.same_molecule
        return right

    def _members(self, system: System) -> list[Bool[Tensor, "atom"]]:
        """Masks of the atoms that can be the first and the second atom of a pair."""
        if self.elements is None:
            return [torch.ones_like(system.atomic_numbers, dtype=torch.bool)] * 2
        return [system.atomic_numbers == atomic_number(symbol) for symbol in self.elements]


def _pairs_between(one: Int[Tensor, "group"], other: Int[Tensor, "group"], alike: bool) -> Int[Tensor, "group"]:
    """Number of pairs in each group, from the numbers of atoms of both kinds (``alike``: one kind, given twice)."""
    return one * (one - 1) // 2 if alike else one * other


def check_range(system: System, max_distance_A: float) -> None:
    """Check that the minimum image gives all distances up to the largest one.

    Moving cells are not checked, as pairs beyond are searched for where they become too small.

    Raises:
        ValueError: it is beyond half the smallest height of a periodic cell.
    """
    if system.cell is None or system.cell.ndim > 2:
        return
    half_A = half_height_A(system.cell)
    if max_distance_A > half_A * (1.0 + 1e-6):
        raise ValueError(
            f"max_distance_A = {max_distance_A} is beyond half the smallest height of the cell, {half_A:.4f} Å, "
            "where the minimum image misses pairs: use a shorter range or a larger cell"
        )


def searchable(system: System, n_atoms: int, reach_A: float, few_atoms: int = FEW_ATOMS) -> bool:
    """Whether a search finds the pairs of ``n_atoms`` atoms within ``reach_A`` much faster than visiting all pairs.

    In moving cells also where it finds pairs that the minimum image misses.
    """
    cell, reach_A = system.cell, MARGIN * reach_A
    if cell is not None and cell.ndim > 2:
        if reach_A >= half_height_A(cell):  # the minimum image misses pairs, which a search finds
            return True
        cell = largest_cell(cell)
    if n_atoms < few_atoms or candidates_per_pair(cell, n_atoms, reach_A) > MOST_CANDIDATES_PER_PAIR:
        return False
    return cell is None or reach_A < half_height_A(cell)


@dataclass(frozen=True)
class PairsOfRows:
    """Pairs found in a block of rows of positions."""

    n_rows: int
    row: Int[Tensor, "pair"]
    first: Int[Tensor, "pair"]
    second: Int[Tensor, "pair"]
    distance: Float[Tensor, "pair"]  # Å

    def chosen(self, index: Int[Tensor, "chosen"]) -> PairsOfRows:
        """Some of the pairs."""
        return PairsOfRows(
            self.n_rows, *(values[index] for values in (self.row, self.first, self.second, self.distance))
        )


def search(system: System, rows: Float[Tensor, "row atom 3"], kind: PairKind, reach_A: float) -> Iterator[PairsOfRows]:
    """Selected pairs within ``reach_A``, block by block of rows. A few longer pairs may be included.

    Args:
        system: the system of the rows, with one cell or one for each row.
        rows: finite positions, Å.
        kind: selection of pairs.
        reach_A: longest distance of interest.
    """
    atoms = kind.atoms(system)
    size = max(1, ATOMS_AT_ONCE // len(atoms))
    for some, of_these in zip(rows.split(size), cells.split(system.cell, len(rows), size), strict=True):
        positions = some[:, atoms]
        found = pairs_within(of_these, positions, MARGIN * reach_A)
        first, second = atoms[found.first % len(atoms)], atoms[found.second % len(atoms)]
        distance = torch.linalg.vector_norm(found.displacements(positions), dim=-1)
        kept = torch.nonzero(kind.holds(system, first, second) & (first != second))[:, 0]
        row = torch.div(found.first, len(atoms), rounding_mode="floor")
        yield PairsOfRows(len(some), row, first, second, distance).chosen(kept)


def pair_histogram(
    system: System,
    positions: Float[Tensor, "frame replica atom 3"],
    kind: PairKind,
    bins: Bins,
    smearing: float | None = None,
) -> Float[Tensor, "frame replica bin"]:
    """Histogram of minimum-image pair distances. NaN if a coordinate of the frame is non-finite.

    Args:
        system: the system of the frames.
        positions: Å.
        kind: selection of pairs.
        bins: bins of the distances, Å.
        smearing: see `smeared_histogram`, Å. None: a plain histogram.
    """
    reach = bins.stop if smearing is None else bins.stop + SMEARING_REACH * smearing
    few_atoms = _few_atoms(system, positions) if smearing is None else FEW_ATOMS
    if not searchable(system, len(kind.atoms(system)), reach, few_atoms):
        return tuple_histogram(pair_distances, positions, kind.all_of(system), system.cell, bins, smearing)

    def count(found: PairsOfRows) -> Float[Tensor, "row bin"]:
        if smearing is None:
            return histograms_of_tables(found.distance, bins, found.row, found.n_rows).to(positions)
        at_once = VALUES_PER_CHUNK // smearing_stencil(bins, smearing)
        parts = zip(found.distance.split(at_once), found.row.split(at_once), strict=True)
        some = [smeared_histograms_of_tables(values, bins, smearing, rows, found.n_rows) for values, rows in parts]
        return torch.stack(some).sum(0)

    return _of_finite_frames(
        system,
        positions,
        (bins.count,),
        lambda of_these, rows: [count(found) for found in search(of_these, rows, kind, reach)],
    )


def molecule_pair_histogram(
    system: System, positions: Float[Tensor, "frame replica atom 3"], kind: PairKind, bins: Bins
) -> Float[Tensor, "frame replica molecule bin"]:
    """Contribution of each molecule to the plain `pair_histogram`. A pair is split equally between its molecules."""
    if not searchable(system, len(kind.atoms(system)), bins.stop, _few_atoms(system, positions)):
        return molecule_histogram(pair_distances, positions, kind.all_of(system), system, bins)
    n_molecules = system.n_molecules

    def count(found: PairsOfRows) -> Float[Tensor, "row molecule bin"]:
        of_both = [n_molecules * found.row + system.molecules[atoms] for atoms in (found.first, found.second)]
        n_tables = n_molecules * found.n_rows
        tables = torch.stack([histograms_of_tables(found.distance, bins, tables, n_tables) for tables in of_both])
        return tables.sum(0).to(positions).unflatten(0, (found.n_rows, n_molecules)) / 2

    return _of_finite_frames(
        system,
        positions,
        (n_molecules, bins.count),
        lambda of_these, rows: [count(found) for found in search(of_these, rows, kind, bins.stop)],
    )


def _few_atoms(system: System, positions: Tensor) -> int:
    """Number of atoms up to which the plain histogram visits all pairs."""
    return FEW_ATOMS_COMPILED if counts_are_compiled(pair_distances, positions, system.cell) else FEW_ATOMS


def _of_finite_frames(
    system: System,
    positions: Float[Tensor, "frame replica atom 3"],
    shape: tuple[int, ...],
    function: Callable[[System, Tensor], list[Tensor]],
) -> Float[Tensor, "frame replica *shape"]:
    """Apply a function to the finite rows of positions and to their system, in pieces. Other rows are NaN."""
    rows, system = positions.flatten(0, 1), replace(system, cell=cells.of_rows(system.cell))
    chosen = torch.nonzero(finite_frames(positions).reshape(-1))[:, 0]
    result = positions.new_full((len(rows), *shape), torch.nan)
    if len(chosen):
        result = result.index_copy(0, chosen, torch.cat(function(cells.of_some(system, chosen), rows[chosen])))
    return result.unflatten(0, positions.shape[:2])
