"""Closest contact between molecules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import pair_distances
from mdsim.observables import cells
from mdsim.observables.histogram import VALUES_PER_CHUNK, finite_frames
from mdsim.observables.pairs import PairKind, search, searchable
from mdsim.observables.tuples import map_in_chunks
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

FIRST_REACH_A = 3.0  # of the first search; the closest contact in a liquid is shorter
BETWEEN_MOLECULES = PairKind(same_molecule=False)


@dataclass(frozen=True)
class MinimumDistance:
    """Shortest minimum-image distance in Å between atoms of different molecules."""

    name: ClassVar[str] = "minimum_distance"
    unit: ClassVar[str] = "Å"

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica 1"]:
        """The distance in Å for each frame and replica. NaN for frames with a non-finite coordinate.

        Raises:
            ValueError: the system is a single molecule.
        """
        if system.n_molecules < 2:
            raise ValueError(
                f"the system is a single molecule of {system.n_atoms} atoms: there is no distance between molecules"
            )
        finite = finite_frames(trajectory.positions).reshape(-1)
        rows, system = trajectory.positions.flatten(0, 1), cells.of_some(cells.in_rows(system, trajectory), finite)
        closest = rows.new_full((len(rows),), torch.nan).index_put((finite,), _closest(system, rows[finite]))
        return closest.unflatten(0, trajectory.positions.shape[:2]).unsqueeze(-1)


def _closest(system: System, rows: Float[Tensor, "row atom 3"]) -> Float[Tensor, "row"]:
    """The distance in each row, by a neighbor search, or among all pairs if the search finds none."""
    closest, reach = rows.new_full((len(rows),), torch.inf), FIRST_REACH_A
    missing = torch.arange(len(rows), device=rows.device)
    while len(missing) and searchable(system, system.n_atoms, reach):
        parts = [
            rows.new_full((found.n_rows,), torch.inf).scatter_reduce(0, found.row, found.distance, "amin")
            for found in search(cells.of_some(system, missing), rows[missing], BETWEEN_MOLECULES, reach)
        ]
        closest = closest.index_copy(0, missing, torch.cat(parts))
        missing = missing[(closest.detach()[missing] > reach)]
        reach *= 2
    if not len(missing):
        return closest
    blocks = map_in_chunks(
        lambda some, pairs, of_these: pair_distances(some, pairs, of_these).amin(-1),
        *(rows[missing], BETWEEN_MOLECULES.all_of(system), cells.of_chosen(system.cell, missing), VALUES_PER_CHUNK),
    )
    return closest.index_copy(0, missing, torch.stack(blocks).amin(0))
