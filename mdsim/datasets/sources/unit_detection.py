"""Detection of units from bond lengths, the stiffness of bonds to hydrogen, and total energies per atom.

Every stretch vibration of a bond X-H has nearly the same force constant, 30 (C-H) to 48 eV/Å² (O-H). The slope of the
force on the hydrogen along its bond, as a function of the bond length, is minus this constant. A few thermal frames
give it within about ten percent. In kcal/mol/Å it would be 23 times larger, in Hartree/bohr 51 times smaller, so that
units of forces cannot be confused. Gradients in place of forces have the opposite sign.

All-electron energies of molecules are within two percent of the sum of their atomic energies, which gives the unit of
energies. This does not work for pseudopotentials and semi-empirical methods, which omit core electrons.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import natural_cutoffs, neighbor_list

from mdsim.datasets.sources.raw import COMMON, ENERGY_UNITS_EV, FORCE_UNITS_EV_PER_A, LENGTH_UNITS_A, RawFrames, Units
from mdsim.errors import DatasetError
from mdsim.neighbors import pairs_within
from mdsim.state import BOND_TOLERANCE
from mdsim.units import HARTREE

#: Force constants of bonds to hydrogen. The margin is smaller than the factor two between Ry and Hartree.
STRETCH_EV_PER_A2 = (24.0, 58.0)
BOND_RATIO = (0.7, 1.5)  # distance of nearest neighbors over the sum of their covalent radii
#: Total energies of the atoms H to Ar in Hartree: Hartree-Fock, with which PBE and hybrids agree within half a percent.
_H_TO_NE = [0.500, 2.862, 7.433, 14.573, 24.529, 37.689, 54.401, 74.809, 99.409, 128.547]
_NA_TO_AR = [161.859, 199.615, 241.877, 288.854, 340.719, 397.505, 459.482, 526.818]
ATOM_HARTREE = np.array([*_H_TO_NE, *_NA_TO_AR])
FRAMES_LOOKED_AT = 500
VIBRATION_A = (1e-3, 0.15)  # standard deviation of a bond length; below are constraints, above reactions
NEAREST_A = 0.02  # initial radius of the search for nearest neighbors


def with_units(name: str, raw: RawFrames, asked: Units) -> RawFrames:
    """The frames with known units: given by the user, otherwise by the format, otherwise detected.

    Args:
        name: name of the file, for error messages.
        raw: frames whose units may be unknown.
        asked: units given by the user, or None.

    Returns:
        The same frames with their units, and notes on the origin of the units.

    Raises:
        DatasetError: the units cannot be determined, or forces and energies disagree.
    """
    length, raw = _length(name, raw, asked)
    raw = replace(raw, units=replace(raw.units, length=length))
    constant = stretch_constant(raw)
    if constant is not None and constant < 0:
        raise DatasetError(
            f"{name}: forces drive bonds to hydrogen apart where they are stretched: these are gradients of the energy,"
            " not forces. Change their sign (--negate-forces)"
        )
    forces, how = _forces(name, raw, asked, constant)
    energy = asked.energy or raw.units.energy or COMMON.get(forces)
    if energy is None:
        raise DatasetError(f"{name}: in which unit are the energies? give it with --energy-unit")
    raw = replace(raw, units=replace(raw.units, forces=forces, energy=energy))
    _check_energy(name, raw, stated=asked.energy is not None)
    return raw.note("units", f"{energy}, {forces}, {length}: {how}")


def _length(name: str, raw: RawFrames, asked: Units) -> tuple[str, RawFrames]:
    """The unit of lengths, Å by default. Implausible lengths are an error and never converted."""
    length = asked.length or raw.units.length or "angstrom"
    ratio = bond_ratio(raw) * LENGTH_UNITS_A[length]
    if BOND_RATIO[0] <= ratio <= BOND_RATIO[1]:
        return length, raw
    text = f"nearest neighbors are {ratio:.2f} times the sum of their covalent radii apart"
    fitting = [
        unit
        for unit, size in LENGTH_UNITS_A.items()
        if BOND_RATIO[0] <= ratio * size / LENGTH_UNITS_A[length] <= BOND_RATIO[1]
    ]
    if asked.length is None and fitting:
        raise DatasetError(
            f"{name}: if lengths are in {length}, {text}, as they would be with {' or '.join(fitting)}; give the unit"
            f" with --length-unit ({length}, if it is right)"
        )
    return length, raw.note("warning", f"{text}: no bonds, or lengths are not in {length}")


def _forces(name: str, raw: RawFrames, asked: Units, constant: float | None) -> tuple[str, str]:
    """The unit of forces, and a note on its origin."""
    stated = asked.forces or (f"{asked.energy}/{raw.units.length}" if asked.energy else raw.units.forces)
    if constant is None:
        if stated is not None:
            return stated, "as stated, could not be checked (no bonds to hydrogen that move)"
        return _by_size(name, raw)
    fitting = [unit for unit in COMMON if _fits(constant, unit)]
    if stated is not None:
        k = f"{constant * FORCE_UNITS_EV_PER_A[stated]:.3g} eV/Å²"
        if _fits(constant, stated):
            return stated, f"as stated, and bonds to hydrogen have {k}"
        likely = f", as if it were {fitting[0]}" if fitting else ""
        against = f"bonds to hydrogen have {k} in {stated}, instead of 30 to 48{likely}"
        if asked.energy is None and asked.forces is None:
            raise DatasetError(f"{name}: {against}; give the units with --energy-unit and --force-unit")
        return stated, f"as stated, but {against}"
    if len(fitting) != 1:
        raise DatasetError(
            f"{name}: bonds to hydrogen have a force constant of {constant:.3g} in the file's unit, which fits"
            f" {' and '.join(fitting) or 'no common unit'}; give the units with --energy-unit and --force-unit"
        )
    found = constant * FORCE_UNITS_EV_PER_A[fitting[0]]
    return fitting[0], f"detected, as bonds to hydrogen have {found:.3g} eV/Å² then"


def _fits(constant: float, unit: str) -> bool:
    low, high = STRETCH_EV_PER_A2
    return low < constant * FORCE_UNITS_EV_PER_A[unit] < high


def _by_size(name: str, raw: RawFrames) -> tuple[str, str]:
    """The unit of forces without bonds to hydrogen: eV/Å if plausible, otherwise an error."""
    rms = float(np.sqrt(np.mean(np.square(_forces_of(raw), dtype=np.float64))))
    if 0.05 < rms < 5.0:
        return "eV/angstrom", f"assumed, as forces have a root mean square of {rms:.2g}"
    much = "large" if rms > 1 else "small"
    raise DatasetError(
        f"{name}: forces have a root mean square of {rms:.3g}, too {much} for eV/Å; give the units with --energy-unit"
        " and --force-unit"
    )


def stretch_constant(raw: RawFrames) -> float | None:
    """Force constant of bonds to hydrogen in the file's unit of forces per Å. None without such vibrating bonds.

    It is the median over bonds of minus the slope of the force on the hydrogen along the bond, over the bond length.
    """
    some = raw[:: -(-len(raw) // FRAMES_LOOKED_AT)]
    if raw.forces is None or len(some) < 3:
        return None
    length = LENGTH_UNITS_A[str(raw.units.length)]
    first, hydrogen, offsets = _bonds_to_hydrogen(raw.atomic_numbers, some.positions[0] * length, _cell_A(raw, length))
    if not len(first):
        return None
    arms = (some.positions[:, hydrogen] - some.positions[:, first]) * length
    if raw.cell is not None:  # atoms may be wrapped differently in each frame
        cell = _cell_A(raw, length)
        assert cell is not None
        arms = arms - np.round((arms - offsets) @ np.linalg.inv(cell)) @ cell
    lengths = np.linalg.norm(arms, axis=-1)
    along = (_forces_of(some)[:, hydrogen] * arms).sum(-1) / lengths
    stretched = lengths - lengths.mean(0)
    variance = np.square(stretched).mean(0)
    low, high = VIBRATION_A
    moving = (np.sqrt(variance) > low) & (np.sqrt(variance) < high)
    if not moving.any():
        return None
    slopes = (stretched * (along - along.mean(0))).mean(0)[moving] / variance[moving]
    return float(-np.median(slopes))


def _bonds_to_hydrogen(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heavy atom and hydrogen of each bond, and the vector between them, in one frame."""
    atoms = Atoms(numbers, positions, cell=cell, pbc=cell is not None)
    first, second, vectors = neighbor_list("ijD", atoms, natural_cutoffs(atoms, mult=BOND_TOLERANCE))
    chosen = (numbers[first] != 1) & (numbers[second] == 1)
    return first[chosen], second[chosen], vectors[chosen]


def bond_ratio(raw: RawFrames) -> float:
    """Median over atoms of the nearest-neighbor distance over the sum of covalent radii, for lengths in Å.

    One frame is used. The radius of the search grows until most atoms have a neighbor, because the unit of
    lengths is unknown.
    """
    positions = torch.from_numpy(np.array(raw.positions[:1], dtype=np.float64))
    n_atoms = positions.shape[1]
    if n_atoms < 2:
        return 1.0
    cell = None if raw.cell is None else torch.from_numpy(np.array(raw.cell, dtype=np.float64))
    radii = torch.from_numpy(covalent_radii[raw.atomic_numbers])
    reach, farthest = NEAREST_A, 10 * float(torch.linalg.vector_norm(positions.diff(dim=1), dim=-1).sum()) + NEAREST_A
    while True:
        found = pairs_within(cell, positions, reach)
        others = found.first != found.second
        first, second = found.first[others], found.second[others]
        distances = torch.linalg.vector_norm(found.displacements(positions), dim=-1)[others]
        ratios = torch.full((n_atoms,), torch.inf, dtype=torch.float64)
        for here, there in ((first, second), (second, first)):
            ratios.scatter_reduce_(0, here, distances / (radii[here] + radii[there]), "amin")
        if int(ratios.isfinite().sum()) > 0.5 * n_atoms:
            return float(ratios.median())
        if reach > farthest:  # coinciding or infinitely distant atoms
            return math.inf
        reach *= 1.5


def _check_energy(name: str, raw: RawFrames, stated: bool) -> None:
    """Raise an error if energies are all-electron energies in another unit."""
    if (raw.atomic_numbers > len(ATOM_HARTREE)).any():
        return
    atoms = -HARTREE * ATOM_HARTREE[raw.atomic_numbers - 1].sum()
    ratios = {unit: float(raw.energy.mean()) * value / atoms for unit, value in ENERGY_UNITS_EV.items()}
    all_electron = [unit for unit, ratio in ratios.items() if 0.98 < ratio < 1.04]
    if all_electron and raw.units.energy not in all_electron and not stated:
        raise DatasetError(
            f"{name}: energies look like {all_electron[0]} (those of all electrons), forces like {raw.units.forces};"
            " state both with --energy-unit and --force-unit"
        )


def _cell_A(raw: RawFrames, length: float) -> np.ndarray | None:
    return None if raw.cell is None else np.asarray(raw.cell, dtype=np.float64) * length


def _forces_of(raw: RawFrames) -> np.ndarray:
    assert raw.forces is not None
    return raw.forces
