"""Tuples of atom indices (pairs, bonds, angles): selection by element, and evaluation in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ase.data import atomic_numbers, chemical_symbols

from mdsim.observables import cells
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor

#: A function of the positions of some rows, of some tuples of atoms, and of the cell.
TupleFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def atomic_number(symbol: str) -> int:
    """Atomic number of a chemical symbol.

    Raises:
        ValueError: no element has this symbol.
    """
    if symbol not in chemical_symbols[1:]:
        raise ValueError(f"unknown element {symbol!r}: use chemical symbols such as 'H' or 'O'")
    return atomic_numbers[symbol]


def elements_of(system: System) -> str:
    """The elements of a system, for error messages."""
    return ", ".join(chemical_symbols[number] for number in sorted(set(system.atomic_numbers.tolist())))


def atoms_of(system: System, element: str) -> Bool[Tensor, "atom"]:
    """Mask of the atoms of an element.

    Raises:
        ValueError: the element is unknown, or the system has no such atom.
    """
    chosen = system.atomic_numbers == atomic_number(element)
    if not chosen.any():
        raise ValueError(f"the system (elements {elements_of(system)}) has no atom of element {element!r}")
    return chosen


def of_elements(
    system: System, tuples: Int[Tensor, "tuple order"], elements: tuple[str, ...] | None, noun: str
) -> Int[Tensor, "chosen order"]:
    """The tuples whose atoms are of the given elements, read in either direction.

    Args:
        system: the atoms that the tuples index.
        tuples: atom indices.
        elements: chemical symbols, one per atom of a tuple; None chooses all.
        noun: name of a tuple, for the error message.

    Raises:
        ValueError: an unknown element, the wrong number of elements, or nothing left.
    """
    chosen = tuples
    if elements is not None:
        if len(elements) != tuples.shape[1]:
            raise ValueError(f"elements of a {noun}: expected {tuples.shape[1]} symbols, found {elements!r}")
        wanted = torch.tensor([atomic_number(symbol) for symbol in elements], device=tuples.device)
        found = system.atomic_numbers[tuples]
        chosen = tuples[(found == wanted).all(-1) | (found == wanted.flip(0)).all(-1)]
    if len(chosen) == 0:
        kind = "" if elements is None else "-".join(elements) + " "
        raise ValueError(f"the system (elements {elements_of(system)}) has no {kind}{noun}")
    return chosen


def map_in_chunks(
    function: TupleFunction,
    positions: Float[Tensor, "row atom 3"],
    tuples: Int[Tensor, "tuple order"],
    cell: Float[Tensor, "*row 3 3"] | None,
    values_per_chunk: int,
) -> list[Tensor]:
    """Apply a function to all rows and tuples, at most ``values_per_chunk`` of their combinations at a time.

    Args:
        function: of some rows, some tuples and the cell, or the cells of these rows.
        positions: Å.
        tuples: atom indices.
        cell: Å, one for all rows or one for each. None for open boundaries.
        values_per_chunk: bounds the memory.

    Returns:
        The results for all rows, one tensor per block of tuples. The caller reduces them, for example by a sum.
    """
    results = []
    for block in tuples.split(values_per_chunk):
        size = max(1, values_per_chunk // len(block))
        parts = zip(positions.split(size), cells.split(cell, len(positions), size), strict=True)
        results.append(torch.cat([function(rows, block, of_these) for rows, of_these in parts]))
    return results
