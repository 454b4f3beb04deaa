"""Stages of a GemNet-T block with constant weights, with a hand-written backward pass on a chunk of edges.

As in `layers.py`, features have a scale, values needed by the backward pass are returned as `saved`, and gradients are
taken with respect to the unscaled features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from mdsim.models.gemnet.edges import Bucket, swapped, times_pairs
from mdsim.models.gemnet.fast.layers import FrozenMixing, FrozenResiduals, Workspace, silu, silu_backward, weight
from mdsim.models.gemnet.interaction import InteractionBlock
from mdsim.models.gemnet.layers import INV_SQRT_2, SILU_SCALE, Dense, EdgeEmbedding
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class Chunk:
    """A chunk of pairs whose features fit into the cache."""

    edges: slice
    senders: Int[Tensor, "edge"]
    receivers: Int[Tensor, "edge"]
    rows: Int[Tensor, "edge"]
    rbf: Float[Tensor, "pair radial"]
    rbf_gradient: Float[Tensor, "pair radial"]  # accumulates


class Circular(NamedTuple):
    """The circular basis in the dense layout, or the gradients with respect to it."""

    harmonics: Float[Tensor, "row harmonic"]
    radial: Float[Tensor, "row radial"]


class RadialProduct:
    """Product of edge features with a linear map of radial functions, which both directions of a pair share.

    Args:
        layers: the dense layers that make up the map, in order.
        scale: factor on the result.
    """

    def __init__(self, layers: Sequence[Dense], scale: float) -> None:
        first, second = map(weight, layers)
        self.matrix = scale * (second @ first)

    def forward(self, x: Float[Tensor, "edge channel"], chunk: Chunk) -> Float[Tensor, "edge channel"]:
        return times_pairs(x, chunk.rbf @ self.matrix.T)

    def backward(
        self, gradient: Float[Tensor, "edge channel"], x: Float[Tensor, "edge channel"], chunk: Chunk
    ) -> Float[Tensor, "edge channel"]:
        """Gradient of the features. The gradient of the radial functions is added to that of the chunk."""
        of_pairs = (gradient * x).unflatten(0, (-1, 2)).sum(1)
        chunk.rbf_gradient.addmm_(of_pairs, self.matrix)
        return times_pairs(gradient, chunk.rbf @ self.matrix.T)


class FrozenMessages:
    """Messages from each edge to its triplets."""

    def __init__(self, block: InteractionBlock, mlp_rbf3: Dense, scale: float, workspace: Workspace) -> None:
        self.workspace = workspace
        layer = block.trip_interaction
        self.dense = scale * weight(layer.dense_ba)
        self.product = RadialProduct([mlp_rbf3, layer.mlp_rbf], SILU_SCALE * float(layer.scale_rbf.scale_factor))
        self.down = weight(layer.down_projection).clone()
        self.scale = SILU_SCALE

    def forward(self, m: Float[Tensor, "edge channel"], chunk: Chunk) -> tuple[Float[Tensor, "edge trip"], tuple]:
        first = self.workspace.product(m, self.dense.T)
        second = self.workspace.product(self.product.forward(silu(first), chunk), self.down.T)
        return silu(second), (first, second)

    def backward(
        self,
        m_gradient: Float[Tensor, "edge channel"],
        gradient: Float[Tensor, "edge trip"],
        saved: tuple,
        chunk: Chunk,
    ) -> None:
        """Add to the gradient of the edges."""
        first, second = saved
        of_product = silu_backward(gradient, second) @ self.down
        of_first = silu_backward(self.product.backward(of_product, silu(first), chunk), first)
        m_gradient.addmm_(of_first, self.dense)


class FrozenTriplets:
    """Sums over the other edges that end at an atom, for each of its edges (see `EfficientInteractionBilinear`)."""

    def __init__(self, mixing: FrozenMixing, workspace: Workspace) -> None:
        self.mixing, self.workspace = mixing, workspace

    def forward(
        self, x: Float[Tensor, "row trip"], basis: Circular, buckets: Sequence[Bucket]
    ) -> tuple[Float[Tensor, "row bil"], list[tuple[Tensor, Tensor]]]:
        n_radial = basis.radial.shape[1]
        received, saved = x.new_empty(len(x), self.mixing.itself.shape[1] // n_radial), []
        for bucket in buckets:
            harmonics, of_edges = bucket.of(basis.harmonics), bucket.of(x)
            mixed = self.mixing.forward(torch.bmm(harmonics.mT, of_edges), self.workspace)
            others = self.workspace.empty(x, bucket.n_nodes, bucket.n_places, mixed.shape[2])
            torch.bmm(harmonics, mixed, out=others)
            others.flatten(0, 1).addmm_(of_edges.flatten(0, 1), self.mixing.itself, alpha=-1)
            of_radial = others.unflatten(2, (n_radial, -1))
            torch.sum(of_radial * bucket.of(basis.radial)[..., None], dim=2, out=bucket.of(received))
            saved.append((mixed, of_radial))
        return received, saved

    def backward(
        self,
        gradient: Float[Tensor, "row bil"],
        x: Float[Tensor, "row trip"],
        saved: list[tuple[Tensor, Tensor]],
        basis: Circular,
        basis_gradient: Circular,
        buckets: Sequence[Bucket],
    ) -> Float[Tensor, "row trip"]:
        """Gradient of the messages. The gradient of the basis is accumulated."""
        x_gradient = torch.empty_like(x)
        for bucket, (mixed, of_radial) in zip(buckets, saved, strict=True):
            harmonics, of_edges = bucket.of(basis.harmonics), bucket.of(x)
            of_received = bucket.of(gradient)[..., None, :]
            bucket.of(basis_gradient.radial).add_((of_radial * of_received).sum(3))
            of_others = (bucket.of(basis.radial)[..., None] * of_received).flatten(2)
            bucket.of(basis_gradient.harmonics).baddbmm_(of_others, mixed.mT)
            of_sums = self.mixing.backward(torch.bmm(harmonics.mT, of_others))
            bucket.of(basis_gradient.harmonics).baddbmm_(of_edges, of_sums.mT)
            of_x = bucket.of(x_gradient)
            torch.bmm(harmonics, of_sums, out=of_x)
            of_x.flatten(0, 1).addmm_(of_others.flatten(0, 1), self.mixing.itself.T, alpha=-1)
        return x_gradient


class FrozenUpdate:
    """Update of the edges by the sums over triplets, and the resulting messages to the atoms."""

    def __init__(self, block: InteractionBlock, mlp_rbf_h: Dense, scale: float, workspace: Workspace) -> None:
        self.workspace = workspace
        layer = block.trip_interaction
        self.dense = scale * weight(block.dense_ca)
        self.up = torch.cat([weight(layer.up_projection_ca), weight(layer.up_projection_ac)])
        self.before_skip = FrozenResiduals(block.layers_before_skip, SILU_SCALE * INV_SQRT_2, workspace)
        self.step = self.before_skip.scale / scale
        self.after_skip = FrozenResiduals(block.layers_after_skip, scale * INV_SQRT_2, workspace)
        self.scale = self.after_skip.scale
        to_atoms = block.atom_update
        self.product = RadialProduct(
            [mlp_rbf_h, to_atoms.dense_rbf], self.scale * float(to_atoms.scale_sum.scale_factor)
        )

    def forward(
        self, m: Float[Tensor, "edge channel"], received: Float[Tensor, "edge bil"], chunk: Chunk
    ) -> tuple[Float[Tensor, "edge channel"], tuple]:
        """Update the edges in place, and return their messages to the atoms."""
        first, up = self.workspace.product(m, self.dense.T), self.workspace.product(received, self.up.T)
        ca, ac = silu(up).chunk(2, dim=1)
        x = silu(first).add_(ca + swapped(ac), alpha=INV_SQRT_2)
        before = self.before_skip.forward(x)
        m.add_(x, alpha=self.step)
        after = self.after_skip.forward(m)
        return self.product.forward(m, chunk), (first, up, before, after, self.workspace.copy(m))

    def backward(
        self,
        m_gradient: Float[Tensor, "edge channel"],
        gradient: Float[Tensor, "edge channel"],
        saved: tuple,
        chunk: Chunk,
    ) -> Float[Tensor, "edge bil"]:
        """Complete the gradient of the edges, and return the gradient of the sums over triplets."""
        first, up, before, after, m = saved
        m_gradient += self.product.backward(gradient, m, chunk)
        self.after_skip.backward(m_gradient, after)
        of_x = self.step * m_gradient
        self.before_skip.backward(of_x, before)
        m_gradient.addmm_(silu_backward(of_x, first), self.dense)
        of_x *= INV_SQRT_2
        return silu_backward(torch.cat([of_x, swapped(of_x)], dim=1), up) @ self.up


class FrozenEmbedding:
    """Features of an edge from those of its atoms and its own (see `EdgeEmbedding`).

    Args:
        layer: the layer of the model.
        atom_scale, edge_scale: scales of the input features.
    """

    def __init__(self, layer: EdgeEmbedding, atom_scale: float, edge_scale: float, workspace: Workspace) -> None:
        self.workspace = workspace
        of_sender, of_receiver, of_edge = weight(layer.dense).split(layer.parts, dim=1)
        self.of_sender, self.of_receiver = atom_scale * of_sender, atom_scale * of_receiver
        self.of_edge = edge_scale * of_edge
        self.scale = SILU_SCALE

    def atoms(self, h: Float[Tensor, "node atom_channel"]) -> tuple[Tensor, Tensor]:
        """Contributions of each atom to the edges that start from it and to the edges that end at it."""
        return h @ self.of_sender.T, h @ self.of_receiver.T

    def atoms_backward(self, gradients: Float[Tensor, "2 node out"]) -> Float[Tensor, "node atom_channel"]:
        return gradients[0] @ self.of_sender + gradients[1] @ self.of_receiver

    def forward(self, x: Float[Tensor, "edge channel"], atoms: tuple[Tensor, Tensor], chunk: Chunk) -> Tensor:
        """Argument of the activation."""
        first = self.workspace.product(x, self.of_edge.T)
        first += atoms[0].index_select(0, chunk.senders)
        first += atoms[1].index_select(0, chunk.receivers)
        return first

    def backward(
        self,
        gradient: Float[Tensor, "edge out"],
        first: Float[Tensor, "edge out"],
        atom_gradients: Float[Tensor, "2 node out"] | None,
        chunk: Chunk,
    ) -> Float[Tensor, "edge channel"]:
        """Gradient of the edge features. The gradient of the atoms is accumulated if it is needed."""
        of_first = silu_backward(gradient, first)
        if atom_gradients is not None:
            atom_gradients[0].index_add_(0, chunk.senders, of_first)
            atom_gradients[1].index_add_(0, chunk.receivers, of_first)
        return of_first @ self.of_edge


class FrozenJoin:
    """Update of the edges by the atoms at their ends."""

    def __init__(self, block: InteractionBlock, atom_scale: float, scale: float, workspace: Workspace) -> None:
        self.embedding = FrozenEmbedding(block.concat_layer, atom_scale, scale, workspace)
        self.residuals = FrozenResiduals(block.residual_m, self.embedding.scale, workspace)
        self.step = self.residuals.scale / scale
        self.scale = scale * INV_SQRT_2

    def forward(self, m: Float[Tensor, "edge channel"], atoms: tuple[Tensor, Tensor], chunk: Chunk) -> tuple:
        """Update the edges in place."""
        first = self.embedding.forward(m, atoms, chunk)
        x = silu(first)
        residuals = self.residuals.forward(x)
        m.add_(x, alpha=self.step)
        return first, residuals

    def backward(
        self,
        m_gradient: Float[Tensor, "edge channel"],
        atom_gradients: Float[Tensor, "2 node channel"],
        saved: tuple,
        chunk: Chunk,
    ) -> None:
        """Turn the output gradient into the input gradient. The gradient of the atoms is accumulated."""
        first, residuals = saved
        of_x = self.step * m_gradient
        self.residuals.backward(of_x, residuals)
        m_gradient += self.embedding.backward(of_x, first, atom_gradients, chunk)
