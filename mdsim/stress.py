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
from mdsim.geometry import outer, volume
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
    atomic, forces, virial = atomic_energies_forces_virial(
        force_field, system, positions, neighbors_of_all, create_graph
    )
    assert system.cell is not None  # or there would be no virial
    return atomic, forces, virial / volume(system.cell)


def atomic_energies_forces_virial(
    force_field: ForceField,
    system: System,
    positions: Float[Tensor, "replica atom 3"],
    neighbors_of_all: Neighbors,
    create_graph: bool = False,
) -> tuple[Float[Tensor, "replica atom"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
    """The same with symmetric virials (eV), the stress times the volume. Each replica may have another cell.

    Where cells differ, they are in the shifts of the pairs only.
    """
    if system.cell is None:
        raise ValueError("a system with open boundaries has no volume and no stress: give it a cell")
    with torch.enable_grad():
        if not positions.requires_grad:
            positions = positions.detach().requires_grad_()
        # A force field that reads the cell is noticed by the gradient with respect to it.
        cell, shifts = system.cell.detach().requires_grad_(), shifts_of(neighbors_of_all, positions)
        strained = replace(system, cell=cell), positions, replace(neighbors_of_all, shift=shifts)
        atomic = force_field.atomic_energies(*strained)
        of_positions, of_shifts, of_cell = torch.autograd.grad(
            atomic.sum(), (positions, shifts, cell), create_graph=create_graph, allow_unused=True
        )
    with torch.set_grad_enabled(create_graph):
        virial = strained[2].virials(positions, of_positions, of_shifts)
        if of_cell is not None:
            _check_alone(len(positions), neighbors_of_all)
            virial = virial + outer(cell, of_cell).sum(0)
        virial = 0.5 * (virial + virial.mT)
    return (atomic if create_graph else atomic.detach()), -of_positions, virial


def shifts_of(pairs: Neighbors, positions: Float[Tensor, "replica atom 3"]) -> Float[Tensor, "pair 3"]:
    """The shifts of all pairs (Å), as a variable to differentiate with respect to. A graph of theirs is kept."""
    if pairs.shift is not None and pairs.shift.requires_grad:
        return pairs.shift
    shifts = positions.new_zeros(pairs.n_pairs, 3) if pairs.shift is None else pairs.shift.detach()
    return shifts.requires_grad_()


def _check_alone(n_replicas: int, pairs: Neighbors) -> None:
    """All replicas share the lattice vectors, so that the gradient with respect to them is known for their sum only."""
    if pairs.image is not None:
        raise ValueError(
            "the force field reads `System.cell`, which does not move with the cells of replicas: let it use the "
            "shifts of `neighbors` only, or simulate at constant volume"
        )
    if n_replicas != 1:
        raise ValueError(
            "the force field reads `System.cell`, which all replicas share: take its stress for one replica at a time, "
            "or let it use the shifts of `neighbors` only"
        )
