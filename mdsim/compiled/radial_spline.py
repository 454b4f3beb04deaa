"""Cubic B-splines for functions of one distance, evaluated at knots instead of pairs and differentiable twice.

A minibatch has far more pairs than points are needed to represent a filter network. With values f_k at evenly spaced
knots, the spline

    f(d) ≈ Σ_k c_k B(d/h - k),     c_k = (8 f_k - f_{k-1} - f_{k+1}) / 6

is twice continuously differentiable and of fourth order in h (the quasi-interpolant of Schoenberg). Gradients reach the
parameters through the values at the knots, so the network is evaluated, forward and backward, at a thousand distances
only. Derivatives with respect to distances are exact derivatives of the spline.

Coefficients are float64, because slopes are small differences between them. Values for pairs are float32.
"""

from __future__ import annotations

from typing import no_type_check

import torch
from torch.autograd import Function

from mdsim.compiled import HAS_NUMBA
from mdsim.typing import Float, Tensor

KNOTS = 1024  # intervals from 0 to the cutoff; for Gaussians 0.2 Å wide the error is below float32 rounding
WORTHWHILE_PAIRS = 2 * KNOTS
MARGIN = 2  # knots beyond each end, so that the ends need no conditions


def worthwhile(distances: Float[Tensor, "pair"]) -> bool:
    """Whether a spline saves time: compiled loops are available, and pairs far outnumber knots."""
    at_hand = HAS_NUMBA and distances.device.type == "cpu" and distances.dtype == torch.float32
    return at_hand and len(distances) > WORTHWHILE_PAIRS


def knots(cutoff: float) -> Float[Tensor, "knot"]:
    """The distances at which to evaluate the functions, float64, slightly beyond both ends of 0 to ``cutoff``."""
    return torch.arange(-MARGIN, KNOTS + MARGIN + 1, dtype=torch.float64) * (cutoff / KNOTS)


def interpolate(
    distances: Float[Tensor, "pair"], values: Float[Tensor, "knot channel"], cutoff: float
) -> Float[Tensor, "pair channel"]:
    """The functions at distances from 0 to ``cutoff``, from their values at the `knots`."""
    coefficients = (8 * values[1:-1] - values[:-2] - values[2:]) / 6
    return _Spline.apply(distances, coefficients, KNOTS / cutoff, 0)


class _Spline(Function):
    """The spline's derivative of some order at each distance: S(d, c)_p = Σ_k c_k B⁽ⁿ⁾(d_p/h - k) / hⁿ."""

    @staticmethod
    @no_type_check
    def forward(ctx, distances, coefficients, per_knot, order):
        from mdsim.compiled import pair_loops
        from mdsim.compiled.jit import arrays

        ctx.save_for_backward(distances, coefficients)
        ctx.per_knot, ctx.order = per_knot, order
        values = distances.new_empty(len(distances), coefficients.shape[1])
        pair_loops.spline(*arrays(distances, coefficients, per_knot, order, values))
        return values

    @staticmethod
    @no_type_check
    def backward(ctx, gradient):
        distances, coefficients = ctx.saved_tensors
        of_distances = of_coefficients = None
        if ctx.needs_input_grad[0]:
            slopes = _Spline.apply(distances, coefficients, ctx.per_knot, ctx.order + 1)
            of_distances = (gradient * slopes).sum(-1)
        if ctx.needs_input_grad[1]:
            of_coefficients = _Gather.apply(distances, gradient, len(coefficients), ctx.per_knot, ctx.order)
        return of_distances, of_coefficients, None, None


class _Gather(Function):
    """The transpose of `_Spline`: G(d, g)_k = Σ_p g_p B⁽ⁿ⁾(d_p/h - k) / hⁿ."""

    @staticmethod
    @no_type_check
    def forward(ctx, distances, gradient, n_knots, per_knot, order):
        from mdsim.compiled import pair_loops
        from mdsim.compiled.jit import arrays

        ctx.save_for_backward(distances, gradient)
        ctx.per_knot, ctx.order = per_knot, order
        gathered = torch.zeros(n_knots, gradient.shape[1], dtype=torch.float64)
        pair_loops.spline_transposed(*arrays(distances, gradient, per_knot, order, gathered))
        return gathered

    @staticmethod
    @no_type_check
    def backward(ctx, gradient):
        distances, of_values = ctx.saved_tensors
        of_distances = of_gradient = None
        if ctx.needs_input_grad[0]:
            slopes = _Spline.apply(distances, gradient, ctx.per_knot, ctx.order + 1)
            of_distances = (of_values * slopes).sum(-1)
        if ctx.needs_input_grad[1]:
            of_gradient = _Spline.apply(distances, gradient, ctx.per_knot, ctx.order)
        return of_distances, of_gradient, None, None, None
