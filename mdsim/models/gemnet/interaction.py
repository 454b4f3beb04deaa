"""Blocks of GemNet-T: messages over triplets, updates of atoms and edges, atomic energies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mdsim.force_field import in_full_precision
from mdsim.models.gemnet.basis import at_zero_angle
from mdsim.models.gemnet.edges import Bucket, Edges, swapped, times_pairs
from mdsim.models.gemnet.layers import INV_SQRT_2, Dense, EdgeEmbedding, ResidualLayer, he_orthogonal_
from mdsim.models.gemnet.scaling import ScaleFactor
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class Bases:
    """Features shared by all interaction blocks: radial features of pairs and the circular basis of edges."""

    rbf3: Float[Tensor, "pair rbf"]  # for messages over triplets
    rbf_h: Float[Tensor, "pair rbf"]  # for atom updates
    harmonics: Float[Tensor, "row harmonic"]
    radial: Float[Tensor, "row radial"]
    mlp_cbf3: Float[Tensor, "spherical radial cbf"]  # trainable down-projection of the circular basis


class EfficientInteractionBilinear(nn.Module):
    """The sum over the other edges b→a of each edge c→a of a bilinear form in circular basis and message.

    With radial functions e_n, the weights W¹ of the basis and W² of this block,

        y_o(c) = Σ_b Σ_ln e_n(c) Y_l0(cos φ_cab) Σ_ie W¹_lni W²_eio x_e(b),

    in three steps, by the addition theorem. First x is summed over b for each y_lm. Then the product of W¹ and W² is
    applied to the sums, once per atom. Finally the results are summed over lm for each c and n. The sums include the
    term b = c, with angle zero, which is subtracted. The sum over n comes last, so the circular basis (the product of
    harmonics and radial functions) is never formed.
    """

    def __init__(self, emb_size_trip: int, emb_size_cbf: int, emb_size_bil_trip: int) -> None:
        super().__init__()
        matrix = he_orthogonal_(torch.empty(emb_size_bil_trip, emb_size_trip * emb_size_cbf))
        self.weight = nn.Parameter(matrix.T.reshape(emb_size_trip, emb_size_cbf, emb_size_bil_trip).clone())

    def forward(self, x: Float[Tensor, "edge trip"], bases: Bases, edges: Edges) -> Float[Tensor, "edge bil"]:
        mixed, itself = self.mixing(bases.mlp_cbf3)
        dense = edges.dense(x)
        others = [self._others(bucket.of(dense), bases, bucket, mixed, itself) for bucket in edges.buckets]
        of_radial = torch.cat(others).unflatten(1, (bases.radial.shape[1], -1))
        return edges.sparse((of_radial * bases.radial[:, :, None]).sum(1))

    def _others(
        self,
        x: Float[Tensor, "node place trip"],
        bases: Bases,
        bucket: Bucket,
        mixed: Float[Tensor, "spherical trip radial_bil"],
        itself: Float[Tensor, "trip radial_bil"],
    ) -> Float[Tensor, "row radial_bil"]:
        """Sum over the other edges of an atom, for each radial function."""
        harmonics = bucket.of(bases.harmonics)
        degrees = torch.bmm(harmonics.mT, x).split([2 * degree + 1 for degree in range(len(mixed))], dim=1)
        mixed_sums = torch.cat([of_degree @ weight for of_degree, weight in zip(degrees, mixed, strict=True)], dim=1)
        return torch.baddbmm(x @ itself, harmonics, mixed_sums, beta=-1).flatten(0, 1)

    def mixing(
        self, mlp_cbf3: Float[Tensor, "spherical radial cbf"]
    ) -> tuple[Float[Tensor, "spherical trip radial_bil"], Float[Tensor, "trip radial_bil"]]:
        """Products of both weights: for each degree, and summed over degrees at angle zero."""
        product = torch.einsum("lni,eio->leno", mlp_cbf3, self.weight).flatten(2)
        at_zero = at_zero_angle(len(product), product.device, product.dtype)
        return product, torch.einsum("l,lep->ep", at_zero, product)


class TripletInteraction(nn.Module):
    """Messages from the edges b→a to the edges c→a, mixed with those of the reverse edges a→c."""

    def __init__(
        self, emb_size_edge: int, emb_size_trip: int, emb_size_bil_trip: int, emb_size_rbf: int, emb_size_cbf: int
    ) -> None:
        super().__init__()
        self.dense_ba = Dense(emb_size_edge, emb_size_edge)
        self.mlp_rbf = Dense(emb_size_rbf, emb_size_edge, activation=False)
        self.scale_rbf = ScaleFactor()
        self.down_projection = Dense(emb_size_edge, emb_size_trip)
        self.mlp_cbf = EfficientInteractionBilinear(emb_size_trip, emb_size_cbf, emb_size_bil_trip)
        self.scale_cbf_sum = ScaleFactor()
        self.up_projection_ca = Dense(emb_size_bil_trip, emb_size_edge)
        self.up_projection_ac = Dense(emb_size_bil_trip, emb_size_edge)

    def forward(self, m: Float[Tensor, "edge channel"], bases: Bases, edges: Edges) -> Float[Tensor, "edge channel"]:
        x = self.dense_ba(m)
        x = self.scale_rbf(x, times_pairs(x, self.mlp_rbf(bases.rbf3)))
        x = self.down_projection(x)
        weights = edges.triplets_of_each() if self.scale_cbf_sum.fitting else None
        y = self.scale_cbf_sum(x, self.mlp_cbf(x, bases, edges), weights)
        return (self.up_projection_ca(y) + swapped(self.up_projection_ac(y))) * INV_SQRT_2


class AtomUpdateBlock(nn.Module):
    """Update of each atom by the edges that end at it."""

    def __init__(self, emb_size_atom: int, emb_size_edge: int, emb_size_rbf: int, num_residual: int) -> None:
        super().__init__()
        self.dense_rbf = Dense(emb_size_rbf, emb_size_edge, activation=False)
        self.scale_sum = ScaleFactor()
        self.layers = _atom_layers(emb_size_atom, emb_size_edge, num_residual)

    def forward(
        self, m: Float[Tensor, "edge channel"], rbf: Float[Tensor, "pair rbf"], edges: Edges
    ) -> Float[Tensor, "node atom_channel"]:
        return self.layers(self.scale_sum(m, edges.sum_to_receivers(times_pairs(m, self.dense_rbf(rbf)))))


class OutputBlock(nn.Module):
    """Contribution of one block to the energy of each atom."""

    def __init__(self, emb_size_atom: int, emb_size_edge: int, emb_size_rbf: int, num_residual: int) -> None:
        super().__init__()
        self.dense_rbf = Dense(emb_size_rbf, emb_size_edge, activation=False)
        self.scale_sum = ScaleFactor()
        self.seq_energy = _atom_layers(emb_size_atom, emb_size_edge, num_residual)
        self.out_energy = Dense(emb_size_atom, 1, activation=False)

    def forward(
        self, m: Float[Tensor, "edge channel"], rbf: Float[Tensor, "pair rbf"], edges: Edges
    ) -> Float[Tensor, "node 1"]:
        x = self.scale_sum(m, edges.sum_to_receivers(times_pairs(m, self.dense_rbf(rbf))))
        x = self.seq_energy(x)
        with in_full_precision(x):
            return self.out_energy(x.to(self.out_energy.linear.weight.dtype))


def _atom_layers(emb_size_atom: int, emb_size_edge: int, num_residual: int) -> nn.Sequential:
    return nn.Sequential(
        Dense(emb_size_edge, emb_size_atom), *[ResidualLayer(emb_size_atom) for _ in range(num_residual)]
    )


class InteractionBlock(nn.Module):
    """One round of messages: edges from triplets, atoms from edges, edges from atoms."""

    def __init__(
        self,
        emb_size_atom: int,
        emb_size_edge: int,
        emb_size_trip: int,
        emb_size_rbf: int,
        emb_size_cbf: int,
        emb_size_bil_trip: int,
        num_before_skip: int,
        num_after_skip: int,
        num_concat: int,
        num_atom: int,
    ) -> None:
        super().__init__()
        self.dense_ca = Dense(emb_size_edge, emb_size_edge)
        self.trip_interaction = TripletInteraction(
            emb_size_edge, emb_size_trip, emb_size_bil_trip, emb_size_rbf, emb_size_cbf
        )
        self.layers_before_skip = _residual_layers(num_before_skip, emb_size_edge)
        self.layers_after_skip = _residual_layers(num_after_skip, emb_size_edge)
        self.atom_update = AtomUpdateBlock(emb_size_atom, emb_size_edge, emb_size_rbf, num_atom)
        self.concat_layer = EdgeEmbedding(emb_size_atom, emb_size_edge, emb_size_edge)
        self.residual_m = _residual_layers(num_concat, emb_size_edge)

    def forward(
        self, h: Float[Tensor, "node atom_channel"], m: Float[Tensor, "edge channel"], bases: Bases, edges: Edges
    ) -> tuple[Float[Tensor, "node atom_channel"], Float[Tensor, "edge channel"]]:
        x = (self.dense_ca(m) + self.trip_interaction(m, bases, edges)) * INV_SQRT_2
        m = (m + self.layers_before_skip(x)) * INV_SQRT_2
        m = self.layers_after_skip(m)
        h = (h + self.atom_update(m, bases.rbf_h, edges)) * INV_SQRT_2
        m = (m + self.residual_m(self.concat_layer(h, m, edges))) * INV_SQRT_2
        return h, m


def _residual_layers(number: int, units: int) -> nn.Sequential:
    return nn.Sequential(*[ResidualLayer(units) for _ in range(number)])
