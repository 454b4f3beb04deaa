"""Energies of samples of the Boltzmann estimator: whole structures (global) or neighborhoods in them (local)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mdsim.force_field import ForceField
from mdsim.geometry import minimum_image
from mdsim.neighbors import pairs_within
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor

#: Maps indices of samples to their energies in eV, differentiable with respect to the parameters.
SampleEnergies = Callable[[Tensor], Tensor]


def structure_energies(
    force_field: ForceField,
    system: System,
    positions: Float[Tensor, "sample atom 3"],
    cells: Float[Tensor, "sample 3 3"] | None = None,
) -> SampleEnergies:
    """Total energies of whole structures, for the global estimator.

    At constant pressure the energies are those in the cells of the structures. The work P₀ V of a structure does not
    depend on the parameters, so that it is not part of the estimator: d<g>/dθ = -Cov(g, ∂U/∂θ)/kT, as at constant
    volume.
    """
    if cells is None:
        return lambda index: force_field.energy(system, positions[index])

    def energy(index: Tensor) -> Tensor:
        structures = positions[index]
        return force_field.energy(system, structures, pairs_within(cells[index], structures, force_field.cutoff))

    return energy


def neighborhood_energies(
    force_field: ForceField,
    system: System,
    positions: Float[Tensor, "frame atom 3"],
    frames: Int[Tensor, "sample"],
    membership: Bool[Tensor, "sample atom"],
    cells: Float[Tensor, "frame 3 3"] | None = None,
) -> SampleEnergies:
    """Summed atomic energies of neighborhoods, for the local estimator.

    A structure with several neighborhoods in a minibatch is evaluated once, so keep the samples of a frame together.

    Args:
        force_field: provides the atomic energies.
        system: the system of the structures.
        positions: Å.
        frames: index of the structure of each neighborhood.
        membership: the atoms of each neighborhood, see `closest_molecules`.
        cells: lattice vectors of the structures, Å, where they move. None: those of the system.

    Source: arXiv 2402.13984, local Boltzmann estimator. It assumes that a neighborhood is independent of its
    surroundings.
    """

    def energy(index: Tensor) -> Tensor:
        needed, row = torch.unique(frames[index], return_inverse=True)
        structures = positions[needed]
        pairs = pairs_within(system.cell if cells is None else cells[needed], structures, force_field.cutoff)
        return local_energies(force_field.atomic_energies(system, structures, pairs)[row], membership[index])

    return energy


def local_energies(
    atomic_energies: Float[Tensor, "sample atom"], membership: Bool[Tensor, "sample atom"]
) -> Float[Tensor, "sample"]:
    """Sum of the atomic energies of each neighborhood, eV."""
    return torch.where(membership, atomic_energies, 0).sum(-1)


def closest_molecules(
    system: System,
    positions: Float[Tensor, "sample atom 3"],
    centers: Int[Tensor, "sample"],
    n_molecules: int,
) -> Bool[Tensor, "sample atom"]:
    """Mask of the atoms of the molecules closest to a central atom, including its own molecule.

    Args:
        system: provides the molecules and the cell, or the cells of the samples.
        positions: Å.
        centers: the central atom of each sample.
        n_molecules: whole molecules per neighborhood, ranked by the distance of their nearest atom to the center.
    """
    found = system.n_molecules
    if not 1 <= n_molecules <= found:
        raise ValueError(f"n_molecules must lie between 1 and the {found} molecules of the system, found {n_molecules}")
    center = positions.gather(1, centers[:, None, None].expand(-1, 1, 3))
    squared = minimum_image(positions - center, system.cell).square().sum(-1)
    molecule = system.molecules.expand(len(positions), -1)
    nearest = squared.new_full((len(positions), found), math.inf).scatter_reduce(1, molecule, squared, "amin")
    chosen = torch.zeros_like(nearest, dtype=torch.bool)
    chosen.scatter_(1, nearest.topk(n_molecules, largest=False).indices, True)
    return chosen.gather(1, molecule)
