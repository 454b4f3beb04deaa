"""Histograms over all frames and replicas at once, plain or differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mdsim.compiled import HAS_NUMBA
from mdsim.geometry import angles_deg, is_orthorhombic, pair_distances
from mdsim.observables.bins import Bins
from mdsim.observables.cells import of_rows
from mdsim.observables.tuples import map_in_chunks
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor

VALUES_PER_CHUNK = 2**19  # distances or angles held at a time; the image search of a triclinic cell takes 27 times that
SMEARING_REACH = 6.0  # standard deviations beyond which a Gaussian (2e-9 of its mass) is not counted

#: `pair_distances` or `angles` of `mdsim.geometry`: positions, tuples of atoms and cell to one value per tuple.
Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def histogram(values: Float[Tensor, "row value"], bins: Bins) -> Int[Tensor, "row bin"]:
    """Number of values in each bin, row by row. Values outside the range, and NaN, are not counted."""
    one_group = torch.zeros(values.shape[1], dtype=torch.long, device=values.device)
    return grouped_histogram(values, bins, one_group, 1)[:, 0]


def grouped_histogram(
    values: Float[Tensor, "row value"], bins: Bins, groups: Int[Tensor, "value"], n_groups: int
) -> Int[Tensor, "row group bin"]:
    """`histogram` of each group of columns of values."""
    tables = n_groups * torch.arange(len(values), device=values.device)[:, None] + groups
    counts = histograms_of_tables(values, bins, tables, len(values) * n_groups)
    return counts.reshape(len(values), n_groups, bins.count)


def histograms_of_tables(
    values: Float[Tensor, "*value"], bins: Bins, tables: Int[Tensor, "..."], n_tables: int
) -> Int[Tensor, "table bin"]:
    """Several histograms. ``tables``, broadcast to the values, assigns each value to one of them."""
    values = values.detach()
    inside = (values >= bins.start) & (values <= bins.stop)
    index = ((values - bins.start) / bins.width).long().clamp_max(bins.count - 1)
    index = torch.where(inside, index, bins.count)  # an extra bin per table takes values out of range
    flat = (index + (bins.count + 1) * tables).reshape(-1)
    counts = torch.bincount(flat, minlength=n_tables * (bins.count + 1))
    return counts.reshape(n_tables, bins.count + 1)[:, :-1]


def smeared_histogram(values: Float[Tensor, "row value"], bins: Bins, smearing: float) -> Float[Tensor, "row bin"]:
    """Differentiable histogram of normalized Gaussians around the values. It approaches the plain one as smearing → 0.

    Each Gaussian is integrated over each bin, so a value contributes 1 in total for any smearing, minus the part
    outside the range. Only bins within reach of a value are visited.

    Args:
        values: any unit.
        bins: same unit.
        smearing: standard deviation of the Gaussians, same unit.
    """
    rows = torch.arange(len(values), device=values.device)[:, None]
    return smeared_histograms_of_tables(values, bins, smearing, rows, len(values))


def smeared_histograms_of_tables(
    values: Float[Tensor, "*value"], bins: Bins, smearing: float, tables: Int[Tensor, "..."], n_tables: int
) -> Float[Tensor, "table bin"]:
    """Several smeared histograms. ``tables``, broadcast to the values, assigns each value to one of them."""
    first = torch.floor((values.detach() - SMEARING_REACH * smearing - bins.start) / bins.width)
    steps = torch.arange(smearing_stencil(bins, smearing) + 1, device=values.device, dtype=values.dtype)
    edges = bins.start + bins.width * (first[..., None] + steps)
    cumulative = 0.5 * torch.erf((edges - values[..., None]) / (math.sqrt(2.0) * smearing))
    index = (first[..., None] + steps[:-1]).long()
    index = torch.where((index >= 0) & (index < bins.count), index, bins.count)
    flat = (index + (bins.count + 1) * tables[..., None]).reshape(-1)
    counts = values.new_zeros(n_tables * (bins.count + 1))
    counts = counts.scatter_add(0, flat, cumulative.diff(dim=-1).reshape(-1))
    return counts.reshape(n_tables, bins.count + 1)[:, :-1]


def smearing_stencil(bins: Bins, smearing: float) -> int:
    """Number of bins that one Gaussian can touch."""
    return math.ceil(2 * SMEARING_REACH * smearing / bins.width) + 1


def tuple_histogram(
    measure: Measure,
    positions: Float[Tensor, "frame replica atom 3"],
    tuples: Int[Tensor, "tuple order"],
    cell: Float[Tensor, "*frames 3 3"] | None,
    bins: Bins,
    smearing: float | None = None,
) -> Float[Tensor, "frame replica bin"]:
    """Histogram of a measure over tuples of atoms, for each frame and replica. NaN if a coordinate is non-finite."""
    finite = finite_frames(positions)
    # Zeros in place of NaN keep the gradients of other frames finite. The counts are replaced by NaN below.
    rows = torch.where(finite[..., None, None], positions, 0.0).flatten(0, 1)
    stencil = 1 if smearing is None else smearing_stencil(bins, smearing)

    tables = torch.zeros_like(tuples[:, :1])

    def count(some_rows: Tensor, some_tuples: Tensor, cell: Tensor | None) -> Tensor:
        if smearing is None:
            return plain_counts(measure, some_rows, some_tuples, cell, bins, tables[: len(some_tuples)], 1)[:, 0]
        return smeared_histogram(measure(some_rows, some_tuples, cell), bins, smearing)

    blocks = map_in_chunks(count, rows, tuples, of_rows(cell), max(1, VALUES_PER_CHUNK // stencil))
    counts = torch.stack(blocks).sum(0).to(positions.dtype).unflatten(0, positions.shape[:2])
    return torch.where(finite[..., None], counts, torch.nan)


def molecule_histogram(
    measure: Measure,
    positions: Float[Tensor, "frame replica atom 3"],
    tuples: Int[Tensor, "tuple order"],
    system: System,
    bins: Bins,
) -> Float[Tensor, "frame replica molecule bin"]:
    """Contribution of each molecule to the plain histogram. A tuple is split equally among the molecules of its atoms.

    The sum over molecules is `tuple_histogram`. NaN if a coordinate of the frame is non-finite.
    """
    finite = finite_frames(positions)
    rows = torch.where(finite[..., None, None], positions, 0.0).flatten(0, 1)
    n_molecules, order = int(system.molecules.max()) + 1, tuples.shape[1]

    def count(some_rows: Tensor, some_tuples: Tensor, cell: Tensor | None) -> Tensor:
        molecules = system.molecules[some_tuples]
        return plain_counts(measure, some_rows, some_tuples, cell, bins, molecules, n_molecules)

    blocks = map_in_chunks(count, rows, tuples, of_rows(system.cell), VALUES_PER_CHUNK)
    counts = torch.stack(blocks).sum(0).to(positions.dtype).unflatten(0, positions.shape[:2]) / order
    return torch.where(finite[..., None, None], counts, torch.nan)


def plain_counts(
    measure: Measure,
    rows: Float[Tensor, "row atom 3"],
    tuples: Int[Tensor, "tuple order"],
    cell: Float[Tensor, "*row 3 3"] | None,
    bins: Bins,
    tables: Int[Tensor, "tuple column"],
    n_tables: int,
) -> Int[Tensor, "row table bin"]:
    """Histograms of a measure of tuples of atoms. ``tables`` lists the histograms in which each tuple is counted.

    They are computed in a compiled loop if `counts_are_compiled`, otherwise by tensor operations.
    """
    if counts_are_compiled(measure, rows, cell):
        from mdsim.observables import compiled_counts

        return compiled_counts.count(measure, rows, tuples, cell, bins, tables, n_tables)
    values = measure(rows.detach(), tuples, cell)
    return torch.stack([grouped_histogram(values, bins, column, n_tables) for column in tables.T]).sum(0)


def counts_are_compiled(measure: Measure, positions: Tensor, cell: Float[Tensor, "*frames 3 3"] | None) -> bool:
    """Whether `plain_counts` uses a compiled loop: distances and angles on a CPU with numba, not triclinic."""
    if not HAS_NUMBA or measure not in (pair_distances, angles_deg) or positions.device.type != "cpu":
        return False
    return cell is None or is_orthorhombic(cell)


def finite_frames(positions: Float[Tensor, "frame replica atom 3"]) -> Bool[Tensor, "frame replica"]:
    """Mask of the frames and replicas whose coordinates are all finite."""
    return positions.isfinite().flatten(2).all(-1)
