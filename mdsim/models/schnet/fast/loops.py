"""Compiled loops of the tabulated SchNet: energies and forces, with a hand-written backward pass.

    forward, layer l                                backward
    h = x W1ᵀ                                       ga = (gx W3) σ(a),  gm = ga W2
    m_i = Σ_j w(d_ij) h_j                           gh_j += w gm_i,  gd_ij += w' (gm_i·h_j + gm_j·h_i)
    a = m W2ᵀ + b2,  x += ssp(a) W3ᵀ + b3           gx += gh W1

Run-time type checks would prevent compilation, hence `no_type_check`. Arrays are float32, except for indices.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial

from mdsim.compiled.jit import compiled

LOG2 = math.log(2.0)
# Polynomials: exp(x) for |x| < log(2) / 2, and log(1 + x) for 0 < x < 1, both within float32's rounding.
EXP = tuple(np.float32(1 / math.factorial(power)) for power in range(8))
LOG1P = tuple(Chebyshev.interpolate(np.log1p, 9, [0, 1]).convert(kind=Polynomial).coef.astype(np.float32))
SERIAL_PRODUCT = 64**3  # multiplications of a matrix product up to which OpenBLAS starts no threads


@intrinsic
@no_type_check
def _two_to_minus(typing_context, n):
    """2 to the power -n, for a float32 integer n up to 126, by setting the bits of the exponent."""

    def generate(context, builder, signature, arguments):
        bits = ir.IntType(32)
        exponent = builder.sub(bits(127), builder.fptosi(arguments[0], bits))
        return builder.bitcast(builder.shl(exponent, bits(23)), context.get_value_type(types.float32))

    return types.float32(types.float32), generate


@compiled(inline="always")
@no_type_check
def _exp_of_minus(x):
    """exp(-x) for x ≥ 0, with an error below float32 rounding of 1, in operations that vectorize."""
    y = x * np.float32(1.0 / LOG2)
    y = y if y < np.float32(120.0) else np.float32(120.0)
    n = np.floor(y + np.float32(0.5))
    r = (n - y) * np.float32(LOG2)
    c = EXP
    power = ((((((c[7] * r + c[6]) * r + c[5]) * r + c[4]) * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0]
    return power * _two_to_minus(n)


@compiled()
@no_type_check
def _activate(a, bias, activated, slope):
    """Shifted softplus of each a + bias, and its derivative."""
    zero, half, one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
    for n in range(a.shape[0]):
        for f in range(a.shape[1]):
            z = a[n, f] + bias[f]
            e = _exp_of_minus(abs(z))
            c = LOG1P
            log1p = (((((c[9] * e + c[8]) * e + c[7]) * e + c[6]) * e + c[5]) * e + c[4]) * e + c[3]
            log1p = ((log1p * e + c[2]) * e + c[1]) * e + c[0]
            activated[n, f] = half * (z + abs(z)) + log1p - np.float32(LOG2)
            above = one / (one + e)
            slope[n, f] = above if z > zero else e * above


@compiled()
@no_type_check
def _product(x, w, out):
    """x w, a few rows at a time. BLAS then stays on this thread, because the other threads are busy."""
    rows = max(1, SERIAL_PRODUCT // w.size)
    for start in range(0, x.shape[0], rows):
        np.dot(x[start : start + rows], w, out[start : start + rows])


@compiled()
@no_type_check
def _find_pairs(r, first, second, shift, cutoff, index, vector, distance):
    """Fill in atoms, unit vectors and distances of the candidates within the cutoff, and return their number."""
    n = 0
    for p in range(len(first)):
        i, j = first[p], second[p]
        x, y, z = r[j, 0] - r[i, 0], r[j, 1] - r[i, 1], r[j, 2] - r[i, 2]
        if len(shift):
            x, y, z = x + shift[p, 0], y + shift[p, 1], z + shift[p, 2]
        squared = x * x + y * y + z * z
        if squared < cutoff * cutoff:  # false for numbers that are not finite
            d = np.sqrt(squared)
            inverse = np.float32(1.0) / max(d, np.float32(1e-12))
            index[n, 0], index[n, 1] = i, j
            vector[n, 0], vector[n, 1], vector[n, 2] = x * inverse, y * inverse, z * inverse
            distance[n] = d
            n += 1
    return n


@compiled()
@no_type_check
def _hermite(distance, scale, knots, weights, slopes):
    """The knot below a distance, and the four weights of the spline and of its derivative there."""
    u = distance * scale
    k = min(int(u), knots - 1)
    t = u - np.float32(k)
    one, two, three = np.float32(1.0), np.float32(2.0), np.float32(3.0)
    weights[0] = (one + two * t) * (one - t) * (one - t)
    weights[1] = t * (one - t) * (one - t)
    weights[2] = t * t * (three - two * t)
    weights[3] = t * t * (t - one)
    six, four = np.float32(6.0), np.float32(4.0)
    slopes[0] = scale * six * t * (t - one)
    slopes[1] = scale * (one - four * t + three * t * t)
    slopes[2] = -slopes[0]
    slopes[3] = scale * (three * t * t - two * t)
    return k


# The innermost loops. They are inlined because the compiler assumes that array arguments overlap, and then does not
# vectorize. For the same reason each loop writes to a single array.


@compiled(inline="always")
@no_type_check
def _evaluate(low, high, weights, filters):
    """The spline of each filter."""
    a, b, c, d = weights
    for f in range(filters.shape[0]):
        filters[f] = a * low[0, f] + b * low[1, f] + c * high[0, f] + d * high[1, f]


@compiled(inline="always")
@no_type_check
def _add_product(filters, features, total):
    for f in range(filters.shape[0]):
        total[f] += filters[f] * features[f]


@compiled(inline="always")
@no_type_check
def _slope(low, high, weights, h_i, h_j, gm_i, gm_j):
    """Derivative of the energy with respect to the distance of a pair."""
    a, b, c, d = weights
    total = np.float32(0.0)
    for f in range(h_i.shape[0]):
        slope = a * low[0, f] + b * low[1, f] + c * high[0, f] + d * high[1, f]
        total += slope * (gm_i[f] * h_j[f] + gm_j[f] * h_i[f])
    return total


@compiled()
@no_type_check
def _convolve(table, index, knot, spline, h, m):
    """Messages of all pairs, summed over the neighbors of each atom."""
    filters = np.empty(h.shape[1], np.float32)
    for p in range(len(index)):
        i, j, k = index[p, 0], index[p, 1], knot[p]
        _evaluate(table[k], table[k + 1], spline[p, 0], filters)
        _add_product(filters, h[j], m[i])
        _add_product(filters, h[i], m[j])


@compiled()
@no_type_check
def _convolve_backward(table, index, knot, spline, h, gm, gh, gd):
    """Gradients of the features, and accumulated gradients of the distances."""
    filters = np.empty(h.shape[1], np.float32)
    for p in range(len(index)):
        i, j, k = index[p, 0], index[p, 1], knot[p]
        _evaluate(table[k], table[k + 1], spline[p, 0], filters)
        gd[p] += _slope(table[k], table[k + 1], spline[p, 1], h[i], h[j], gm[i], gm[j])
        _add_product(filters, gm[j], gh[i])
        _add_product(filters, gm[i], gh[j])


@compiled()
@no_type_check
def _energy_and_forces(
    r, first, second, shift, table, cutoff, embedded, weights, biases, readout, scale, forces, virial
):
    """Fill in the forces of one replica and, unless it is empty, its virial, and return its energy."""
    w1, w2, w3, w1_back, w2_back, w3_back = weights
    b2, b3 = biases
    n_layers, knots, n_filters = table.shape[0], table.shape[1] - 1, table.shape[3]
    n_atoms, n_hidden = embedded.shape
    index = np.empty((len(first), 2), np.int64)
    vector = np.empty((len(first), 3), np.float32)
    distance = np.empty(len(first), np.float32)
    n_pairs = _find_pairs(r, first, second, shift, cutoff, index, vector, distance)
    index = index[:n_pairs]
    knot = np.empty(n_pairs, np.int64)
    spline = np.empty((n_pairs, 2, 4), np.float32)
    for p in range(n_pairs):
        knot[p] = _hermite(distance[p], np.float32(knots) / cutoff, knots, spline[p, 0], spline[p, 1])

    x = embedded.copy()
    h = np.empty((n_layers, n_atoms, n_filters), np.float32)
    slope = np.empty((n_layers, n_atoms, n_hidden), np.float32)
    m = np.empty((n_atoms, n_filters), np.float32)
    a, activated, update = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for layer in range(n_layers):
        _product(x, w1[layer], h[layer])
        m[:] = 0
        _convolve(table[layer], index, knot, spline, h[layer], m)
        _product(m, w2[layer], a)
        _activate(a, b2[layer], activated, slope[layer])
        _product(activated, w3[layer], update)
        _add(update, b3[layer], x)

    energy, gx = _read_out(x, readout, scale)

    gd = np.zeros(n_pairs, np.float32)
    gm, gh = np.empty((n_atoms, n_filters), np.float32), np.empty((n_atoms, n_filters), np.float32)
    for layer in range(n_layers - 1, -1, -1):
        _product(gx, w3_back[layer], a)
        a *= slope[layer]
        _product(a, w2_back[layer], gm)
        gh[:] = 0
        _convolve_backward(table[layer], index, knot, spline, h[layer], gm, gh, gd)
        _product(gh, w1_back[layer], update)
        gx += update

    forces[:] = 0
    for p in range(n_pairs):
        i, j = index[p, 0], index[p, 1]
        for axis in range(3):
            push = gd[p] * vector[p, axis]
            forces[i, axis] += push
            forces[j, axis] -= push
    for p in range(n_pairs if len(virial) else 0):
        for row in range(3):
            for column in range(3):
                virial[0, row, column] += gd[p] * distance[p] * vector[p, row] * vector[p, column]
    return energy


@compiled()
@no_type_check
def _add(update, bias, x):
    for n in range(x.shape[0]):
        for f in range(x.shape[1]):
            x[n, f] += update[n, f] + bias[f]


@compiled()
@no_type_check
def _read_out(x, readout, scale):
    """Energy from the features of the atoms, and its gradient."""
    r1, r1_back, c1, r2, c2 = readout
    a = np.empty((len(x), len(c1)), np.float32)
    activated, slope, gx = np.empty_like(a), np.empty_like(a), np.empty_like(x)
    _product(x, r1, a)
    _activate(a, c1, activated, slope)
    total = np.float32(0.0)
    for n in range(len(x)):
        total += c2
        for f in range(len(c1)):
            total += activated[n, f] * r2[f]
            slope[n, f] *= scale * r2[f]
    _product(slope, r1_back, gx)
    return scale * total, gx


@compiled()
@no_type_check
def _all_finite(values):
    total = np.float32(0.0)
    for value in values.flat:
        total += value * np.float32(0.0)  # not a number, if one is not finite
    return total == 0


@compiled(parallel=True)
@no_type_check
def energies_and_forces(
    positions, first, second, shift, starts, table, cutoff, embedded, weights, biases, readout, scale,
    energy, forces, virials,
):  # fmt: skip
    """Energies, forces and, on request, virials of all replicas.

    Args:
        positions: (replica, atom, 3), Å.
        first, second: atoms of the candidate pairs, numbered through all replicas.
        shift: (candidate, 3), Å, added to the position of the second atom. (0, 3) if no shift is needed.
        starts: index of the first candidate of each replica, and the total number of candidates.
        table: (layer, knot, 2, filter), values and slopes.
        cutoff: Å.
        embedded: (atom, hidden), the initial features.
        weights: the three linear maps of all layers, applied from the right, then their transposes.
        biases: biases of the second and the third map.
        readout: weights, transposed weights and biases of its hidden layer, then weights and bias of its output.
        scale: factor on the energy.
        energy: (replica,), filled in, eV.
        forces: (replica, atom, 3), filled in, eV/Å.
        virials: (replica, 3, 3), zeros, to which Σ d ⊗ ∂E/∂d is added, eV. (0, 3, 3) if they are not wanted.
    """
    n_atoms = positions.shape[1]
    for replica in prange(len(positions)):
        start, stop, offset = starts[replica], starts[replica + 1], replica * n_atoms
        energy[replica] = _energy_and_forces(
            positions[replica], first[start:stop] - offset, second[start:stop] - offset, shift[start:stop], table,
            cutoff, embedded, weights, biases, readout, scale, forces[replica],
            virials[replica : replica + 1],
        )  # fmt: skip
        if not _all_finite(positions[replica]):
            energy[replica] = np.nan
            forces[replica] = np.nan
