"""Compiled loops of `pair_convolution` and `radial_spline`. Importing this module needs numba.

They run on one thread. torch's threads spin on the cores between operations, and torch operations alternate with these
loops, so further numba threads would find no free core.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from mdsim.compiled.jit import compiled


@compiled()
@no_type_check
def convolve(filters, features, first, second, received):
    n_channels = received.shape[1]
    for p in range(len(first)):
        i, j = first[p], second[p]
        w, h_i, h_j = filters[p], features[i], features[j]
        m_i, m_j = received[i], received[j]
        for c in range(n_channels):  # a loop vectorizes only if it writes to a single array
            m_i[c] += w[c] * h_j[c]
        for c in range(n_channels):
            m_j[c] += w[c] * h_i[c]


@compiled()
@no_type_check
def pair_product(a, b, first, second, product):
    n_channels = product.shape[1]
    for p in range(len(first)):
        i, j = first[p], second[p]
        a_i, a_j, b_i, b_j = a[i], a[j], b[i], b[j]
        out = product[p]
        for c in range(n_channels):
            out[c] = a_i[c] * b_j[c] + a_j[c] * b_i[c]


@compiled()
@no_type_check
def _b_spline(t, order, weights):
    """The four cubic B-splines that cover an interval, at 0 <= t <= 1 within it, or their derivatives."""
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
    """Index of the first of the four coefficients at a distance, and their weights (NaN for NaN)."""
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
def spline(distances, coefficients, per_knot, order, values):
    n_channels = values.shape[1]
    weights = np.empty(4, np.float64)
    for p in range(len(distances)):
        k = _interval(distances[p], per_knot, order, len(coefficients), weights)
        w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
        c0, c1 = coefficients[k], coefficients[k + 1]
        c2, c3 = coefficients[k + 2], coefficients[k + 3]
        out = values[p]
        for c in range(n_channels):
            out[c] = w0 * c0[c] + w1 * c1[c] + w2 * c2[c] + w3 * c3[c]


@compiled()
@no_type_check
def spline_transposed(distances, gradient, per_knot, order, gathered):
    n_channels = gathered.shape[1]
    weights = np.empty(4, np.float64)
    for p in range(len(distances)):
        k = _interval(distances[p], per_knot, order, len(gathered), weights)
        g = gradient[p]
        for q in range(4):
            w, row = weights[q], gathered[k + q]
            for c in range(n_channels):
                row[c] += w * g[c]
