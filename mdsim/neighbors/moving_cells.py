"""Neighbor list of replicas whose cells move, as they do under a barostat."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mdsim.neighbors.pairs import Neighbors
from mdsim.neighbors.search import pairs_within
from mdsim.neighbors.skin_list import NeighborList, Result
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor


class MovingCellList(NeighborList):
    """A `NeighborList` for cells that differ between replicas and change in time.

    Pairs are stored with their images, which stay valid while the cell moves. A list is valid as long as no pair beyond
    its range can have come within the cutoff: a cell that has changed by the strain D since the last build shortens
    vectors by a factor 1 - ‖D‖ at most, and atoms have moved relative to the strained frame.

    Args:
        system: the system that all replicas share. Its cell is not used.
        cutoff, skin, ahead: see `NeighborList`.
    """

    def __init__(self, system: System, cutoff: float, skin: float = 0.5, ahead: bool | None = None) -> None:
        super().__init__(system, cutoff, skin, ahead)
        self._cells: Float[Tensor, "replica 3 3"]  # of the current call
        self._inverse_built: Float[Tensor, "replica 3 3"]  # inverse cells of the last build

    def in_cells(self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]) -> Neighbors:
        """Valid neighbors for these positions and cells (Å). Their shifts are differentiable by the cells."""
        self._cells = cells.detach()
        return self(positions).in_cells(cells, positions.shape[1])

    def evaluate_in_cells(
        self,
        positions: Float[Tensor, "replica atom 3"],
        cells: Float[Tensor, "replica 3 3"],
        function: Callable[[Neighbors], Result],
    ) -> Result:
        """`NeighborList.evaluate` for these positions and cells (Å).

        The function gets the listed pairs, with the shifts of the last build: `Neighbors.in_cells` gives the present.
        """
        self._cells = cells.detach()
        return self.evaluate(positions, function)

    @property
    def _keeps_all_pairs(self) -> bool:
        return False

    def _stale(self, positions: Float[Tensor, "replica atom 3"]) -> Bool[Tensor, "replica"]:
        deformation = self._inverse_built @ self._cells
        change = deformation - torch.eye(3, dtype=positions.dtype, device=positions.device)
        shrinks_by = torch.linalg.vector_norm(change.flatten(1), dim=1)
        moved = (positions - self._built_at @ deformation).square().sum(-1)
        free = 0.5 * ((1 - shrinks_by) * (self.cutoff + self.skin) - self.cutoff)  # of each atom
        near = moved <= free.clamp(min=0).square()[:, None]
        is_finite = positions.isfinite().all(-1) & self._cells.isfinite().flatten(1).all(1)[:, None]
        return (~near & is_finite).any(-1)

    def _build(self, positions: Float[Tensor, "replica atom 3"]) -> None:
        super()._build(positions)
        self._inverse_built = torch.linalg.inv_ex(self._cells).inverse

    def _rebuild(self, positions: Float[Tensor, "replica atom 3"], stale: Bool[Tensor, "replica"]) -> None:
        super()._rebuild(positions, stale)
        replicas = torch.nonzero(stale)[:, 0]
        inverse = torch.linalg.inv_ex(self._cells[replicas]).inverse
        self._inverse_built = self._inverse_built.index_copy(0, replicas, inverse)

    def _search(
        self, positions: Float[Tensor, "replica atom 3"], replicas: Int[Tensor, "replica"] | None = None
    ) -> Neighbors:
        self._count(positions)
        cells = self._cells if replicas is None else self._cells.index_select(0, replicas)
        return pairs_within(cells, positions, self.cutoff + self.skin)
