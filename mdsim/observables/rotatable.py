"""Rotatable bonds of molecules, and the dihedral angle that describes the rotation about each of them.

A bond is rotatable if

- it is in no ring,
- each of its atoms has a further neighbor that the rotation moves: another heavy atom or a single hydrogen, but not
  the equivalent hydrogens of a methyl, amino or ammonium group alone, and
- neither of its atoms is a carbon with two neighbors, whose bonds are on a line, so that the angle is undefined.

Bond orders are not known. Amide and double bonds are therefore included; their dihedrals tell cis from trans.

The dihedral about a bond ends, on each side, in the neighbor that continues the main chain: the one with most bonds to
heavy atoms, then with most bonds, then the heaviest, then the one with the lowest index. In a peptide, these are φ, ψ
and ω.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from ase.data import chemical_symbols
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from mdsim.state import System

HYDROGEN, CARBON = 1, 6

#: Indices of the atoms i, j, k, l of a dihedral angle about the bond j-k.
Quadruplet = tuple[int, int, int, int]
Atoms = TypeVar("Atoms", bound=tuple[int, ...])


def rotatable_dihedrals(system: System) -> dict[str, tuple[Quadruplet, ...]]:
    """A dihedral for each rotatable bond of each kind of molecule.

    Returns:
        By elements and indices of the atoms, as in ``C4_N6_C8_C14``: the dihedral and its copies in the other molecules
        of the same kind, in the order of the bonds.
    """
    numbers, neighbors, kinds = system.atomic_numbers.tolist(), _neighbors(system), kinds_of_molecules(system)
    firsts = {atom for molecules in kinds for atom in molecules[0]}
    found = {}
    for j, k in _rotatable_bonds(system, neighbors):
        if j in firsts:
            quadruplet = (_end(j, k, neighbors, numbers), j, k, _end(k, j, neighbors, numbers))
            name = "_".join(f"{chemical_symbols[numbers[atom]]}{atom}" for atom in quadruplet)
            found[name] = _copies(kinds, quadruplet)
    return found


def copies(system: System, atoms: Atoms) -> tuple[Atoms, ...]:
    """Some atoms and the same ones of all other molecules of their kind, or alone if they are not in one molecule."""
    return _copies(kinds_of_molecules(system), atoms)


def _copies(kinds: list[list[list[int]]], atoms: Atoms) -> tuple[Atoms, ...]:
    for molecules in kinds:
        for own in molecules:
            if set(atoms) <= set(own):
                places = [own.index(atom) for atom in atoms]
                others = [one for one in molecules if one is not own]
                return tuple(tuple(one[place] for place in places) for one in (own, *others))  # type: ignore[misc]
    return (atoms,)


def ring_bonds(system: System) -> np.ndarray:
    """Mask of the bonds that are in a ring.

    Every bond that is not in a spanning tree closes one ring, along the paths from its atoms to where they meet.
    """
    first, second = system.bonds.cpu().numpy().T
    depth, parent = _spanning_tree(system)
    closing = (parent[first] != second) & (parent[second] != first)
    in_ring = np.zeros(system.n_atoms + 1, dtype=bool)  # the bond from an atom to its parent
    one, other = first[closing], second[closing]
    while len(one):
        lower, upper = np.where(depth[one] >= depth[other], (one, other), (other, one))
        in_ring[lower] = True
        one, other = parent[lower], upper
        one, other = one[one != other], other[one != other]
    return closing | in_ring[np.where(parent[first] == second, first, second)]


def _spanning_tree(system: System) -> tuple[np.ndarray, np.ndarray]:
    """Depth and parent of each atom in a tree that joins the molecules at an additional root."""
    root = system.n_atoms
    heads = np.unique(system.molecules.cpu().numpy(), return_index=True)[1]
    first, second = np.concatenate([system.bonds.cpu().numpy(), np.stack([heads, np.full_like(heads, root)], 1)]).T
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(root + 1, root + 1))
    depth, parent = dijkstra(graph, directed=False, indices=root, unweighted=True, return_predecessors=True)
    return depth, parent


def _rotatable_bonds(system: System, neighbors: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    numbers = system.atomic_numbers.tolist()

    def turns(atom: int, other: int) -> bool:
        further = [numbers[neighbor] for neighbor in neighbors[atom] if neighbor != other]
        if numbers[atom] == CARBON and len(further) < 2:
            return False
        return any(number != HYDROGEN for number in further) or further == [HYDROGEN]

    for (j, k), ring in zip(system.bonds.tolist(), ring_bonds(system), strict=True):
        if not ring and turns(j, k) and turns(k, j):
            yield j, k


def _end(atom: int, other: int, neighbors: Sequence[Sequence[int]], numbers: Sequence[int]) -> int:
    """The neighbor of ``atom`` in which the dihedral about its bond to ``other`` ends."""

    def rank(neighbor: int) -> tuple[int, int, int, int]:
        heavy = sum(numbers[further] != HYDROGEN for further in neighbors[neighbor])
        return heavy, len(neighbors[neighbor]), numbers[neighbor], -neighbor

    return max((neighbor for neighbor in neighbors[atom] if neighbor != other), key=rank)


def _neighbors(system: System) -> list[list[int]]:
    neighbors: list[list[int]] = [[] for _ in range(system.n_atoms)]
    for i, j in system.bonds.tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    return neighbors


def kinds_of_molecules(system: System) -> list[list[list[int]]]:
    """The atoms of each molecule, by kind: molecules with the same elements and bonds, in the same order."""
    atoms: list[list[int]] = [[] for _ in range(system.n_molecules)]
    place = [0] * system.n_atoms
    molecules = system.molecules.tolist()
    for atom, molecule in enumerate(molecules):
        place[atom] = len(atoms[molecule])
        atoms[molecule].append(atom)
    bonds: list[list[tuple[int, int]]] = [[] for _ in atoms]
    for i, j in system.bonds.tolist():
        bonds[molecules[i]].append((place[i], place[j]))
    numbers = system.atomic_numbers.tolist()
    kinds: dict[tuple, list[list[int]]] = {}
    for members, own in zip(atoms, bonds, strict=True):
        kinds.setdefault((*(numbers[atom] for atom in members), *sorted(own)), []).append(members)
    return list(kinds.values())
