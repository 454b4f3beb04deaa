"""Molecules that published force fields were trained on, by the names in their configurations."""

from __future__ import annotations

import torch
from ase.symbols import symbols2numbers

from mdsim.typing import Int, Tensor

# MD17 (Chmiela et al., Science Advances 3, e1603015 (2017)), rMD17 and MD22.
FORMULAS = {
    "Ac-Ala3-NHMe": "C12H22N4O4",
    "ac_Ala3_NHMe": "C12H22N4O4",
    "aspirin": "C9H8O4",
    "azobenzene": "C12H10N2",
    "benzene": "C6H6",
    "ethanol": "C2H6O",
    "malonaldehyde": "C3H4O2",
    "naphthalene": "C10H8",
    "paracetamol": "C8H9NO2",
    "salicylic_acid": "C7H6O3",
    "toluene": "C7H8",
    "uracil": "C4H4N2O2",
}


def numbers_of(*names: object) -> Int[Tensor, "atom"] | None:
    """Atomic numbers of the first molecule that any of the names denotes, or None."""
    known = [FORMULAS[name] for name in names if isinstance(name, str) and name in FORMULAS]
    return torch.tensor(symbols2numbers(known[0])) if known else None
