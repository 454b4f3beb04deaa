"""Units from the stiffness of bonds: the force constant of an atom that is moved along a bond.

Bonds to hydrogen have 24 to 58 eV/Å² (`mdsim.datasets.sources.unit_detection`), and are the best scale. Other covalent
bonds, metals and salts have wider ranges, which still exclude most wrong units.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from mdsim.datasets.sources.raw import ENERGY_UNITS_EV, FORCE_UNITS_EV_PER_A
from mdsim.datasets.sources.unit_detection import STRETCH_EV_PER_A2
from mdsim.geometry import minimum_image
from mdsim.interfaces import Potential
from mdsim.state import System
from mdsim.stress_test.findings import Finding
from mdsim.stress_test.structure import Structure
from mdsim.typing import Float, Int, Tensor

STEP_A = 0.01
MOST_BONDS = 24
EV_PER_A = "eV/angstrom"
#: Units that a force field may hand out by mistake: gradients per Å of other energies, and atomic units.
UNITS = (*(f"{energy}/angstrom" for energy in ENERGY_UNITS_EV), "Hartree/bohr", "Ry/bohr")
#: Plausible force constants of the atom that moves, eV/Å², by the kind of bond.
PLAUSIBLE_EV_PER_A2 = {
    "bonds to hydrogen": STRETCH_EV_PER_A2,
    "covalent bonds": (8.0, 160.0),
    "bonds of metals and ions": (0.2, 45.0),
}


@dataclass(frozen=True)
class Stiffness:
    """Median force constant of the bonds of one kind, as if forces were in eV/Å."""

    kind: str
    n_bonds: int
    median_eV_per_A2: float
    lowest_plausible_eV_per_A2: float
    highest_plausible_eV_per_A2: float
    fitting_units: tuple[str, ...]


def stiffness(potential: Potential, structure: Structure) -> Stiffness | None:
    """Force constants of the best kind of bond that the structure has. None without bonds.

    Args:
        potential: forces as they are handed out, taken as eV/Å.
        structure: its first structure.
    """
    kind, bonds = _bonds(structure)
    if not len(bonds):
        return None
    bonds = bonds[:: -(-len(bonds) // MOST_BONDS)]
    constants = _constants(potential, structure.system, structure.reference, bonds)
    finite = constants[torch.isfinite(constants)]
    median = float(finite.median()) if len(finite) else float("nan")
    low, high = PLAUSIBLE_EV_PER_A2[kind]
    fitting = tuple(unit for unit in UNITS if low <= median * FORCE_UNITS_EV_PER_A[unit] <= high)
    return Stiffness(kind, len(bonds), median, low, high, fitting)


def judge(found: Stiffness | None) -> Finding:
    """The finding on the units of forces."""
    if found is None:
        return Finding("units", "skipped", "units of forces: the structure has no bonds to compare with")
    values = asdict(found) | {"fitting_units": list(found.fitting_units)}
    k, plausible = (
        found.median_eV_per_A2,
        f"{found.lowest_plausible_eV_per_A2:g} to {found.highest_plausible_eV_per_A2:g}",
    )
    if EV_PER_A in found.fitting_units:
        text = f"{found.kind} have {k:.3g} eV/Å² (plausible: {plausible}): forces are in eV/Å"
        return Finding("units", "pass", text, values)
    text = f"{found.kind} have {k:.3g} eV/Å² instead of {plausible}"
    if k <= 0:
        return Finding("units", "warn", f"{text}: the structure is not near a minimum of this force field", values)
    if found.fitting_units:
        likely = " or ".join(found.fitting_units)
        return Finding("units", "fail", f"{text}: forces are not in eV/Å, but look like {likely}", values)
    return Finding("units", "warn", f"{text}: neither eV/Å nor another common unit fits", values)


def _bonds(structure: Structure) -> tuple[str, Int[Tensor, "bond 2"]]:
    """The best kind of bond, and its bonds with the atom that moves last."""
    covalent, everything = structure.topology.bonds, structure.system.bonds
    numbers = structure.system.atomic_numbers
    to_hydrogen = covalent[((numbers[covalent] == 1).sum(-1) == 1)]
    if len(to_hydrogen):
        order = (numbers[to_hydrogen] == 1).int().argsort(dim=-1, stable=True)
        return "bonds to hydrogen", to_hydrogen.gather(1, order)
    return ("covalent bonds", covalent) if len(covalent) else ("bonds of metals and ions", everything)


def _constants(
    potential: Potential, system: System, reference: Float[Tensor, "atom 3"], bonds: Int[Tensor, "bond 2"]
) -> Float[Tensor, "bond"]:
    """Minus the slope of the force on the second atom along each bond, eV/Å²."""
    arms = minimum_image(reference[bonds[:, 1]] - reference[bonds[:, 0]], system.cell)
    along = arms / torch.linalg.vector_norm(arms, dim=-1, keepdim=True)
    moved = torch.zeros(len(bonds), *reference.shape, dtype=reference.dtype)
    rows = torch.arange(len(bonds))
    moved[rows, bonds[:, 1]] = STEP_A * along
    _, forces = potential(torch.cat([reference + moved, reference - moved]))
    pull = (forces.double().unflatten(0, (2, -1))[:, rows, bonds[:, 1]] * along).sum(-1)
    return -(pull[0] - pull[1]) / (2 * STEP_A)
