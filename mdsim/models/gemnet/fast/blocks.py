"""Blocks of GemNet-T with constant weights, with a hand-written backward pass over all edges, chunk by chunk.

An interaction block runs over the edges in three stages (`stages.py`). The sums over triplets follow the first stage
and the update of the atoms follows the second. Features and gradients of atoms and edges are changed in place.
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
    """Functions of the positions that enter the network, and the accumulated gradients with respect to them."""

    edges: Edges
    chunks: list[Chunk]
    circular: Circular
    circular_gradient: Circular


@dataclass(frozen=True)
class Shared:
    """Projections of the bases and memory, shared by all blocks."""

    mlp_rbf3: Dense
    mlp_rbf_h: Dense
    mlp_rbf_out: Dense
    mlp_cbf3: Float[Tensor, "spherical radial cbf"]
    workspace: Workspace


class FrozenBlock:
    """An interaction block.

    Args:
        block: the block of the model.
        shared: shared by all blocks.
        atom_scale, edge_scale: scales of the input features. The attributes are the scales of the output features.
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
        """Turn output gradients into input gradients. Gradients of the geometry are accumulated."""
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
    """An output block. The energy is its sum, so the gradient is computed in the same call.

    Args:
        block: the block of the model.
        shared: shared by all blocks.
        edge_scale: scale of the input features.
        energy_scale: factor on the energies, eV.
    """

    def __init__(self, block: OutputBlock, shared: Shared, edge_scale: float, energy_scale: float) -> None:
        self.workspace = shared.workspace
        factor = edge_scale * float(block.scale_sum.scale_factor)
        self.product = RadialProduct([shared.mlp_rbf_out, block.dense_rbf], factor)
        self.atoms = FrozenAtomLayers(block.seq_energy, shared.workspace)
        self.energy = energy_scale * self.atoms.scale * weight(block.out_energy)

    def forward(self, m: Float[Tensor, "edge channel"], g: Geometry) -> tuple[Float[Tensor, "node"], tuple]:
        """Contribution of this block to the energy of each atom, eV."""
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
