"""Base class of force fields that are functions of the directed edges of a graph, as most packages define theirs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.force_field import FAST_TOLERANCE, ForceField, NoFastPath
from mdsim.interfaces import Potential
from mdsim.models.frozen import frozen_copy
from mdsim.neighbors import Neighbors
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class Graph:
    """All replicas as one graph without edges between them. Node ``replica * n_atoms + atom`` is an atom of a replica.

    Attributes:
        atomic_numbers: of each node.
        positions: of each node, Å.
        edges: first and second node of each edge. Every pair within the cutoff has an edge in both directions.
        shifts: added to the position of the second node, Å. Not zero across the boundary of the cell.
        vectors: from the first to the second node, Å; differentiable with respect to positions and shifts.
        batch: replica of each node.
        n_replicas: number of replicas, each with the same number of atoms.
    """

    atomic_numbers: Int[Tensor, "node"]
    positions: Float[Tensor, "node 3"]
    edges: Int[Tensor, "2 edge"]
    shifts: Float[Tensor, "edge 3"]
    vectors: Float[Tensor, "edge 3"]
    batch: Int[Tensor, "node"]
    n_replicas: int

    @property
    def n_atoms(self) -> int:
        """Atoms of each replica."""
        return len(self.batch) // self.n_replicas

    @property
    def sizes(self) -> Int[Tensor, "replica"]:
        """Atoms of each replica, as many packages want them."""
        return self.batch.new_full((self.n_replicas,), self.n_atoms)

    @classmethod
    def of(
        cls, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors, cutoff: float
    ) -> Graph:
        """The graph of all replicas, with the pairs within the cutoff (Å)."""
        n_replicas = len(positions)
        displacements = neighbors.displacements(positions)
        # "Not beyond" instead of "within" keeps the pairs of a non-finite atom, whose energy must be non-finite too.
        beyond = displacements.detach().square().sum(-1) >= cutoff**2
        kept = torch.nonzero(~beyond)[:, 0]
        first, second = neighbors.first[kept], neighbors.second[kept]
        vectors = displacements[kept]
        shifts = torch.zeros_like(vectors) if neighbors.shift is None else neighbors.shift[kept]
        replicas = torch.arange(n_replicas, device=positions.device)
        return cls(
            system.atomic_numbers.repeat(n_replicas),
            positions.reshape(-1, 3),
            torch.stack([torch.cat([first, second]), torch.cat([second, first])]),
            torch.cat([shifts, -shifts]),
            torch.cat([vectors, -vectors]),
            replicas.repeat_interleave(system.n_atoms),
            n_replicas,
        )


class EdgeModel(ForceField):
    """A force field whose atomic energies are a function of a `Graph`. A subclass implements `node_energies`.

    Pairs, periodic images and their directions, batches of replicas, the precision of the result and the zero of energy
    are taken care of. Forces and stress follow from it by differentiation, as for every `ForceField`.
    """

    def frozen_copy(self) -> EdgeModel:
        """A copy for dynamics, which shares compiled code with this model."""
        return frozen_copy(self)

    def fast_potential(self, system: System, tolerance: float = FAST_TOLERANCE) -> Potential:
        """There is none."""
        raise NoFastPath("plain layers; kernels of its package, such as cuEquivariance, are not switched on")

    def node_energies(self, graph: Graph) -> Float[Tensor, "node"]:
        """Energy of each node in eV, relative to `zero_energy_eV`, in any precision."""
        raise NotImplementedError

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV; they sum to the energy of the replica, relative to `zero_energy_eV`."""
        self.check_species(system)
        with torch.autocast(positions.device.type, enabled=False):  # which most packages do not support
            energies = self.node_energies(Graph.of(system, positions, neighbors, self.cutoff))
        return energies.to(positions.dtype).reshape(positions.shape[:2])
