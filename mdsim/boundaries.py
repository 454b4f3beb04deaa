"""Boundaries of a system: periodic along three lattice vectors, or open. Mixed ones, as of a slab, are refused.

Neighbor lists, stresses, the removal of rotations and the volume of observables know three lattice vectors or none. A
slab in a cell with vacuum is equivalent for a force field with a cutoff, once the vacuum is wider than the cutoff.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from mdsim.errors import ConfigError
from mdsim.typing import Float

NAMES = "abc"
FLAT = 1e-6  # volume of a cell relative to the product of its lengths


def why_unsupported(pbc: Sequence[bool] | np.ndarray, cell: Float[np.ndarray, "3 3"]) -> str | None:
    """Why a system cannot be simulated with these boundaries, and what to do about it; None if it can.

    Args:
        pbc: whether it is periodic along each lattice vector.
        cell: lattice vectors as rows, Å. A vector of zeros is a missing one.
    """
    is_periodic: np.ndarray = np.asarray(pbc, dtype=bool).reshape(3)
    lengths = np.linalg.norm(cell, axis=1)
    is_given = lengths > 0
    if not is_periodic.any() or (is_periodic.all() and abs(np.linalg.det(cell)) > FLAT * lengths.prod()):
        return None
    if is_periodic.all() and not is_given.any():
        return "the boundaries are periodic (pbc=True) without lattice vectors: set the cell, or set pbc to False"
    without = np.logical_not(is_given if is_periodic.all() else is_periodic)
    if not without.any():
        return f"the lattice vectors {np.round(cell, 4).tolist()} lie in a plane: give three that span a volume"
    found = f"pbc={is_periodic.tolist()} and " + (
        "three lattice vectors" if is_given.all() else f"no lattice vector along {_listed(np.logical_not(is_given))}"
    )
    axes = np.flatnonzero(without)
    axis = int(axes[0]) if len(axes) == 1 else tuple(axes.tolist())
    return (
        f"the boundaries are mixed, periodic along {_listed(np.logical_not(without))} and open along "
        f"{_listed(without)} ({found}), but mdsim simulates systems that are periodic along three lattice vectors or "
        f"none. Add vacuum and make all axes periodic: atoms.center(vacuum=10, axis={axis}); atoms.pbc = True. The "
        "vacuum (here 20 Å between images) must stay wider than the cutoff of the force field, and than the range of "
        "every observable, so that images do not meet; energies and forces are then those of the slab"
    )


def _listed(chosen: np.ndarray) -> str:
    return " and ".join(NAMES[index] for index in np.flatnonzero(chosen))


def cell_of(atoms: Atoms) -> Float[np.ndarray, "3 3"] | None:
    """Lattice vectors as rows (Å), or None with open boundaries.

    Raises:
        ConfigError: periodic along some axes only, or along axes without lattice vectors.
    """
    if fault := why_unsupported(atoms.pbc, atoms.cell.array):
        raise ConfigError(fault)
    return atoms.cell.array if atoms.pbc.all() else None
