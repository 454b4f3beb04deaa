"""Ends of chain molecules."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import shortest_path

from mdsim.observables.rotatable import HYDROGEN, kinds_of_molecules
from mdsim.state import System


def chain_ends(system: System) -> dict[str, tuple[tuple[int, int], ...]]:
    """The two heavy atoms with most bonds between them along the shortest path, for each kind of molecule.

    Of several such pairs, the one with the lowest indices is taken. Kinds with less than two bonded heavy atoms have no
    ends.

    Returns:
        By elements and indices of the atoms, as in ``C0_N40``: the ends, and those of the other molecules of the kind.
    """
    numbers = system.atomic_numbers.cpu().numpy()
    found = {}
    for molecules in kinds_of_molecules(system):
        first = np.array(molecules[0])
        heavy = first[numbers[first] != HYDROGEN]
        if len(heavy) < 2:
            continue
        bonds_between = shortest_path(_graph(system, heavy), directed=False, unweighted=True)
        bonds_between[~np.isfinite(bonds_between)] = 0.0  # heavy atoms that only hydrogens join
        if not bonds_between.any():
            continue
        ends = np.unravel_index(int(bonds_between.argmax()), bonds_between.shape)
        i, j = (molecules[0].index(heavy[end]) for end in sorted(ends))
        name = "_".join(f"{chemical_symbols[numbers[atom]]}{atom}" for atom in (first[i], first[j]))
        found[name] = tuple((one[i], one[j]) for one in molecules)
    return found


def _graph(system: System, atoms: np.ndarray) -> coo_matrix:
    """Bonds between the given atoms, numbered by their place."""
    place = np.full(system.n_atoms, -1)
    place[atoms] = np.arange(len(atoms))
    bonds = place[system.bonds.cpu().numpy()]
    bonds = bonds[(bonds >= 0).all(1)]
    return coo_matrix((np.ones(len(bonds)), bonds.T), shape=(len(atoms), len(atoms)))
