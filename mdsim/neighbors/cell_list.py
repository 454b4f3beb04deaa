"""Neighbor search in linear time with a cell list.

The grid of a periodic system also contains the images of atoms within the cutoff of the unit cell. Several images of a
pair thus need no special treatment. In an open system, empty space is removed from the grid, so that the grid of a
replica that has flown apart stays small. Atoms are sorted by the number of their cell and form columns along the third
axis. The candidates of one atom in one column are a range of the sorted list, found by bisection. Half of the columns
around an atom, and half of the atom's column, give each pair once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from mdsim.compiled import HAS_NUMBA
from mdsim.geometry import Rows, rows_of
from mdsim.neighbors.pairs import Neighbors
from mdsim.typing import Float, Int, Tensor

CELLS_PER_CUTOFF = (1, 1, 4)  # along each axis; finer columns have fewer useless candidates but need more lookups
CANDIDATES_AT_ONCE = 2**17  # they fit into the processor's cache
CANDIDATES_AT_ONCE_ON_GPU = 2**22  # a search of most systems is one piece then, and memory stays small
WIDER = 1.0 + 1e-6  # factor on the width of cells, a margin for rounding


@dataclass(frozen=True)
class Grid:
    """Cells of all replicas. The cells of images have indices below zero or beyond ``shape``."""

    shape: tuple[int, ...]  # cells along each axis
    reach: tuple[int, ...]  # cells within the cutoff, along each axis

    @classmethod
    def periodic(cls, cell: Float[Tensor, "3 3"], cutoff: float) -> Grid:
        """The finest grid with the wanted number of cells along the cutoff, or one cell along a narrow axis."""
        return _periodic_grid(rows_of(cell), cutoff)

    @property
    def extent(self) -> tuple[int, ...]:
        """Cells along each axis, including those of the images on both sides."""
        return tuple(n + 2 * m for n, m in zip(self.shape, self.reach, strict=True))

    def numbers(self, replica: Int[Tensor, "atom"], bins: Int[Tensor, "atom 3"]) -> Int[Tensor, "atom"]:
        """Number of the cell of each atom or image, along the columns, replica by replica."""
        number = replica
        for axis in range(3):
            number = number * self.extent[axis] + bins[:, axis] + self.reach[axis]
        return number

    def half_columns(self, device: torch.device) -> Int[Tensor, "column"]:
        """Difference of cell numbers to each column on one side of an atom's column, which is excluded."""
        along_x, along_y, _ = self.reach
        _, y_cells, z_cells = self.extent
        offsets = [(0, y) for y in range(1, along_y + 1)]
        offsets += [(x, y) for x in range(1, along_x + 1) for y in range(-along_y, along_y + 1)]
        return _integers(tuple((x * y_cells + y) * z_cells for x, y in offsets), device)

    def candidates_per_atom(self, n_atoms: int) -> float:
        """Number of candidates per atom for atoms that are spread evenly over the cell."""
        return 0.5 * n_atoms * math.prod((2 * m + 1) / n for n, m in zip(self.shape, self.reach, strict=True))

    @staticmethod
    def open_candidates_per_atom(n_atoms: int, atoms_per_cubed_cutoff: float) -> float:
        """The same for open boundaries at a given density, limited by the number of atoms."""
        return 0.5 * min(n_atoms, atoms_per_cubed_cutoff * math.prod((2 * m + 1) / m for m in CELLS_PER_CUTOFF))


@lru_cache(maxsize=64)
def _periodic_grid(cell: Rows, cutoff: float) -> Grid:
    """Kept, because the cell of a system is the same in every search."""
    inverse = torch.linalg.inv(torch.tensor(cell, dtype=torch.float64))
    heights = (1.0 / torch.linalg.vector_norm(inverse, dim=0)).tolist()
    wide = WIDER * cutoff
    shape = [max(1, int(height * n / wide)) for height, n in zip(heights, CELLS_PER_CUTOFF, strict=True)]
    reach = [int(-(-wide * n // height)) for height, n in zip(heights, shape, strict=True)]
    return Grid(tuple(shape), tuple(reach))


@dataclass(frozen=True)
class Points:
    """Atoms, followed by their images near the unit cell."""

    owner: Int[Tensor, "point"]  # the atom
    image: Int[Tensor, "point 3"]  # in lattice vectors
    bins: Int[Tensor, "point 3"]
    at: Float[Tensor, "point 3"]  # Å


def cell_list_search(
    cell: Float[Tensor, "3 3"] | None, positions: Float[Tensor, "replica atom 3"], cutoff: float
) -> Neighbors:
    """All pairs closer than ``cutoff`` (Å), in time and memory of order replica · atom."""
    n_atoms = positions.shape[1]
    here = torch.nonzero(positions.isfinite().all(-1).reshape(-1))[:, 0]
    atoms = positions.reshape(-1, 3)[here]
    if cell is None:
        grid, bins = _open_grid(positions, cutoff)
        wraps, owner = torch.zeros_like(atoms), torch.arange(len(here), device=here.device)
        points = Points(owner, torch.zeros_like(bins[here]), bins[here], atoms)
    else:
        grid = Grid.periodic(cell, cutoff)
        wraps, points = _wrapped(cell, atoms, grid)
        points = _with_images(cell, points, grid)

    numbers = grid.numbers(here[points.owner] // n_atoms, points.bins)
    ordered, order = torch.sort(numbers, stable=True)
    starts, stops = _ranges(numbers[: len(here)], ordered, order, grid)
    first, candidate = _within(cutoff, points.at[: len(here)], points.at[order], starts, stops)
    point = order[candidate]
    second = points.owner[point]
    if cell is None:
        return Neighbors(here[first], here[second], None)
    shift = (points.image[point] + wraps[second] - wraps[first]).to(positions) @ cell
    return Neighbors(here[first], here[second], shift)


def _open_grid(positions: Float[Tensor, "replica atom 3"], cutoff: float) -> tuple[Grid, Int[Tensor, "atoms_of_all 3"]]:
    """Cells without gaps wider than the reach along any axis. Their number is at most that of the atoms."""
    reach = _integers(CELLS_PER_CUTOFF, positions.device).double()
    finite = positions.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    ordered, order = torch.floor(finite * (reach / (WIDER * cutoff))).sort(dim=1)
    gaps = torch.minimum(ordered.diff(dim=1), reach + 1).long()
    squeezed = torch.nn.functional.pad(gaps.cumsum(1), (0, 0, 1, 0))
    bins = torch.empty_like(squeezed).scatter(1, order, squeezed)
    shape = (squeezed[:, -1].amax(0) + 1).tolist()
    return Grid(tuple(shape), CELLS_PER_CUTOFF), bins.reshape(-1, 3)


def _wrapped(
    cell: Float[Tensor, "3 3"], atoms: Float[Tensor, "atom 3"], grid: Grid
) -> tuple[Float[Tensor, "atom 3"], Points]:
    """Integer lattice translations that move each atom into the unit cell, and the positions there.

    The computation is in double precision. Single precision loses the position in the cell of an atom far from it.
    """
    fractional = atoms.double() @ torch.linalg.inv(cell.double())
    wraps = -torch.floor(fractional)
    fractional = fractional + wraps
    shape = _integers(grid.shape, atoms.device)
    bins = torch.minimum((fractional * shape).long(), shape - 1)
    owner = torch.arange(len(atoms), device=atoms.device)
    return wraps, Points(owner, torch.zeros_like(bins), bins, (fractional @ cell.double()).to(atoms))


@lru_cache(maxsize=64)
def _integers(numbers: tuple[int, ...], device: torch.device) -> Int[Tensor, "number"]:
    """Integers on a device, kept there: the host waits for each transfer."""
    return torch.tensor(numbers, dtype=torch.long).to(device)


def _with_images(cell: Float[Tensor, "3 3"], atoms: Points, grid: Grid) -> Points:
    """The atoms, then their images within the reach of the grid. Along the first axis only the far side has images."""
    owner, image = atoms.owner, atoms.image
    for axis, (n, reach) in enumerate(zip(grid.shape, grid.reach, strict=True)):
        farthest = -(-reach // n)
        aways = _integers((*range(-farthest if axis else 0, 0), *range(1, farthest + 1)), owner.device)
        there = atoms.bins[owner, axis] + n * aways[:, None]
        away, chosen = torch.nonzero((there >= -reach) & (there < n + reach), as_tuple=True)
        moved = image[chosen]
        moved[:, axis] = aways[away]
        owner, image = torch.cat([owner, owner[chosen]]), torch.cat([image, moved])
    shape = _integers(grid.shape, owner.device)
    at = atoms.at[owner] + image.to(atoms.at) @ cell
    return Points(owner, image, atoms.bins[owner] + image * shape, at)


def _ranges(
    numbers: Int[Tensor, "atom"], ordered: Int[Tensor, "point"], order: Int[Tensor, "point"], grid: Grid
) -> tuple[Int[Tensor, "atom column"], Int[Tensor, "atom column"]]:
    """Start and end of each atom's candidates in the sorted list, for each column. The atom's column comes first."""
    ranks = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
    reach = grid.reach[2]
    columns = numbers[:, None] + grid.half_columns(numbers.device)
    starts = torch.searchsorted(ordered, columns - reach)
    stops = torch.searchsorted(ordered, columns + reach, right=True)
    own_stop = torch.searchsorted(ordered, numbers + reach, right=True)
    return (
        torch.cat([ranks[: len(numbers), None] + 1, starts], dim=1),
        torch.cat([own_stop[:, None], stops], dim=1),
    )


def _within(
    cutoff: float,
    atoms: Float[Tensor, "atom 3"],
    points: Float[Tensor, "point 3"],
    starts: Int[Tensor, "atom column"],
    stops: Int[Tensor, "atom column"],
) -> tuple[Int[Tensor, "pair"], Int[Tensor, "pair"]]:
    """The atom and the point (of the sorted list) of every candidate closer than the cutoff."""
    if is_compiled(atoms.device):
        from mdsim.neighbors.compiled import within

        arrays = (tensor.contiguous().numpy() for tensor in (atoms, points, starts, stops))
        first, second = within(atoms.new_tensor(cutoff**2).numpy()[()], *arrays)
        return torch.from_numpy(first), torch.from_numpy(second)
    empty = torch.empty(0, dtype=torch.long, device=atoms.device)
    found_first, found_second = [empty], [empty]
    for first, second in _candidates(starts, stops):
        squared = (points.index_select(0, second) - atoms.index_select(0, first)).square().sum(-1)
        close = torch.nonzero(squared < cutoff**2)[:, 0]
        found_first.append(first.index_select(0, close))
        found_second.append(second.index_select(0, close))
    return torch.cat(found_first), torch.cat(found_second)


def is_compiled(device: torch.device) -> bool:
    """Whether compiled loops check the candidates."""
    return device.type == "cpu" and HAS_NUMBA


def _candidates(
    starts: Int[Tensor, "atom column"], stops: Int[Tensor, "atom column"]
) -> Iterator[tuple[Int[Tensor, "candidate"], Int[Tensor, "candidate"]]]:
    """All ranges expanded to pairs of an atom and a point, for a few atoms at a time."""
    counts = stops - starts
    of_atoms = counts.sum(1)
    total = torch.nn.functional.pad(of_atoms.cumsum(0), (1, 0))
    at_once = CANDIDATES_AT_ONCE if counts.device.type == "cpu" else CANDIDATES_AT_ONCE_ON_GPU
    n_chunks = int(total[-1]) // at_once + 1
    marks = at_once * torch.arange(n_chunks + 1, device=total.device)
    edges = torch.searchsorted(total[:-1], marks).clamp(max=len(counts))
    edges[-1:] = len(counts)
    begins, before = torch.stack([edges, total[edges]]).tolist()  # at once, because each list makes the host wait
    for begin, end, size in zip(begins[:-1], begins[1:], np.diff(before).tolist(), strict=True):
        flat = counts[begin:end].reshape(-1)
        first = torch.arange(begin, end, device=counts.device).repeat_interleave(of_atoms[begin:end], output_size=size)
        offset = (starts[begin:end].reshape(-1) - flat.cumsum(0) + flat).repeat_interleave(flat, output_size=size)
        yield first, offset + torch.arange(size, device=counts.device)
