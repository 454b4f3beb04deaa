"""Compiled loops of `pair_convolution` and `radial_spline`; importing this needs numba.

Each loop does some of the channels, so that threads never write to the same place, whatever the order of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from numba import prange

from mdsim.models.compiled_loops import compiled, use_torch_threads
from mdsim.typing import Tensor

CHANNELS_PER_CACHE_LINE = 16  # of float32: threads that share a line wait for each other
SERIAL_UP_TO_VALUES = 2**17  # of pairs times channels: less is done before other threads have woken up


@dataclass(frozen=True)
class Loop:
    """A loop over pairs, for all channels at once and for threads that share them."""

    serial: Callable[..., None]
    parallel: Callable[..., None]

    def __call__(self, *arguments: Tensor | float | int, n_pairs: int, into: Tensor) -> None:
        """Run on the arrays of CPU tensors, on as many threads as torch does.

        Args:
            arguments: of the loop, up to the array that it fills.
            n_pairs: how many pairs it goes through.
            into: contiguous, filled by the loop.
        """
        n_channels = into.shape[1]
        arrays = [a.detach().contiguous().numpy() if isinstance(a, Tensor) else a for a in arguments]
        threads = min(use_torch_threads(), max(1, n_channels // CHANNELS_PER_CACHE_LINE))
        if threads == 1 or n_pairs * n_channels <= SERIAL_UP_TO_VALUES:
            self.serial(*arrays, into.numpy(), 0, n_channels)
        else:
            self.parallel(*arrays, into.numpy(), threads)


@compiled()
@no_type_check
def _convolve(filters, features, first, second, received, begin, end):
    for p in range(len(first)):
        i, j = first[p], second[p]
        w, h_i, h_j = filters[p, begin:end], features[i, begin:end], features[j, begin:end]
        m_i, m_j = received[i, begin:end], received[j, begin:end]
        for c in range(end - begin):  # one array written in each loop, or it does not vectorize
            m_i[c] += w[c] * h_j[c]
        for c in range(end - begin):
            m_j[c] += w[c] * h_i[c]


@compiled(parallel=True)
@no_type_check
def _convolve_parallel(filters, features, first, second, received, threads):
    n = received.shape[1]
    for t in prange(threads):
        _convolve(filters, features, first, second, received, n * t // threads, n * (t + 1) // threads)


@compiled()
@no_type_check
def _pair_product(a, b, first, second, product, begin, end):
    for p in range(len(first)):
        i, j = first[p], second[p]
        a_i, a_j, b_i, b_j = a[i, begin:end], a[j, begin:end], b[i, begin:end], b[j, begin:end]
        out = product[p, begin:end]
        for c in range(end - begin):
            out[c] = a_i[c] * b_j[c] + a_j[c] * b_i[c]


@compiled(parallel=True)
@no_type_check
def _pair_product_parallel(a, b, first, second, product, threads):
    n = product.shape[1]
    for t in prange(threads):
        _pair_product(a, b, first, second, product, n * t // threads, n * (t + 1) // threads)


@compiled()
@no_type_check
def _b_spline(t, order, weights):
    """The four cubic B-splines that reach over an interval, at 0 <= t <= 1 in it, or their derivatives."""
    s = 1.0 - t
    if order == 0:
        weights[0] = s * s * s / 6.0
        weights[1] = (4.0 + 3.0 * t * t * (t - 2.0)) / 6.0
        weights[2] = (4.0 + 3.0 * s * s * (s - 2.0)) / 6.0
        weights[3] = t * t * t / 6.0
    elif order == 1:
        weights[0] = -0.5 * s * s
        weights[1] = 0.5 * t * (3.0 * t - 4.0)
        weights[2] = -0.5 * s * (3.0 * s - 4.0)
        weights[3] = 0.5 * t * t
    elif order == 2:
        weights[0] = s
        weights[1] = 3.0 * t - 2.0
        weights[2] = 3.0 * s - 2.0
        weights[3] = t
    elif order == 3:
        weights[0], weights[1], weights[2], weights[3] = -1.0, 3.0, -3.0, 1.0
    else:
        weights[:] = 0.0


@compiled()
@no_type_check
def _interval(distance, per_knot, order, n_coefficients, weights):
    """First of the four coefficients that count at a distance, and their weights; those of NaN are NaN."""
    u = distance * per_knot
    k = 0
    if u > 0:  # false for NaN
        k = min(int(u), n_coefficients - 4)
    _b_spline(u - k, order, weights)
    for _ in range(order):
        for q in range(4):
            weights[q] *= per_knot
    return k


@compiled()
@no_type_check
def _spline(distances, coefficients, per_knot, order, values, begin, end):
    weights = np.empty(4, np.float64)
    for p in range(len(distances)):
        k = _interval(distances[p], per_knot, order, len(coefficients), weights)
        w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
        c0, c1 = coefficients[k, begin:end], coefficients[k + 1, begin:end]
        c2, c3 = coefficients[k + 2, begin:end], coefficients[k + 3, begin:end]
        out = values[p, begin:end]
        for c in range(end - begin):
            out[c] = w0 * c0[c] + w1 * c1[c] + w2 * c2[c] + w3 * c3[c]


@compiled(parallel=True)
@no_type_check
def _spline_parallel(distances, coefficients, per_knot, order, values, threads):
    n = values.shape[1]
    for t in prange(threads):
        _spline(distances, coefficients, per_knot, order, values, n * t // threads, n * (t + 1) // threads)


@compiled()
@no_type_check
def _spline_transposed(distances, gradient, per_knot, order, gathered, begin, end):
    weights = np.empty(4, np.float64)
    for p in range(len(distances)):
        k = _interval(distances[p], per_knot, order, len(gathered), weights)
        g = gradient[p, begin:end]
        for q in range(4):
            w, row = weights[q], gathered[k + q, begin:end]
            for c in range(end - begin):
                row[c] += w * g[c]


@compiled(parallel=True)
@no_type_check
def _spline_transposed_parallel(distances, gradient, per_knot, order, gathered, threads):
    n = gathered.shape[1]
    for t in prange(threads):
        _spline_transposed(distances, gradient, per_knot, order, gathered, n * t // threads, n * (t + 1) // threads)


convolve = Loop(_convolve, _convolve_parallel)
pair_product = Loop(_pair_product, _pair_product_parallel)
spline = Loop(_spline, _spline_parallel)
spline_transposed = Loop(_spline_transposed, _spline_transposed_parallel)
