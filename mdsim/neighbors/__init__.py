"""Batched neighbor lists: all pairs of atoms within a cutoff, with open or periodic boundaries."""

from mdsim.neighbors.moving_cells import MovingCellList
from mdsim.neighbors.pairs import Neighbors, fixed_pairs, groups_of_replicas
from mdsim.neighbors.search import candidates_per_pair, neighbors, pairs_within, prefers_cells
from mdsim.neighbors.skin_list import ALL_PAIRS_UP_TO_ATOMS, NeighborList

__all__ = [
    "ALL_PAIRS_UP_TO_ATOMS",
    "MovingCellList",
    "NeighborList",
    "Neighbors",
    "candidates_per_pair",
    "fixed_pairs",
    "groups_of_replicas",
    "neighbors",
    "pairs_within",
    "prefers_cells",
]
