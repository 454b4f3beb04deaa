"""Continuous-filter convolution, differentiable to any order without storing features of pairs.

    C(w, h)_i = Σ_(ij) w_ij h_j        sum over the neighbors of an atom, both directions of each pair
    D(a, b)_ij = a_i b_j + a_j b_i     gradient with respect to the filter of a pair

are linear in each argument, and each is the derivative of the other: ∂C gives D(g, h) and C(w, g), ∂D gives C(g, b)
and C(g, a). Per layer, energies need C, forces need C and D, and the gradient of a force loss needs six C and three D.

On the CPU, compiled loops read each filter once. Without numba (the extra `fast`), and on a GPU, gathers and scatters
are used instead. So they are in a traced model, which can be saved only without custom autograd functions.
"""

from __future__ import annotations

from typing import no_type_check

import torch
from torch.autograd import Function

from mdsim.compiled import HAS_NUMBA
from mdsim.typing import Float, Int, Tensor


def convolve(
    filters: Float[Tensor, "pair channel"],
    features: Float[Tensor, "node channel"],
    first: Int[Tensor, "pair"],
    second: Int[Tensor, "pair"],
) -> Float[Tensor, "node channel"]:
    """Sum the features of each node's neighbors, times the filter of each pair."""
    if torch.jit.is_tracing():
        return _gathered(filters, features, first, second)
    return _Convolve.apply(filters, features, first, second)


def _gathered(filters: Tensor, features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """C(w, h) by operations of torch."""
    received = torch.zeros_like(features).index_add(0, first, filters * features.index_select(0, second))
    return received.index_add_(0, second, filters * features.index_select(0, first))


class _Convolve(Function):
    """C(w, h)."""

    @staticmethod
    def forward(ctx, filters: Tensor, features: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(filters, features, first, second)
        if _compiled(filters, features):
            return _compiled_convolve(filters, features, first, second)
        return _gathered(filters, features, first, second)

    @staticmethod
    @no_type_check
    def backward(ctx, gradient: Tensor):
        filters, features, first, second = ctx.saved_tensors
        of_filters, of_features, *_ = ctx.needs_input_grad
        return (
            _PairProduct.apply(gradient, features, first, second) if of_filters else None,
            _Convolve.apply(filters, gradient, first, second) if of_features else None,
            None,
            None,
        )


class _PairProduct(Function):
    """D(a, b)."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, first, second)
        if _compiled(a, b):
            return _compiled_pair_product(a, b, first, second)
        forth = a.index_select(0, first) * b.index_select(0, second)
        return forth.addcmul_(a.index_select(0, second), b.index_select(0, first))

    @staticmethod
    @no_type_check
    def backward(ctx, gradient: Tensor):
        a, b, first, second = ctx.saved_tensors
        of_a, of_b, *_ = ctx.needs_input_grad
        return (
            _Convolve.apply(gradient, b, first, second) if of_a else None,
            _Convolve.apply(gradient, a, first, second) if of_b else None,
            None,
            None,
        )


def _compiled(first: Tensor, second: Tensor) -> bool:
    return HAS_NUMBA and first.device.type == "cpu" and first.dtype == second.dtype in (torch.float32, torch.float64)


def _compiled_convolve(filters: Tensor, features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    from mdsim.compiled import pair_loops
    from mdsim.compiled.jit import arrays

    received = torch.zeros_like(features, memory_format=torch.contiguous_format)
    pair_loops.convolve(*arrays(filters, features, first, second, received))
    return received


def _compiled_pair_product(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
    from mdsim.compiled import pair_loops
    from mdsim.compiled.jit import arrays

    product = a.new_empty(len(first), a.shape[1])
    pair_loops.pair_product(*arrays(a, b, first, second, product))
    return product
