"""Atomic reference energies: one energy per element, summed over a composition.

A composition is a row of atom counts by atomic number. Total energies of training frames fix the sum Σ n_Z e_Z of their
compositions, and with it that of every linear combination of them: two molecules, half a box of water. All other
compositions keep some freedom, which `fitted` resolves by a rule.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

from mdsim.typing import Float, Int, Tensor

N_ELEMENTS = len(chemical_symbols)  # rows of tables by atomic number; row 0 is no element
_TOLERANCE = 1e-8  # of projections of integer vectors


def by_number(table: Mapping[str, float]) -> dict[int, float]:
    """A table of energies by chemical symbol, by atomic number."""
    return {atomic_numbers[symbol]: float(energy) for symbol, energy in table.items()}


def composition(numbers: Int[Tensor, "atom"]) -> Int[Tensor, "element"]:
    """Atoms of each element."""
    return torch.bincount(numbers, minlength=N_ELEMENTS)


def formula(counts: Int[Tensor, "element"]) -> str:
    """The composition in Hill's order: C9H8O4."""
    counts = counts.cpu()
    return Formula.from_dict({chemical_symbols[z]: int(counts[z]) for z in torch.nonzero(counts)[:, 0]}).format("hill")


def undetermined_part(
    counts: Int[Tensor, "element"], known: Int[Tensor, "composition element"]
) -> Float[Tensor, "element"]:
    """The part of a composition that is orthogonal to the known ones, exactly zero if they determine its energy."""
    rows = known.double()
    rest = counts.double() - torch.linalg.pinv(rows) @ (rows @ counts.double())
    return torch.where(rest.norm() > _TOLERANCE * counts.double().norm(), rest, 0.0)


def fitted(
    compositions: Int[Tensor, "composition element"],
    energies: Float[Tensor, "composition"],
    atoms: Float[Tensor, "element"],
) -> Float[Tensor, "element"]:
    """Reference energies (eV) that sum to the energies of the compositions, by least squares.

    If the compositions do not determine them, the differences from the isolated atoms are as equal as possible for all
    atoms. A single composition without isolated atoms thus gives each atom an equal share, like NequIP's mean per atom.
    This rule needs no table and holds for energies of any origin, including valence-only and classical ones.

    Args:
        compositions: atoms of each element.
        energies: total energies, eV.
        atoms: energies of isolated atoms, eV. NaN if unknown. Known ones change only by the equal share, which is then
            the mean binding energy per atom.
    """
    if not len(compositions):
        return atoms.nan_to_num(0.0).double()
    present = compositions.sum(0) > 0
    free = atoms.isnan() & present
    counts = compositions.double()
    rest = energies.double() - counts @ atoms.nan_to_num(0.0).double()
    sizes = counts.sum(1)
    inverse = torch.linalg.pinv(counts[:, free])
    beyond = sizes - counts[:, free] @ (inverse @ sizes)
    if beyond.norm() > _TOLERANCE * sizes.norm():  # the data determine the share
        share = beyond @ rest / beyond.square().sum()
    else:  # free elements can compensate any share, so choose the one that minimizes the compensation
        made_up = inverse @ sizes
        share = made_up @ (inverse @ rest) / made_up.square().sum()
    result = atoms.nan_to_num(0.0).double() + torch.where(present | ~atoms.isnan(), share, 0.0)
    result[free] += inverse @ (rest - share * sizes)
    return result
