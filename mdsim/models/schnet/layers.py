"""Layers of SchNet: Gaussian basis, shifted softplus, and the interaction block.

Parameters have the names, the order and the random initial values of `torch_geometric.nn.models.schnet`. Weights saved
by either load into the other, and a seed gives the same model.
"""

from __future__ import annotations

import torch
from torch import nn

from mdsim.typing import Float, Tensor


class GaussianSmearing(nn.Module):
    """Gaussians evenly spaced between two distances (Å), with a standard deviation equal to the spacing."""

    offset: Tensor

    def __init__(self, start: float, stop: float, num_gaussians: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.linspace(start, stop, num_gaussians))
        self.coeff = -0.5 / (self.offset[1] - self.offset[0]).item() ** 2

    def forward(self, distances: Float[Tensor, "distance"]) -> Float[Tensor, "distance gaussian"]:
        return torch.exp(self.coeff * (distances[:, None] - self.offset).square())


class ShiftedSoftplus(nn.Module):
    """ln(1 + exp(x)) - ln 2, which is zero at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.tensor(2.0).log().item()  # rounded to float32, as in the published weights' program

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x) - self.shift


class ContinuousFilterConvolution(nn.Module):
    """The linear maps before and after the sum over neighbors. The sum itself is taken by the model.

    Args:
        channels: features per atom.
        num_filters: channels of the filters.
        filter_network: the network that makes the filters, here under a second name.
    """

    def __init__(self, channels: int, num_filters: int, filter_network: nn.Sequential) -> None:
        super().__init__()
        self.lin1 = nn.Linear(channels, num_filters, bias=False)
        self.lin2 = nn.Linear(num_filters, channels)
        self.nn = filter_network
        self.initialize()

    def initialize(self) -> None:
        """Draw the initial weights."""
        nn.init.xavier_uniform_(self.lin1.weight)
        _initialize(self.lin2)


class InteractionBlock(nn.Module):
    """The layers of one interaction: filter network, convolution, activation, and a linear map.

    Args:
        channels: features per atom.
        num_gaussians: radial basis functions.
        num_filters: channels of the filters.
    """

    def __init__(self, channels: int, num_gaussians: int, num_filters: int) -> None:
        super().__init__()
        first, second = nn.Linear(num_gaussians, num_filters), nn.Linear(num_filters, num_filters)
        self.mlp = nn.Sequential(first, ShiftedSoftplus(), second)
        self.conv = ContinuousFilterConvolution(channels, num_filters, self.mlp)
        self.act = ShiftedSoftplus()
        self.lin = nn.Linear(channels, channels)
        _initialize(first)
        _initialize(second)
        self.conv.initialize()
        _initialize(self.lin)


def _initialize(layer: nn.Linear) -> None:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
