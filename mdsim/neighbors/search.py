"""Search for all pairs within a cutoff, by the faster of two methods."""

from __future__ import annotations

import torch

from mdsim.geometry import rows_of
from mdsim.neighbors.cell_list import CELLS_PER_CUTOFF, Grid, cell_list_search, is_compiled
from mdsim.neighbors.direct import direct_search, images_within
from mdsim.neighbors.pairs import Neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor

PAIRS_AT_ONCE, ATOMS_AT_ONCE = 2**20, 2**16  # for the direct search and the cell list; limit the memory
MOST_CELLS = 2**62  # limit of 64-bit cell numbers

# Costs of the searches, measured on a CPU in units of one image of one pair. The first check of a pair also finds its
# nearest image. A candidate of the cell list must be stored before it is checked, except in compiled loops. For fewer
# atoms than these, with one image per pair, the overhead of calls dominates.
FIRST_LOOK_OPEN, FIRST_LOOK_PERIODIC, CANDIDATE, CANDIDATE_COMPILED = 1.0, 2.5, 2.5, 1.2
FEW_ATOMS = 128
DENSITY_PER_A3 = 0.1  # assumed density of atoms in an open system


def neighbors(system: System, positions: Float[Tensor, "replica atom 3"], cutoff: float) -> Neighbors:
    """All pairs closer than ``cutoff`` (Å) in every replica. An atom with a non-finite position has no neighbors."""
    return pairs_within(system.cell, positions, cutoff)


def pairs_within(
    cell: Float[Tensor, "3 3"] | None, positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    """`neighbors` for any positions and cell.

    For few atoms all pairs are checked. For many atoms a cell list is used, with time and memory linear in atoms.
    """
    positions, n_atoms = positions.detach(), positions.shape[1]
    cell = None if cell is None else cell.to(positions)
    if prefers_cells(cell, n_atoms, cutoff, positions.device):
        search, at_once = cell_list_search, ATOMS_AT_ONCE // n_atoms
        # Compressed grids have at most as many cells along an axis as atoms, with a gap after each.
        at_once = min(at_once, MOST_CELLS // (n_atoms * (max(CELLS_PER_CUTOFF) + 1)) ** 3)
    else:
        n_images = 1 if cell is None else len(images_within(rows_of(cell), cutoff))
        search, at_once = direct_search, PAIRS_AT_ONCE // max(1, n_atoms**2 * n_images)
    at_once = max(1, at_once)
    found = [search(cell, some, cutoff) for some in positions.split(at_once)]
    return Neighbors.cat(found, at_once * n_atoms)


def prefers_cells(cell: Float[Tensor, "3 3"] | None, n_atoms: int, cutoff: float, device: torch.device) -> bool:
    """Whether the cell list is faster than a search over all pairs for this number of atoms."""
    n_images = 1 if cell is None else len(images_within(rows_of(cell), cutoff))
    if n_images == 1 and n_atoms < FEW_ATOMS:
        return False
    first_look = FIRST_LOOK_OPEN if cell is None else FIRST_LOOK_PERIODIC
    of_candidate = CANDIDATE_COMPILED if is_compiled(device) else CANDIDATE
    return of_candidate * candidates_per_pair(cell, n_atoms, cutoff) < n_images + first_look


def candidates_per_pair(cell: Float[Tensor, "3 3"] | None, n_atoms: int, cutoff: float) -> float:
    """Number of candidates of the cell list relative to the number of pairs of atoms; above one in narrow cells."""
    if cell is None:
        candidates = Grid.open_candidates_per_atom(n_atoms, DENSITY_PER_A3 * cutoff**3)
    else:
        candidates = Grid.periodic(cell, cutoff).candidates_per_atom(n_atoms)
    return candidates / max(0.5, (n_atoms - 1) / 2)
