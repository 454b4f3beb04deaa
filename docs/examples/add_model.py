"""A custom force field: radial symmetry functions and a small network for each atom.

The atom-centered functions G² of Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007), one set for each element of
the neighbor,

    G_i(k, Z) = Σ_j [Z_j = Z] exp(-η (r_ij - r_k)²) f_c(r_ij),

go with the element of the atom into a network that returns its energy. Only `atomic_energies` is written here:
energies, forces, batches of replicas, periodic images, dynamics and the Boltzmann estimator follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from mdsim.force_field import ForceField
from mdsim.neighbors import Neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor

MAX_ATOMIC_NUMBER = 100


class RadialNetwork(ForceField):
    """A two-layer network on radial symmetry functions.

    Args:
        species: atomic numbers in the training data; the run passes them.
        n_radial: functions for each element, at distances evenly spaced up to the cutoff.
        hidden: units of the hidden layers.
        cutoff_A: Å.
    """

    energy_scale_eV: Tensor
    centers_A: Tensor
    column: Tensor

    def __init__(self, species: Sequence[int], n_radial: int = 16, hidden: int = 64, cutoff_A: float = 5.0) -> None:
        super().__init__(cutoff_A, tuple(species))
        self.register_buffer("centers_A", torch.linspace(0.5, cutoff_A, n_radial))
        self.register_buffer("energy_scale_eV", torch.tensor(1.0))
        column = torch.zeros(MAX_ATOMIC_NUMBER, dtype=torch.long)  # atomic number -> position among the species
        column[self.species] = torch.arange(len(self.species))
        self.register_buffer("column", column)
        n_species = len(self.species)
        self.network = nn.Sequential(
            nn.Linear(n_species * (n_radial + 1), hidden),
            nn.SiLU(),  # smooth: forces are derivatives
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 1),
        )

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV. Their sum is the energy of the replica, relative to `zero_energy_eV`."""
        kinds = self.column[system.atomic_numbers].repeat(len(positions))
        n_species = len(self.species)
        density = self._density(positions, neighbors, kinds, n_species)
        own = nn.functional.one_hot(kinds, n_species).to(density)
        energies = self.network(torch.cat([density, own], dim=-1))
        return self.energy_scale_eV * energies.reshape(positions.shape[:2])

    def _density(
        self, positions: Tensor, neighbors: Neighbors, kinds: Tensor, n_species: int
    ) -> Float[Tensor, "node feature"]:
        """Symmetry functions of all atoms of all replicas, with consecutive indices."""
        # Pairs can be beyond the cutoff. The clamped distance gives them a weight of zero with slope zero.
        distances = torch.linalg.vector_norm(neighbors.displacements(positions), dim=-1).clamp(max=self.cutoff)
        weight = 0.5 * (torch.cos(math.pi / self.cutoff * distances) + 1.0)
        spacing = self.centers_A[1] - self.centers_A[0]
        radial = torch.exp(-((distances[:, None] - self.centers_A) / spacing).square()) * weight[:, None]
        receivers, senders = neighbors.both_directions()
        density = radial.new_zeros(len(kinds) * n_species, radial.shape[1])
        density = density.index_add(0, receivers * n_species + kinds[senders], radial.repeat(2, 1))
        return density.reshape(len(kinds), -1)

    def normalize_to(
        self,
        system: System,
        positions: Float[Tensor, "frame atom 3"],
        energy: Float[Tensor, "frame"],
        forces: Float[Tensor, "frame atom 3"],
    ) -> None:
        """Set the zero of energy and the scale of the output from the training set, before a fit."""
        super().normalize_to(system, positions, energy, forces)
        self.energy_scale_eV.fill_(forces.square().mean().sqrt())  # of an ångström
