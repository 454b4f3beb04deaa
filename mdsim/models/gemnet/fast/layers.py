"""Layers of GemNet with constant weights, in place, with a hand-written backward pass.

Features x are stored as x̂ with x = scale · x̂. Constants such as 1/√2 and the scale of the activation are then part of
the weights, and a residual is a plain addition. Values needed by the backward pass are returned as `saved`. Gradients
are taken with respect to x̂.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from mdsim.models.gemnet.interaction import EfficientInteractionBilinear
from mdsim.models.gemnet.layers import INV_SQRT_2, SILU_SCALE, Dense, ResidualLayer
from mdsim.typing import Float, Tensor

silu = nn.functional.silu
silu_backward = torch.ops.aten.silu_backward


class Workspace:
    """Memory for the values that the backward pass needs, kept from one call to the next.

    On a CPU, allocating it anew costs more than filling it.
    """

    BLOCK = 2**22  # numbers in a block of memory, unless a single tensor needs more
    ALIGNMENT = 16  # numbers; tensors then start at multiples of the size of a vector register

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self.restart()

    def restart(self) -> None:
        """Mark all memory as free for reuse."""
        self._current, self._used = 0, 0

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        """An uninitialized tensor of this shape, with the type and device of ``like``."""
        size = math.prod(shape)
        while self._current < len(self._blocks):
            block = self._blocks[self._current]
            if self._used + size <= len(block) and block.dtype == like.dtype and block.device == like.device:
                start = self._used
                self._used = start + -(-size // self.ALIGNMENT) * self.ALIGNMENT
                return block[start : start + size].view(shape)
            self._current, self._used = self._current + 1, 0
        self._blocks.append(like.new_empty(max(size, self.BLOCK)))
        return self.empty(like, *shape)

    def product(
        self, x: Float[Tensor, "row channel"], matrix: Float[Tensor, "channel out"]
    ) -> Float[Tensor, "row out"]:
        """A matrix product, stored in the workspace."""
        return torch.mm(x, matrix, out=self.empty(x, len(x), matrix.shape[1]))

    def copy(self, x: Tensor) -> Tensor:
        """A copy, stored in the workspace."""
        return self.empty(x, *x.shape).copy_(x)


def weight(layer: nn.Module) -> Float[Tensor, "out fan_in"]:
    """The weights of a dense layer, detached from autograd."""
    assert isinstance(layer, Dense)
    return layer.linear.weight.detach()


class FrozenResiduals:
    """A sequence of residual layers.

    Args:
        layers: the layers of the model.
        scale: scale of the input features. ``self.scale`` is that of the output features.
        workspace: memory for saved values.
    """

    def __init__(self, layers: nn.Module, scale: float, workspace: Workspace) -> None:
        self.workspace = workspace
        self.layers: list[tuple[Tensor, Tensor, float]] = []
        for layer in layers.children():
            assert isinstance(layer, ResidualLayer)
            inner, outer = map(weight, layer.dense_mlp)
            self.layers.append((scale * inner, SILU_SCALE * outer, SILU_SCALE / scale))
            scale *= INV_SQRT_2
        self.scale = scale

    def forward(self, x: Float[Tensor, "row channel"]) -> list[tuple[Tensor, Tensor]]:
        """Add the residuals to the features."""
        saved = []
        for inner, outer, step in self.layers:
            first = self.workspace.product(x, inner.T)
            second = self.workspace.product(silu(first), outer.T)
            x.add_(silu(second), alpha=step)
            saved.append((first, second))
        return saved

    def backward(self, gradient: Float[Tensor, "row channel"], saved: list[tuple[Tensor, Tensor]]) -> None:
        """Turn the output gradient into the input gradient."""
        for (inner, outer, step), (first, second) in zip(reversed(self.layers), reversed(saved), strict=True):
            of_first = silu_backward(silu_backward(gradient, second) @ outer, first)
            gradient.addmm_(of_first, inner, alpha=step)


class FrozenAtomLayers:
    """The dense layer and the residual layers that turn a sum over edges into features of an atom."""

    def __init__(self, layers: nn.Module, workspace: Workspace) -> None:
        dense, *residuals = layers.children()
        self.dense = weight(dense).clone()
        self.residuals = FrozenResiduals(nn.Sequential(*residuals), SILU_SCALE, workspace)
        self.scale = self.residuals.scale

    def forward(self, x: Float[Tensor, "node channel"]) -> tuple[Float[Tensor, "node atom_channel"], tuple]:
        first = x @ self.dense.T
        out = silu(first)
        return out, (first, self.residuals.forward(out))

    def backward(self, gradient: Float[Tensor, "node atom_channel"], saved: tuple) -> Float[Tensor, "node channel"]:
        first, residuals = saved
        self.residuals.backward(gradient, residuals)
        return silu_backward(gradient, first) @ self.dense


class FrozenMixing:
    """The bilinear layer between the sums over neighbors (see `EfficientInteractionBilinear`).

    Args:
        layer: the layer of the model.
        mlp_cbf3: the shared down-projection of the circular basis.
        scale: factor on the result.
    """

    def __init__(
        self,
        layer: EfficientInteractionBilinear,
        mlp_cbf3: Float[Tensor, "spherical radial cbf"],
        scale: float,
    ) -> None:
        mixed, itself = layer.mixing(mlp_cbf3)
        self.of_degree = [scale * of_degree.detach() for of_degree in mixed]
        self.itself = scale * itself.detach()

    def forward(
        self, sums: Float[Tensor, "node harmonic trip"], workspace: Workspace
    ) -> Float[Tensor, "node harmonic radial_bil"]:
        """Apply the weights of each degree to the sums over its harmonics, and store the result in the workspace."""
        n_nodes, n_harmonics, _ = sums.shape
        mixed = workspace.empty(sums, n_harmonics, n_nodes, self.itself.shape[1])
        return self._by_degree(sums, self.of_degree, out=mixed)

    def backward(self, gradient: Float[Tensor, "node harmonic radial_bil"]) -> Float[Tensor, "node harmonic trip"]:
        n_nodes, n_harmonics, _ = gradient.shape
        of_sums = gradient.new_empty(n_harmonics, n_nodes, len(self.itself))
        return self._by_degree(gradient, [weights.T for weights in self.of_degree], out=of_sums)

    @staticmethod
    def _by_degree(
        x: Float[Tensor, "node harmonic in"], weights: list[Tensor], out: Float[Tensor, "harmonic node out"]
    ) -> Float[Tensor, "node harmonic out"]:
        """All harmonics of a degree times its matrix. Transposed views avoid copies to another layout."""
        for degree, matrix in enumerate(weights):
            harmonics = slice(degree**2, (degree + 1) ** 2)
            torch.bmm(x.transpose(0, 1)[harmonics], matrix.expand(2 * degree + 1, -1, -1), out=out[harmonics])
        return out.transpose(0, 1)
