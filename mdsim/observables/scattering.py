"""Weights of pairs of elements in X-ray and neutron scattering.

Form factors of free neutral atoms (Waasmaier and Kirfel, Acta Cryst. A 51, 416 (1995)) and bound coherent scattering
lengths are those of the package `periodictable`, which the extra `scattering` installs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any, Literal, get_args

import numpy as np
import torch
from ase.data import chemical_symbols

from mdsim.observables.tuples import elements_of
from mdsim.state import System
from mdsim.typing import Float, Tensor

#: Weights of atoms: equal, form factors of X-rays, or coherent scattering lengths of neutrons.
Weighting = Literal["number", "xray", "neutron"]
#: An element and the mass number of the isotope that replaces its natural mixture, as in ("H", 2).
Isotope = tuple[str, int]


def check_weighting(weighting: str) -> None:
    """Check the name of a weighting.

    Raises:
        ValueError: it is unknown.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting must be one of {', '.join(get_args(Weighting))}, found {weighting!r}")


def pair_weights(
    system: System, q_per_A: Float[Tensor, "q"], weighting: Weighting, isotopes: Sequence[Isotope] = ()
) -> dict[tuple[str, str], Float[Tensor, "q"]]:
    """Faber-Ziman weights (2 - δ_ab) c_a c_b f_a f_b / (Σ c f)² of all pairs of elements. Their sum is 1.

    Args:
        system: provides the concentrations c of the elements.
        q_per_A: wave numbers in 1/Å, on which form factors f depend.
        weighting: what f is.
        isotopes: isotopes in place of natural elements, for neutrons.

    Raises:
        ModuleNotFoundError: `periodictable` is missing.
        ValueError: an element has no tabulated value, an isotope is of no element of the system, or Σ c f is zero.
    """
    numbers, counts = torch.unique(system.atomic_numbers.cpu(), return_counts=True)
    symbols = [chemical_symbols[number] for number in numbers.tolist()]
    if foreign := [symbol for symbol, _ in isotopes if symbol not in symbols]:
        raise ValueError(f"isotopes: the system (elements {elements_of(system)}) has no {foreign[0]}")
    share = counts.double() / counts.sum()
    factors = torch.stack([_factor(symbol, q_per_A, weighting, dict(isotopes)) for symbol in symbols])
    amplitudes = share[:, None] * factors
    total = amplitudes.sum(0).square()
    if not bool((total > 1e-12 * amplitudes.square().sum(0)).all()):
        raise ValueError(
            f"the mean {weighting} scattering amplitude of the system (elements {elements_of(system)}) is zero, so "
            "that the structure factor has no normalization: choose another isotope or a pair of elements"
        )
    return {
        (symbols[a], symbols[b]): (1 if a == b else 2) * amplitudes[a] * amplitudes[b] / total
        for a, b in combinations_with_replacement(range(len(symbols)), 2)
    }


def _factor(
    symbol: str, q_per_A: Float[Tensor, "q"], weighting: Weighting, isotopes: dict[str, int]
) -> Float[Tensor, "q"]:
    """Form factor in electrons, scattering length in fm, or 1."""
    if weighting == "number":
        return torch.ones(len(q_per_A), dtype=torch.float64)
    try:
        from periodictable import elements
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"weighting {weighting!r} needs the package periodictable: pip install 'mdsim[scattering]'"
        ) from error
    element = elements.symbol(symbol)
    if weighting == "xray":
        values = _form_factor(element, q_per_A.double().cpu().numpy())
    else:
        if symbol in isotopes and isotopes[symbol] not in element.isotopes:
            raise ValueError(f"isotopes: {symbol} has no tabulated isotope of mass number {isotopes[symbol]}")
        nuclide = element[isotopes[symbol]] if symbol in isotopes else element
        length_fm = nuclide.neutron.b_c
        values = np.full(len(q_per_A), np.nan if length_fm is None else float(length_fm))
    if not np.isfinite(values).all():
        raise ValueError(f"periodictable has no {weighting} scattering amplitude of {symbol} over the range of q")
    return torch.from_numpy(values)


def _form_factor(element: Any, q_per_A: np.ndarray) -> np.ndarray:
    """Form factor of an element of `periodictable` in electrons. NaN where it is not tabulated."""
    try:
        return np.asarray(element.xray.f0(q_per_A), dtype=np.float64)
    except KeyError:  # no such element in its table
        return np.full(len(q_per_A), np.nan)
