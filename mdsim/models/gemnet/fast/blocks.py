"""The blocks of GemNet-T with constant weights, forwards and backwards by hand: all edges, chunk by chunk.

An interaction block runs in three stages over the edges (`frozen_stages`), with the sums over triplets after the first
and the update of the atoms after the second. Features of atoms and edges are changed in place, and so are gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

from mdsim.models.gemnet.edges import Edges
from mdsim.models.gemnet.fast.layers import FrozenAtomLayers, FrozenMixing, Workspace, weight
from mdsim.models.gemnet.fast.stages import (
    Chunk,
    Circular,
    FrozenJoin,
    FrozenMessages,
    FrozenTriplets,
    FrozenUpdate,
    RadialProduct,
)
from mdsim.models.gemnet.interaction import InteractionBlock, OutputBlock
from mdsim.models.gemnet.layers import INV_SQRT_2, Dense
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class Geometry:
    """What the network sees of the positions, and the gradients with respect to it, which add up."""

    edges: Edges
    chunks: list[Chunk]
    circular: Circular
    circular_gradient: Circular


@dataclass(frozen=True)
class Shared:
    """What all blocks have in common: projections of the bases, and memory."""

    mlp_rbf3: Dense
    mlp_rbf_h: Dense
    mlp_rbf_out: Dense
    mlp_cbf3: Float[Tensor, "spherical radial cbf"]
    workspace: Workspace


class FrozenBlock:
    """An interaction block.

    Args:
        block: what it is in the model.
        shared: what it has in common with others.
        atom_scale, edge_scale: of the features that come in; the attributes are those of the features that go out.
    """

    def __init__(self, block: InteractionBlock, shared: Shared, atom_scale: float, edge_scale: float) -> None:
        self.messages = FrozenMessages(block, shared.mlp_rbf3, edge_scale, shared.workspace)
        layer = block.trip_interaction
        factor = self.messages.scale * float(layer.scale_cbf_sum.scale_factor)
        self.triplets = FrozenTriplets(FrozenMixing(layer.mlp_cbf, shared.mlp_cbf3, factor), shared.workspace)
        self.update = FrozenUpdate(block, shared.mlp_rbf_h, edge_scale, shared.workspace)
        self.atoms = FrozenAtomLayers(block.atom_update.layers, shared.workspace)
        self.atom_step = self.atoms.scale / atom_scale
        self.atom_scale = atom_scale * INV_SQRT_2
        self.join = FrozenJoin(block, self.atom_scale, self.update.scale, shared.workspace)
        self.edge_scale = self.join.scale

    def forward(self, h: Float[Tensor, "node atom_channel"], m: Float[Tensor, "edge channel"], g: Geometry) -> tuple:
        dense = m.new_zeros(g.edges.n_rows, len(self.messages.down))
        messages, updates, joins = [], [], []
        for chunk in g.chunks:
            x, saved = self.messages.forward(m[chunk.edges], chunk)
            dense.index_copy_(0, chunk.rows, x)
            messages.append(saved)

        received, triplets = self.triplets.forward(dense, g.circular, g.edges.buckets)
        to_atoms = m.new_zeros(len(h), m.shape[1])
        for chunk in g.chunks:
            product, saved = self.update.forward(m[chunk.edges], received.index_select(0, chunk.rows), chunk)
            to_atoms.index_add_(0, chunk.receivers, product)
            updates.append(saved)

        of_atoms, atoms = self.atoms.forward(to_atoms)
        h.add_(of_atoms, alpha=self.atom_step)
        ends = self.join.embedding.atoms(h)
        joins = [self.join.forward(m[chunk.edges], ends, chunk) for chunk in g.chunks]
        return dense, messages, triplets, updates, atoms, joins

    def backward(
        self,
        h_gradient: Float[Tensor, "node atom_channel"],
        m_gradient: Float[Tensor, "edge channel"],
        saved: tuple,
        g: Geometry,
    ) -> None:
        """From the gradients of what went out to those of what came in; those of the geometry are added up."""
        dense, messages, triplets, updates, atoms, joins = saved
        of_ends = m_gradient.new_zeros(2, len(h_gradient), m_gradient.shape[1])
        for chunk in g.chunks:
            self.join.backward(m_gradient[chunk.edges], of_ends, joins.pop(0), chunk)
        h_gradient += self.join.embedding.atoms_backward(of_ends)
        to_atoms = self.atoms.backward(self.atom_step * h_gradient, atoms)

        of_received = dense.new_zeros(len(dense), self.update.up.shape[1])
        for chunk in g.chunks:
            product = to_atoms.index_select(0, chunk.receivers)
            of_y = self.update.backward(m_gradient[chunk.edges], product, updates.pop(0), chunk)
            of_received.index_copy_(0, chunk.rows, of_y)
        of_dense = self.triplets.backward(
            of_received, dense, triplets, g.circular, g.circular_gradient, g.edges.buckets
        )
        for chunk in g.chunks:
            of_x = of_dense.index_select(0, chunk.rows)
            self.messages.backward(m_gradient[chunk.edges], of_x, messages.pop(0), chunk)


class FrozenOutput:
    """An output block. As the energy is its sum, it is differentiated at once.

    Args:
        block: what it is in the model.
        shared: what it has in common with others.
        edge_scale: of the features that come in.
        energy_scale: factor on the energies, eV.
    """

    def __init__(self, block: OutputBlock, shared: Shared, edge_scale: float, energy_scale: float) -> None:
        self.workspace = shared.workspace
        factor = edge_scale * float(block.scale_sum.scale_factor)
        self.product = RadialProduct([shared.mlp_rbf_out, block.dense_rbf], factor)
        self.atoms = FrozenAtomLayers(block.seq_energy, shared.workspace)
        self.energy = energy_scale * self.atoms.scale * weight(block.out_energy)

    def forward(self, m: Float[Tensor, "edge channel"], g: Geometry) -> tuple[Float[Tensor, "node"], tuple]:
        """The share of this block in the energy of each atom, eV."""
        of_atoms = m.new_zeros(g.edges.n_nodes, m.shape[1])
        for chunk in g.chunks:
            of_atoms.index_add_(0, chunk.receivers, self.product.forward(m[chunk.edges], chunk))
        features, saved = self.atoms.forward(of_atoms)
        gradient = self.atoms.backward(self.energy.expand_as(features).clone(), saved)
        return features @ self.energy[0], (self.workspace.copy(m), gradient)

    def backward(self, m_gradient: Float[Tensor, "edge channel"], saved: tuple, g: Geometry) -> None:
        """Add to the gradient of the edges."""
        m, to_atoms = saved
        for chunk in g.chunks:
            product = to_atoms.index_select(0, chunk.receivers)
            m_gradient[chunk.edges] += self.product.backward(product, m[chunk.edges], chunk)
