"""Dense, residual and embedding layers of GemNet, and their initialization."""

from __future__ import annotations

import math

import torch
from torch import nn

from mdsim.models.gemnet.edges import Edges
from mdsim.typing import Float, Int, Tensor

SILU_SCALE = 1 / 0.6  # restores the second moment of normally distributed input
INV_SQRT_2 = 1 / math.sqrt(2.0)  # keeps the variance of a sum of two independent terms
MAX_ATOMIC_NUMBER = 83  # bismuth: as many embeddings as the published model has


@torch.no_grad()
def he_orthogonal_(matrix: Float[Tensor, "out fan_in"]) -> Float[Tensor, "out fan_in"]:
    """Fill with a random semi-orthogonal matrix whose rows have mean 0 and variance 1 / fan_in.

    Orthogonal columns decorrelate the outputs, and the variance is that of He initialization for an activation that is
    scaled to keep the second moment (Gasteiger et al., arXiv 2106.08903, appendix).
    """
    nn.init.orthogonal_(matrix)
    variance, mean = torch.var_mean(matrix, dim=1, keepdim=True)
    return matrix.sub_(mean).div_((variance + 1e-6).sqrt() * math.sqrt(matrix.shape[1]))


def scaled_silu(x: Tensor) -> Tensor:
    """SiLU scaled to approximately unit gain."""
    return nn.functional.silu(x) * SILU_SCALE


class Dense(nn.Module):
    """A linear map without bias, by default followed by the scaled SiLU."""

    def __init__(self, fan_in: int, out: int, activation: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(fan_in, out, bias=False)
        self.activation = activation
        he_orthogonal_(self.linear.weight)

    def forward(self, x: Float[Tensor, "row fan_in"]) -> Float[Tensor, "row out"]:
        x = self.linear(x)
        return scaled_silu(x) if self.activation else x


class ResidualLayer(nn.Module):
    """(x + f(x)) / √2, with two dense layers f."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.dense_mlp = nn.Sequential(Dense(units, units), Dense(units, units))

    def forward(self, x: Float[Tensor, "row channel"]) -> Float[Tensor, "row channel"]:
        return (x + self.dense_mlp(x)) * INV_SQRT_2


class AtomEmbedding(nn.Module):
    """A trainable vector for each element."""

    def __init__(self, emb_size_atom: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(MAX_ATOMIC_NUMBER, emb_size_atom)
        nn.init.uniform_(self.embeddings.weight, -math.sqrt(3.0), math.sqrt(3.0))  # unit variance

    def forward(self, atomic_numbers: Int[Tensor, "atom"]) -> Float[Tensor, "atom channel"]:
        return self.embeddings(atomic_numbers - 1)


class EdgeEmbedding(nn.Module):
    """A dense layer on the features of sender, receiver and edge side by side."""

    def __init__(self, emb_size_atom: int, edge_features: int, out: int) -> None:
        super().__init__()
        self.dense = Dense(2 * emb_size_atom + edge_features, out)
        self.parts = (emb_size_atom, emb_size_atom, edge_features)

    def forward(
        self, h: Float[Tensor, "node atom_channel"], m: Float[Tensor, "edge channel"], edges: Edges
    ) -> Float[Tensor, "edge out"]:
        # Map atoms before expanding them to edges, which are fifty times as many.
        of_sender, of_receiver, of_edge = self.dense.linear.weight.split(self.parts, dim=1)
        x = m @ of_edge.T
        x = x + (h @ of_sender.T).index_select(0, edges.senders)
        return scaled_silu(x + (h @ of_receiver.T).index_select(0, edges.receivers))
