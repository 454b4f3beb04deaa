"""Energies of samples of the Boltzmann estimator: whole structures (global) or neighborhoods in them (local)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mdsim.force_field import ForceField
from mdsim.geometry import minimum_image
from mdsim.neighbors import neighbors
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor

#: Maps indices of samples to their energies in eV, differentiable with respect to the parameters.
SampleEnergies = Callable[[Tensor], Tensor]


def structure_energies(
    force_field: ForceField, system: System, positions: Float[Tensor, "sample atom 3"]
) -> SampleEnergies:
    """Total energies of whole structures, for the global estimator."""
    return lambda index: force_field.energy(system, positions[index])


def neighborhood_energies(
    force_field: ForceField,
    system: System,
    positions: Float[Tensor, "frame atom 3"],
    frames: Int[Tensor, "sample"],
    membership: Bool[Tensor, "sample atom"],
) -> SampleEnergies:
    """Summed atomic energies of neighborhoods, for the local estimator.

    A structure with several neighborhoods in a minibatch is evaluated once, so keep the samples of a frame together.

    Args:
        force_field: provides the atomic energies.
        system: the system of the structures.
        positions: Å.
        frames: index of the structure of each neighborhood.
        membership: the atoms of each neighborhood, see `closest_molecules`.

    Source: arXiv 2402.13984, local Boltzmann estimator. It assumes that a neighborhood is independent of its
    surroundings.
    """

    def energy(index: Tensor) -> Tensor:
        needed, row = torch.unique(frames[index], return_inverse=True)
        structures = positions[needed]
        pairs = neighbors(system, structures, force_field.cutoff)
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
        system: provides the molecules and the cell.
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
