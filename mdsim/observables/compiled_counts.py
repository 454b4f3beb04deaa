"""Histograms of distances and angles in compiled loops that hold few values at a time.

They serve open and orthorhombic systems on a CPU. Importing this module needs numba (the extra `fast`).
`histogram.plain_counts` decides when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import no_type_check

import numpy as np
import torch

from mdsim.compiled.jit import arrays, compiled
from mdsim.geometry import angles_deg, pair_distances
from mdsim.observables.bins import Bins
from mdsim.typing import Float, Int, Tensor

AT_ONCE = 512  # values held between the loops that compute, bin and count them


def count(
    measure: Callable,
    positions: Float[Tensor, "row atom 3"],
    tuples: Int[Tensor, "tuple order"],
    cell: Float[Tensor, "*row 3 3"] | None,
    bins: Bins,
    tables: Int[Tensor, "tuple column"],
    n_tables: int,
) -> Int[Tensor, "row table bin"]:
    """Histograms of the distances (Å) of pairs, or of the angles (degrees) of triplets.

    Args:
        measure: a key of `LOOPS`.
        positions: Å.
        tuples: pairs, or triplets with the central atom second.
        cell: orthorhombic, in Å, one for all rows or one for each. None for open boundaries.
        bins: bins of the values.
        tables: the tables in which each tuple is counted.
        n_tables: number of tables.
    """
    edges = np.zeros(3) if cell is None else torch.diagonal(cell, dim1=-2, dim2=-1).double().cpu().numpy()
    per_edge = np.zeros(3) if cell is None else 1 / edges
    edges, per_edge = (np.broadcast_to(numbers, (len(positions), 3)).copy() for numbers in (edges, per_edge))
    counts = torch.zeros(len(positions), n_tables, bins.count + 1, dtype=torch.long)  # last bin: out of range
    LOOPS[measure](
        *arrays(positions, tuples, tables), edges, per_edge, bins.start, bins.stop, bins.width, counts.numpy()
    )
    return counts[..., :-1]


@compiled()
@no_type_check
def _count_distances(positions, pairs, tables, edges, per_edge, start, stop, width, counts):
    values, index = np.empty(AT_ONCE), np.empty(AT_ONCE, np.int32)
    for r in range(len(positions)):
        for p in range(0, len(pairs), AT_ONCE):
            some = pairs[p : p + AT_ONCE]
            _distances(positions[r], some, edges[r], per_edge[r], values)
            _add(values, tables[p : p + AT_ONCE], start, stop, width, index, counts[r])


@compiled()
@no_type_check
def _count_angles(positions, triplets, tables, edges, per_edge, start, stop, width, counts):
    values, index = np.empty(AT_ONCE), np.empty(AT_ONCE, np.int32)
    for r in range(len(positions)):
        for p in range(0, len(triplets), AT_ONCE):
            some = triplets[p : p + AT_ONCE]
            _angles(positions[r], some, edges[r], per_edge[r], values)
            _add(values, tables[p : p + AT_ONCE], start, stop, width, index, counts[r])


@compiled(inline="always")
@no_type_check
def _distances(x, pairs, edges, per_edge, values):
    """Minimum-image distances, Å."""
    for p in range(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        u = _nearest(x[j, 0] - x[i, 0], edges[0], per_edge[0])
        v = _nearest(x[j, 1] - x[i, 1], edges[1], per_edge[1])
        w = _nearest(x[j, 2] - x[i, 2], edges[2], per_edge[2])
        values[p] = np.sqrt(u * u + v * v + w * w)


@compiled(inline="always")
@no_type_check
def _angles(x, triplets, edges, per_edge, values):
    """Angles at the central atom in degrees, by atan2(|a × b|, a · b), which is also accurate near 180 degrees."""
    a, b = np.empty(3), np.empty(3)
    for p in range(len(triplets)):
        i, j, k = triplets[p, 0], triplets[p, 1], triplets[p, 2]
        for c in range(3):
            a[c] = _nearest(x[i, c] - x[j, c], edges[c], per_edge[c])
            b[c] = _nearest(x[k, c] - x[j, c], edges[c], per_edge[c])
        u, v, w = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
        dot = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
        values[p] = np.degrees(np.arctan2(np.sqrt(u * u + v * v + w * w), dot))


@compiled(inline="always")
@no_type_check
def _nearest(displacement, edge, per_edge):
    return displacement - np.rint(displacement * per_edge) * edge


@compiled(inline="always")
@no_type_check
def _add(values, tables, start, stop, width, index, counts):
    """Count each value in its bin of its tables. No branches, because half of all distances may be out of range."""
    n_bins = counts.shape[1] - 1
    for p in range(len(tables)):
        value = values[p]
        inside = (value >= start) & (value <= stop)  # false for NaN
        b = np.int32((min(max(value, start), stop) - start) / width)
        index[p] = min(b, n_bins - 1) if inside else n_bins
    for p in range(len(tables)):
        for c in range(tables.shape[1]):
            counts[tables[p, c], index[p]] += 1


#: The loop for each measure of tuples of atoms.
LOOPS = {pair_distances: _count_distances, angles_deg: _count_angles}
