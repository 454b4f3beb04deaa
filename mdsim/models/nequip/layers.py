"""Equivariant layers of NequIP: linear maps, gates, and the convolution over neighbors.

The representation theory (irreps, selection rules, Wigner 3j symbols, spherical harmonics, scale of activations) is
e3nn's. The layout differs: features are one tensor per irrep with channels last. A linear map is then a single matrix
product per irrep, and loops over edges run over contiguous channels. Weights and normalization are those of the e3nn
module named in each docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import nn

from mdsim.models.nequip.irreps import Irrep, normalize2mom, wigner_3j
from mdsim.typing import Float, Int, Tensor

SCALAR = Irrep("0e")

#: By irrep, "node component channel" with 2l + 1 components.
Features = dict[Irrep, Tensor]


@dataclass(frozen=True)
class EdgeFeatures:
    """Features of directed edges, two per pair. Radial features are per pair, because both directions share them."""

    receivers: Int[Tensor, "edge"]
    senders: Int[Tensor, "edge"]
    harmonics: dict[Irrep, Tensor]  # of each degree "edge component": the direction from receiver to sender
    radial: Float[Tensor, "pair basis"]


@dataclass(frozen=True)
class Path:
    """One way to couple an irrep of the sender with a spherical harmonic to an irrep of the message."""

    ir_in: Irrep
    ir_harmonic: Irrep
    ir_out: Irrep


@lru_cache
def normalized(activation: Callable[[Tensor], Tensor]) -> nn.Module:
    """The activation, scaled to unit second moment for normally distributed input. e3nn samples to find the factor."""
    return normalize2mom(activation)


def paths_between(irreps_in: Sequence[Irrep], harmonics: Sequence[Irrep], irreps_out: Sequence[Irrep]) -> list[Path]:
    """All paths that the selection rules allow, ordered by the irreps of sender, harmonic and result."""
    return [
        Path(ir_in, ir_harmonic, ir_out)
        for ir_in in irreps_in
        for ir_harmonic in harmonics
        for ir_out in ir_in * ir_harmonic
        if ir_out in irreps_out
    ]


class Linear(nn.Module):
    """Mixes the channels of each irrep on its own (`e3nn.o3.Linear`).

    Args:
        channels_in, channels_out: multiplicities. Every output irrep must be among the input irreps.
    """

    def __init__(self, channels_in: Mapping[Irrep, int], channels_out: Mapping[Irrep, int]) -> None:
        super().__init__()
        self.irreps = {ir: str(ir) for ir in channels_out}
        self.weights = nn.ParameterDict(
            {str(ir): torch.randn(channels_in[ir], channels) for ir, channels in channels_out.items()}
        )

    def forward(self, features: Features) -> Features:
        mixed = {}
        for ir, name in self.irreps.items():
            weight = self.weights[name]
            mixed[ir] = features[ir] @ (weight / math.sqrt(len(weight)))
        return mixed


class SelfConnection(nn.Module):
    """One linear map per species (`e3nn.o3.FullyConnectedTensorProduct` with the species as one-hot scalars)."""

    def __init__(self, channels_in: Mapping[Irrep, int], channels_out: Mapping[Irrep, int], n_species: int) -> None:
        super().__init__()
        self.linear = Linear({ir: n_species * channels for ir, channels in channels_in.items()}, channels_out)

    def forward(self, features: Features, species: Float[Tensor, "node species"]) -> Features:
        own = species[:, None, None]
        return self.linear({ir: (features[ir][..., None] * own).flatten(2) for ir in self.linear.irreps})


class Gate(nn.Module):
    """Gated activations (`e3nn.nn.Gate`): SiLU of even scalars, tanh of odd ones. SiLU of further even scalars scales
    the other irreps.

    Args:
        irreps: irreps of the output.
        channels: channels per irrep.
    """

    def __init__(self, irreps: Sequence[Irrep], channels: int) -> None:
        super().__init__()
        self.gated = [ir for ir in irreps if ir.l > 0]
        self.scalars = [ir for ir in irreps if ir.l == 0]
        self.channels = channels
        self.activations = {1: normalized(nn.functional.silu), -1: normalized(torch.tanh)}

    @property
    def channels_in(self) -> dict[Irrep, int]:
        """Channels of the input. The even scalars hold the actual scalars first, then one gate per gated channel."""
        wanted = dict.fromkeys([*self.scalars, *self.gated], self.channels)
        return wanted | {SCALAR: self.channels * (1 + len(self.gated))}

    def forward(self, features: Features) -> Features:
        even, *gates = features[SCALAR].split(self.channels, dim=-1)
        scalars = {ir: features[ir] for ir in self.scalars} | {SCALAR: even}
        active = {ir: self.activations[ir.p](scalar) for ir, scalar in scalars.items()}
        for ir, gate in zip(self.gated, gates, strict=True):
            active[ir] = features[ir] * self.activations[1](gate)
        return active


class RadialNetwork(nn.Module):
    """Network without biases (`e3nn.nn.FullyConnectedNet`), so that zero input gives zero output.

    Args:
        sizes: sizes of the layers, from the radial basis to the weights of the convolution.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(rows, columns) for rows, columns in pairwise(sizes))
        self.activation = normalized(nn.functional.silu)

    def forward(self, basis: Float[Tensor, "pair basis"]) -> Float[Tensor, "pair weight"]:
        first, *others = [weight / math.sqrt(len(weight)) for weight in self.weights]
        hidden = basis @ first
        for weight in others:
            hidden = self.activation(hidden) @ weight
        return hidden


class Convolution(nn.Module):
    """Sum over neighbors of their features times the edge's spherical harmonics, with weights from its length.

    The tensor product is `e3nn.o3.TensorProduct` with "uvu" paths and component normalization.

    Args:
        irreps_in: irreps of the senders.
        harmonics: irreps of the edges.
        irreps_out: wanted irreps of the sums. Those without a path are left out.
        channels: channels per irrep.
        radial: sizes of the layers of the radial network, except the last.
    """

    def __init__(
        self,
        irreps_in: Sequence[Irrep],
        harmonics: Sequence[Irrep],
        irreps_out: Sequence[Irrep],
        channels: int,
        radial: Sequence[int],
    ) -> None:
        super().__init__()
        self.irreps_in = list(irreps_in)
        self.harmonics = list(harmonics)
        self.channels = channels
        self.paths = paths_between(irreps_in, harmonics, irreps_out)
        self.irreps_out = [ir for ir in irreps_out if any(path.ir_out == ir for path in self.paths)]
        self.radial_network = RadialNetwork([*radial, len(self.paths) * channels])
        self.exact = [coupling(path) for path in self.paths]
        for number, tensor in enumerate(self.exact):
            self.register_buffer(f"coupling_{number}", tensor.float(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Convolution:
        super()._apply(fn, recurse)
        for number, tensor in enumerate(self.exact):  # restores all digits after `.float().double()`
            setattr(self, f"coupling_{number}", tensor.to(getattr(self, f"coupling_{number}")))
        return self

    def forward(self, features: Features, edges: EdgeFeatures) -> Features:
        """Sum over each atom's neighbors. Paths to the same irrep are concatenated along the channels."""
        weights = self.radial_network(edges.radial).unflatten(-1, (len(self.paths), self.channels))
        weights = torch.cat([weights, weights])
        sent = {ir: features[ir].index_select(0, edges.senders) for ir in self.irreps_in}
        received = []
        for number, path in enumerate(self.paths):
            message = weights[:, number, None] * sent[path.ir_in]
            if path.ir_harmonic.l > 0:  # the harmonic of degree zero is one, and so is its coupling
                harmonics = edges.harmonics[path.ir_harmonic]
                matrices = torch.tensordot(harmonics, getattr(self, f"coupling_{number}"), dims=1)
                message = _transformed(matrices, message)
            total = message.new_zeros(features[path.ir_in].shape[0], *message.shape[1:])
            received.append(total.index_add(0, edges.receivers, message))
        return self.collect(received)

    def collect(self, received: Sequence[Tensor]) -> Features:
        """The sums of all paths by irrep."""
        return {
            ir: torch.cat(
                [total for path, total in zip(self.paths, received, strict=True) if path.ir_out == ir], dim=-1
            )
            for ir in self.irreps_out
        }

    @property
    def channels_out(self) -> dict[Irrep, int]:
        """Channels of each irrep of the sum: one set per path that ends there."""
        return {ir: self.channels * sum(path.ir_out == ir for path in self.paths) for ir in self.irreps_out}


def coupling(path: Path) -> Float[Tensor, "harmonic out in"]:
    """Wigner 3j symbols in float64, normalized so that results have the variance of the features."""
    symbols = wigner_3j(path.ir_in.l, path.ir_harmonic.l, path.ir_out.l, dtype=torch.float64)
    return math.sqrt(path.ir_out.dim) * symbols.permute(1, 2, 0).contiguous()


def _transformed(
    matrices: Float[Tensor, "edge out in"], features: Float[Tensor, "edge in channel"]
) -> Float[Tensor, "edge out channel"]:
    """Matrix product, column by column. Batched products of matrices this small take twice as long."""
    result = matrices[:, :, 0:1] * features[:, 0:1]
    for column in range(1, features.shape[1]):
        result = torch.addcmul(result, matrices[:, :, column, None], features[:, column, None])
    return result
