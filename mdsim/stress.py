"""Stress of periodic systems: the derivative of the energy with respect to strain, for every force field.

A strain ε multiplies all positions and lattice vectors by 1 + ε. The derivative of the energy is the virial

    ∂E/∂ε = Σ_x x ⊗ ∂E/∂x

over all vectors x that are scaled: positions, the shifts of pairs across the boundary, and lattice vectors where a
force field reads them itself. Automatic differentiation yields it with the forces, in the same backward pass. The
stress is its symmetric part per volume, with the sign of ASE: a compressed crystal has negative diagonal elements. The
pressure without its kinetic part is minus a third of the trace.
Source: Nielsen and Martin, Phys. Rev. B 32, 3780 (1985).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mdsim.force_field import ForceField
from mdsim.neighbors import Neighbors, neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor


def energy_forces_stress(
    force_field: ForceField,
    system: System,
    positions: Float[Tensor, "replica atom 3"],
    neighbors_of_all: Neighbors | None = None,
    create_graph: bool = False,
) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
    """Energies (eV, relative to `zero_energy_eV`), forces (eV/Å) and symmetric stresses (eV/Å³) of all replicas.

    Args:
        force_field: any model, custom ones included.
        system: the system of all replicas, with periodic boundaries.
        positions: Å.
        neighbors_of_all: pairs of all replicas. Default: they are searched for.
        create_graph: keep all three differentiable with respect to positions and parameters.

    Raises:
        ValueError: the boundaries are open, or there are several replicas and the force field reads `System.cell`.
    """
    if neighbors_of_all is None:
        neighbors_of_all = neighbors(system, positions, force_field.cutoff)
    atomic, forces, stress = atomic_energies_forces_stress(
        force_field, system, positions, neighbors_of_all, create_graph
    )
    return atomic.sum(-1), forces, stress


def atomic_energies_forces_stress(
    force_field: ForceField,
    system: System,
    positions: Float[Tensor, "replica atom 3"],
    neighbors_of_all: Neighbors,
    create_graph: bool = False,
) -> tuple[Float[Tensor, "replica atom"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
    """The same with the energy of each atom, eV. See `energy_forces_stress`."""
    if system.cell is None:
        raise ValueError("a system with open boundaries has no volume and no stress: give it a cell")
    with torch.enable_grad():
        if not positions.requires_grad:
            positions = positions.detach().requires_grad_()
        cell, shifts = system.cell.detach().requires_grad_(), shifts_of(neighbors_of_all, positions)
        strained = replace(system, cell=cell), positions, replace(neighbors_of_all, shift=shifts)
        atomic = force_field.atomic_energies(*strained)
        of_positions, of_shifts, of_cell = torch.autograd.grad(
            atomic.sum(), (positions, shifts, cell), create_graph=create_graph, allow_unused=True
        )
    with torch.set_grad_enabled(create_graph):
        virial = outer(positions, of_positions).sum(1)
        if of_shifts is not None:
            virial = virial.index_add(0, neighbors_of_all.first // system.n_atoms, outer(shifts, of_shifts))
        if of_cell is not None:
            _check_alone(len(positions))
            virial = virial + outer(cell, of_cell).sum(0)
        stress = 0.5 * (virial + virial.mT) / torch.linalg.det(system.cell).abs()
    return (atomic if create_graph else atomic.detach()), -of_positions, stress


def shifts_of(pairs: Neighbors, positions: Float[Tensor, "replica atom 3"]) -> Float[Tensor, "pair 3"]:
    """The shifts of all pairs (Å), as a variable to differentiate with respect to."""
    shifts = positions.new_zeros(pairs.n_pairs, 3) if pairs.shift is None else pairs.shift.detach()
    return shifts.requires_grad_()


def outer(a: Float[Tensor, "*vectors 3"], b: Float[Tensor, "*vectors 3"]) -> Float[Tensor, "*vectors 3 3"]:
    """Outer products of vectors. Not as matrix products, which lose digits in mixed precision."""
    return a[..., :, None] * b[..., None, :]


def _check_alone(n_replicas: int) -> None:
    """All replicas share the lattice vectors, so that the gradient with respect to them is known for their sum only."""
    if n_replicas != 1:
        raise ValueError(
            "the force field reads `System.cell`, which all replicas share: take its stress for one replica at a time, "
            "or let it use the shifts of `neighbors` only"
        )
