"""The pairs of atoms that repel each other: all of them, those without a bond, or those of different molecules."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.sparse import coo_matrix, triu

from mdsim.state import System
from mdsim.typing import Bool, Int, Tensor

#: The names of the selections, in configurations and checkpoints.
SELECTIONS = ("nonbonded", "between_molecules", "all")


def selected(
    selection: str, system: System, first: Int[Tensor, "pair"], second: Int[Tensor, "pair"]
) -> Bool[Tensor, "pair"]:
    """Mask of the pairs that repel each other.

    Periodic images of an atom count as that atom: two atoms that are bonded repel each other through no image, and a
    molecule does not repel its own images. This matters in cells hardly larger than a molecule.

    Args:
        selection: ``all``; ``nonbonded``: not the ends of a bond (1-2) or of an angle (1-3); or ``between_molecules``.
        system: the bonds and the molecules.
        first, second: atoms of one replica.
    """
    if selection == "all":
        return torch.ones_like(first, dtype=torch.bool)
    if selection == "between_molecules":
        return system.molecules[first] != system.molecules[second]
    n_atoms = int(system.n_atoms)  # while a model is traced, a tensor; a trace with bonds is for one system alone
    bonded = _bonded_keys(system.bonds, n_atoms)
    keys = torch.minimum(first, second) * n_atoms + torch.maximum(first, second)
    place = torch.searchsorted(bonded, keys).clamp(max=len(bonded) - 1)
    return bonded[place] != keys


@lru_cache(maxsize=16)  # a tensor is a good key: it is equal to itself alone, and strained systems share it
def _bonded_keys(bonds: Int[Tensor, "bond 2"], n_atoms: int) -> Int[Tensor, "key"]:
    """Sorted numbers i * n_atoms + j of the pairs i < j with one or two bonds between them, and -1."""
    first, second = bonds.cpu().numpy().T
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(n_atoms, n_atoms)).tocsr()
    graph = graph + graph.T
    near = triu(graph + graph @ graph, k=1).tocoo()
    keys = np.unique(near.row.astype(np.int64) * n_atoms + near.col)
    return torch.from_numpy(np.concatenate([[-1], keys])).to(bonds.device)
