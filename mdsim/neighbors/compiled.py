"""Compiled loops over candidates and pairs, on a CPU with numba (the extra `fast`).

They are two to nine times faster than tensor operations, so that lists stay a small part of compiled steps.
The compiler cannot handle run-time type checks, hence `no_type_check`.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit


@njit(cache=True)
@no_type_check
def within(limit, atoms, points, starts, stops):
    """The atom and the point of every candidate whose squared distance is below the limit.

    Args:
        limit: squared cutoff, Å², of the type of the coordinates.
        atoms, points: coordinates in Å, of shapes (atom, 3) and (point, 3).
        starts, stops: ranges of points, of shape (atom, column).

    Returns:
        Two arrays of indices, sorted by atom.
    """
    most = 1  # memory that is not written to is not taken
    for i in range(len(atoms)):
        for column in range(starts.shape[1]):
            most += stops[i, column] - starts[i, column]
    first, second = np.empty(most, np.int64), np.empty(most, np.int64)
    found = 0
    for i in range(len(atoms)):
        for column in range(starts.shape[1]):
            for j in range(starts[i, column], stops[i, column]):
                first[found], second[found] = i, j  # overwritten unless found: no branch that is hard to predict
                found += _squared(atoms[i], points[j]) < limit
    return first[:found].copy(), second[:found].copy()


@njit(cache=True, inline="always")
@no_type_check
def _squared(a, b):
    x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    return x * x + y * y + z * z


@njit(cache=True)
@no_type_check
def shifts_in_cells(first, image, cells, n_atoms, shift):
    """Fill in the shift of every pair (Å): its image times the cell of its replica."""
    for p in range(len(first)):
        cell = cells[first[p] // n_atoms]
        for axis in range(3):
            shift[p, axis] = image[p, 0] * cell[0, axis] + image[p, 1] * cell[1, axis] + image[p, 2] * cell[2, axis]
