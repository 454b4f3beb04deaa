"""Compiled loop over the pairs of the screened Coulomb repulsion (`mdsim.repulsion.zbl`). Importing this needs numba.

It runs on one thread: few pairs are close enough for more than a distance.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from mdsim.compiled.jit import compiled


@compiled()
@no_type_check
def energies_and_forces(positions, first, second, shift, kinds, windows, terms, energy, forces, virials):
    """Add energies, forces and virials of all replicas, in closed form and double precision.

    Args:
        positions: (replica, atom, 3), Å.
        first, second: atoms of the pairs, numbered through all replicas.
        shift: (pair, 3), Å, added to the position of the second atom. (0, 3) if no shift is needed.
        kinds: (atom,), row and column of each atom in the windows.
        windows: (kind, kind, 5): charge (eV Å), screening (1/Å), beginning, width and end of the window (Å).
        terms: (term, 2), factors and rates of the screening function.
        energy: (replica,), eV.
        forces: (replica, atom, 3), eV/Å.
        virials: (replica, 3, 3), Σ d ⊗ ∂E/∂d, eV.
    """
    n_atoms = positions.shape[1]
    d = np.empty(3, np.float64)
    for p in range(len(first)):
        replica = first[p] // n_atoms
        i, j = first[p] - replica * n_atoms, second[p] - replica * n_atoms
        squared = 0.0
        for axis in range(3):
            d[axis] = np.float64(positions[replica, j, axis]) - np.float64(positions[replica, i, axis])
            if len(shift):
                d[axis] += shift[p, axis]
            squared += d[axis] * d[axis]
        charge, screening, on, width, off = windows[kinds[i], kinds[j]]
        if squared < off * off:  # false for numbers that are not finite
            r = np.sqrt(squared)
            u, slope = _energy_and_slope(r, charge, screening, on, width, terms)
            energy[replica] += u
            for axis in range(3):
                push = slope * d[axis] / r
                forces[replica, i, axis] += push
                forces[replica, j, axis] -= push
                for column in range(3):
                    virials[replica, axis, column] += push * d[column]


@compiled(inline="always")
@no_type_check
def _energy_and_slope(r, charge, screening, on, width, terms):
    """U(r) of a pair and its derivative."""
    phi, phi_slope = 0.0, 0.0
    for n in range(len(terms)):
        part = terms[n, 0] * np.exp(-terms[n, 1] * screening * r)
        phi += part
        phi_slope -= terms[n, 1] * screening * part
    bare, bare_slope = charge * phi / r, charge * (phi_slope - phi / r) / r
    t = (r - on) / width
    if t <= 0.0:
        return bare, bare_slope
    switch = 1.0 - t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)
    switch_slope = -30.0 * t * t * (1.0 - t) * (1.0 - t) / width
    return bare * switch, bare_slope * switch + bare * switch_slope
