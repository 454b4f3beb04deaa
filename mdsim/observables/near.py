"""Pairs of atoms within a short distance, for observables of single atoms."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from mdsim.geometry import minimum_image, pair_distances
from mdsim.observables import cells
from mdsim.observables.histogram import VALUES_PER_CHUNK
from mdsim.observables.pairs import PairKind, PairsOfRows, search, searchable
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


def near_pairs(
    system: System, rows: Float[Tensor, "row atom 3"], kind: PairKind, reach_A: float
) -> Iterator[PairsOfRows]:
    """Selected pairs up to ``reach_A`` apart (minimum image), each once, block by block of rows.

    Args:
        system: the system of the rows, with one cell or one for each row.
        rows: finite positions, Å.
        kind: selection of pairs.
        reach_A: longest distance, Å; infinity for all pairs.

    Raises:
        ValueError: the system has no such pairs.
    """
    searched = kind.count(system) and math.isfinite(reach_A) and searchable(system, len(kind.atoms(system)), reach_A)
    blocks = search(system, rows, kind, reach_A) if searched else _all_pairs(system, rows, kind)
    for found in blocks:
        yield found.chosen(torch.nonzero(found.distance <= reach_A)[:, 0])


def _all_pairs(system: System, rows: Float[Tensor, "row atom 3"], kind: PairKind) -> Iterator[PairsOfRows]:
    pairs = kind.all_of(system)
    size = max(1, VALUES_PER_CHUNK // len(pairs))
    for some, of_these in zip(rows.split(size), cells.split(system.cell, len(rows), size), strict=True):
        distance = pair_distances(some, pairs, of_these)
        row = torch.arange(len(some), device=rows.device)[:, None].expand_as(distance)
        first, second = (column.expand_as(distance) for column in pairs.T)
        yield PairsOfRows(len(some), *(values.reshape(-1) for values in (row, first, second, distance)))


def displacements(
    system: System,
    rows: Float[Tensor, "row atom 3"],
    row: Int[Tensor, "*batch"],
    start: Int[Tensor, "*batch"],
    end: Int[Tensor, "*batch"],
) -> Float[Tensor, "*batch 3"]:
    """Minimum-image vectors in Å between atoms of the given rows."""
    return minimum_image(rows[row, end] - rows[row, start], cells.of_chosen(system.cell, row))
