"""Search for all pairs within a cutoff, by the faster of two methods."""

from __future__ import annotations

import torch

from mdsim.geometry import rows_of, volume
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
MOST_STRETCH, WIDER = 1.2, 1 + 1e-4  # of replicas that are searched in one cell; a margin for rounding


def neighbors(system: System, positions: Float[Tensor, "replica atom 3"], cutoff: float) -> Neighbors:
    """All pairs closer than ``cutoff`` (Å) in every replica. An atom with a non-finite position has no neighbors."""
    return pairs_within(system.cell, positions, cutoff)


def pairs_within(
    cell: Float[Tensor, "*replica 3 3"] | None, positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    """`neighbors` for any positions, in one cell or in a cell for each replica.

    For few atoms all pairs are checked. For many atoms a cell list is used, with time and memory linear in atoms.
    """
    if cell is not None and cell.ndim == 3:
        return _pairs_in_cells(cell.detach().to(positions), positions.detach(), cutoff)
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


def _pairs_in_cells(
    cells: Float[Tensor, "replica 3 3"], positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    """The pairs of replicas with different cells, with their images.

    Replicas are searched together in the cell of one of them, to which their coordinates are strained. The cutoff is
    longer by the largest strain, and pairs that are too far apart in their own cell are removed. Replicas whose cells
    are too different are searched separately. A replica whose cell is not finite has no neighbors.
    """
    n_replicas, n_atoms, _ = positions.shape
    found = Neighbors(*(torch.empty(0, dtype=torch.long, device=positions.device),) * 2, *(cells.new_empty(0, 3),) * 2)
    left = torch.nonzero(cells.isfinite().all(-1).all(-1) & (volume(cells) > 0))[:, 0]
    while len(left):
        common = cells[left[volume(cells[left]).argsort()[len(left) // 2]]]
        strain = torch.linalg.inv(cells[left]) @ common  # from each cell to the common one
        stretch = 1 + torch.linalg.vector_norm((strain - torch.eye(3).to(strain)).flatten(1), dim=1)  # at most
        alike = stretch <= MOST_STRETCH
        chosen, strained = left[alike], positions[left[alike]] @ strain[alike]
        near = pairs_within(common, strained, WIDER * float(stretch[alike].max()) * cutoff)
        image = torch.round(near.shift @ torch.linalg.inv(common))
        near = Neighbors(near.first, near.second, None, image).in_cells(cells[chosen], n_atoms)
        kept = torch.nonzero(near.displacements(positions[chosen]).square().sum(-1) < cutoff**2)[:, 0]
        found = found.with_new(chosen, near.chosen(kept), n_replicas, n_atoms)
        left = left[~alike]
    return found


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
