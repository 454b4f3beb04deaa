"""Systems of the rows of positions, with one cell for all rows, one for each row, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mdsim.state import System, Trajectory
from mdsim.typing import Bool, Float, Int, Tensor


def of_rows(cell: Float[Tensor, "*frames 3 3"] | None) -> Float[Tensor, "*row 3 3"] | None:
    """One cell as it is, or those of all frames and replicas, one after another."""
    return cell if cell is None or cell.ndim == 2 else cell.flatten(0, -3)


def of_chosen(
    cell: Float[Tensor, "*row 3 3"] | None, chosen: Int[Tensor, "*chosen"] | Bool[Tensor, "row"] | slice
) -> Float[Tensor, "*found 3 3"] | None:
    """The cells of some rows."""
    return cell if cell is None or cell.ndim == 2 else cell[chosen]


def split(cell: Float[Tensor, "*row 3 3"] | None, n_rows: int, size: int) -> Sequence[Tensor | None]:
    """The cells of consecutive rows, ``size`` at a time, as `torch.Tensor.split` divides the rows."""
    if cell is None or cell.ndim == 2:
        return [cell] * max(1, -(-n_rows // size))
    return cell.split(size)


def in_rows(system: System, trajectory: Trajectory) -> System:
    """The system of all frames and replicas as rows, one after another."""
    return replace(system, cell=of_rows(trajectory.in_cells(system).cell))


def of_some(system: System, chosen: Int[Tensor, "*chosen"] | Bool[Tensor, "row"] | slice) -> System:
    """The system of some rows."""
    return replace(system, cell=of_chosen(system.cell, chosen))
