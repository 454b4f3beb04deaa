"""Windows of the repulsion from the closest contacts of reference frames.

The rule, for the pairs of atoms that repel each other and each pair of elements:

- r_off is 0.98 times their closest contact in the frames, and r_on is 0.8 times r_off. The repulsion is then exactly
  zero in every frame, and a fit to the frames is the same as without it.
- Elements that come no closer than the sum of their van der Waals radii have no contact in the frames. Their r_off is
  the sum of their covalent radii.

Sources of the radii: Alvarez, Dalton Trans. 42, 8617 (2013); Cordero et al., Dalton Trans. 2832 (2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement
from types import MappingProxyType

import numpy as np
import torch
from ase.data import covalent_radii
from ase.data.vdw_alvarez import vdw_radii

from mdsim.neighbors import neighbors
from mdsim.repulsion.pairs import selected
from mdsim.repulsion.zbl import N_ELEMENTS, ZBL, Window, Windows
from mdsim.state import System
from mdsim.typing import Float, Tensor

OFF_OVER_CONTACT = 0.98
ON_OVER_OFF = 0.8
FRAMES_AT_ONCE = 64
NONE_GIVEN: Windows = MappingProxyType({})


def zbl_from_frames(
    system: System,
    positions: Float[Tensor, "frame atom 3"],
    cutoff_A: float,
    selection: str = "nonbonded",
    elements: Sequence[int] = (),
    given: Windows = NONE_GIVEN,
) -> ZBL:
    """A repulsion that is zero in reference frames.

    Args:
        system: the system of the frames.
        positions: reference frames, Å.
        cutoff_A: the cutoff of the force field, beyond which no window ends.
        selection: the pairs of atoms that repel each other, see `mdsim.repulsion.pairs.selected`.
        elements: atomic numbers that the force field knows besides those of the system.
        given: windows that replace those from the frames.

    Raises:
        ValueError: the repulsion would act between molecules, and there is only one; or a given window is none.
    """
    return ZBL.of(selection, {**windows_from_frames(selection, system, positions, cutoff_A, elements), **given})


def windows_from_frames(
    selection: str,
    system: System,
    positions: Float[Tensor, "frame atom 3"],
    cutoff_A: float,
    elements: Sequence[int] = (),
) -> dict[tuple[int, int], Window]:
    """The windows of all pairs of elements, see `zbl_from_frames`."""
    if selection == "between_molecules" and system.n_molecules < 2:
        raise ValueError(
            f"pairs: between_molecules, but the system is a single molecule of {system.n_atoms} atoms; use nonbonded"
        )
    known = sorted({*elements, *system.atomic_numbers.tolist()})
    return _windows(selection, [(system, positions)], known, cutoff_A)


def zbl_from_several(
    systems: Sequence[tuple[System, Float[Tensor, "_ _ 3"]]],
    cutoff_A: float,
    selection: str = "nonbonded",
    elements: Sequence[int] = (),
    given: Windows = NONE_GIVEN,
) -> ZBL:
    """A repulsion that is zero in the reference frames of several systems.

    Args:
        systems: each system with its frames, Å.
        cutoff_A, selection, elements, given: as in `zbl_from_frames`.

    Raises:
        ValueError: the repulsion would act between molecules, and every system is a single one.
    """
    if selection == "between_molecules" and all(system.n_molecules < 2 for system, _ in systems):
        raise ValueError("pairs: between_molecules, but every system is a single molecule; use nonbonded")
    known = sorted({*elements, *(number for system, _ in systems for number in system.atomic_numbers.tolist())})
    return ZBL.of(selection, {**_windows(selection, systems, known, cutoff_A), **given})


def _windows(
    selection: str, systems: Sequence[tuple[System, Tensor]], known: Sequence[int], cutoff_A: float
) -> dict[tuple[int, int], Window]:
    pairs = list(combinations_with_replacement(known, 2))
    reach_A = min(cutoff_A, max(van_der_waals_A(*pair) for pair in pairs))
    of_each = [closest_contacts(selection, system, positions, reach_A) for system, positions in systems]
    contacts = torch.stack(of_each).amin(0)
    return {pair: window(*pair, float(contacts[pair]), cutoff_A) for pair in pairs}


def window(a: int, b: int, contact_A: float, cutoff_A: float = math.inf) -> Window:
    """The window of two elements with this closest contact (infinity: none)."""
    touch = contact_A < van_der_waals_A(a, b)
    off_A = OFF_OVER_CONTACT * contact_A if touch else float(covalent_radii[a] + covalent_radii[b])
    off_A = min(round(off_A, 4), cutoff_A)
    return Window(round(ON_OVER_OFF * off_A, 4), off_A)


def closest_contacts(
    selection: str, system: System, positions: Float[Tensor, "frame atom 3"], reach_A: float
) -> Float[Tensor, "element element"]:
    """Shortest distance of each pair of elements in Å, by ascending atomic numbers; infinity beyond the reach."""
    closest = torch.full((N_ELEMENTS * N_ELEMENTS,), math.inf, dtype=torch.float64)
    system = system.to("cpu", torch.float64)
    for frames in positions.cpu().double().split(FRAMES_AT_ONCE):
        found = neighbors(system, frames, reach_A)
        first, second = found.first % system.n_atoms, found.second % system.n_atoms
        repels = selected(selection, system, first, second)
        distances = torch.linalg.vector_norm(found.displacements(frames), dim=-1)[repels]
        numbers = torch.stack([system.atomic_numbers[atoms[repels]] for atoms in (first, second)]).sort(dim=0).values
        closest.scatter_reduce_(0, numbers[0] * N_ELEMENTS + numbers[1], distances, "amin")
    return closest.reshape(N_ELEMENTS, N_ELEMENTS)


def van_der_waals_A(a: int, b: int) -> float:
    """Sum of the van der Waals radii, or twice that of the covalent radii of elements without any."""
    return sum(_radius(number) for number in (a, b))


def _radius(number: int) -> float:
    known = vdw_radii[number] if number < len(vdw_radii) else np.nan
    return float(2 * covalent_radii[number] if np.isnan(known) else known)
