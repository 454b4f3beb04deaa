"""Compiled loops of the tabulated NequIP: energies and forces of all replicas, with a hand-written backward pass.

All features of a replica are rows of one array. Each row holds the channels of all atoms. The 2l + 1 rows of an irrep,
starting at row r, are interleaved: component m of atom n begins at index (r · n_atoms + n · (2l + 1) + m) · channels. A
layer only adds to later rows, so its backward pass only adds to earlier rows of an array of gradients with the same
layout. The arrays made in `tables.py` say which row holds which feature.

Functions that are called in one place are inlined. Compiling them separately first would double the compilation time.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import prange

from mdsim.compiled.jit import compiled
from mdsim.compiled.vector_instructions import LANES
from mdsim.models.nequip.fast.vectors import (
    KNOTS,
    SPLINE_ORDER,
    add_message_gradients,
    add_messages,
    add_product,
    differentiate_messages,
    evaluate_splines,
    sigmoids,
)

ROOT3 = math.sqrt(3.0)


@compiled(inline="always")
@no_type_check
def _find_pairs(r, first, second, shifts, offset, atoms, degrees, harmonics):
    """Pairs within the cutoff: indices of atoms, directions, distances, positions in the splines, and harmonics."""
    (_, rank, cutoff), (terms, coefficients) = atoms, harmonics
    atom, vector = np.empty((len(first), 2), np.int64), np.empty((len(first), 3), r.dtype)
    distance, t = np.empty(len(first), r.dtype), np.empty(len(first), r.dtype)
    knot, y = np.empty(len(first), np.int64), np.empty((len(first), len(degrees) ** 2), r.dtype)
    n, per_distance = 0, r.dtype.type(KNOTS) / cutoff
    for p in range(len(first)):
        i, j = first[p] - offset, second[p] - offset
        dx, dy, dz = r[j, 0] - r[i, 0], r[j, 1] - r[i, 1], r[j, 2] - r[i, 2]
        if len(shifts):
            dx, dy, dz = dx + shifts[p, 0], dy + shifts[p, 1], dz + shifts[p, 2]
        squared = dx * dx + dy * dy + dz * dz
        if squared < cutoff * cutoff:  # false for numbers that are not finite
            d = np.sqrt(squared)
            atom[n, 0], atom[n, 1], distance[n] = rank[i], rank[j], d
            vector[n, 0], vector[n, 1], vector[n, 2] = dx / d, dy / d, dz / d
            u = d * per_distance
            knot[n] = min(int(u), KNOTS - 1)
            t[n] = u - r.dtype.type(knot[n])
            _harmonics(vector[n], terms, coefficients, y[n])
            n += 1
    return atom[:n], vector[:n], distance[:n], knot[:n], t[:n], y[:n]


@compiled()
@no_type_check
def _harmonics(vector, terms, coefficients, y):
    """Spherical harmonics. From degree two on, they are products of harmonics of the degree below and of degree one."""
    y[0] = 1
    if len(y) > 1:
        for axis in range(3):
            y[1 + axis] = y.dtype.type(ROOT3) * vector[axis]
    y[4:] = 0
    for n in range(len(terms)):
        y[terms[n, 0]] += coefficients[n] * y[terms[n, 1]] * y[terms[n, 2]]


@compiled()
@no_type_check
def _push(gradient, y, vector, distance, terms, coefficients, push):
    """Derivative by the vector of a pair, given those by its distance (first entry) and by its harmonics."""
    for n in range(len(terms) - 1, -1, -1):
        g = coefficients[n] * gradient[terms[n, 0]]
        gradient[terms[n, 1]] += g * y[terms[n, 2]]
        gradient[terms[n, 2]] += g * y[terms[n, 1]]
    along = gradient[0] * 0
    if len(y) > 1:
        for axis in range(3):
            gradient[1 + axis] *= y.dtype.type(ROOT3) / distance
            along += gradient[1 + axis] * vector[axis]
    for axis in range(3):
        push[axis] = (gradient[0] - along) * vector[axis]
        if len(y) > 1:
            push[axis] += gradient[1 + axis]


@compiled()
@no_type_check
def _mix(blocks, matrices, rows, n_atoms, channels):
    """Linear maps: some rows += other rows times a matrix, each for a subset of the atoms."""
    for n in range(len(blocks)):
        matrix, row_in, row_out, dim, begin, end = blocks[n]
        skipped = begin * dim
        add_product(
            rows, (row_in * n_atoms + skipped) * channels,
            matrices, matrix * channels * channels,
            rows, (row_out * n_atoms + skipped) * channels,
            (end - begin) * dim, channels,
        )  # fmt: skip


@compiled(inline="always")
@no_type_check
def _convolve(degrees, paths, splines, splines_at, pairs, values, n_atoms, channels):
    """Add the messages of all pairs."""
    atom, _, _, knot, t, y = pairs
    count = len(paths) * channels
    w, slopes = np.empty(count, values.dtype), np.empty(count, values.dtype)
    for p in range(len(atom)):
        i, j, y_pair = atom[p, 0], atom[p, 1], y[p]
        evaluate_splines(splines, splines_at + knot[p] * SPLINE_ORDER * count, t[p], w, slopes, count)
        for n in range(len(paths)):
            kind, row_in, dim_in, row_out, dim_out, harmonic = paths[n]
            x, out = row_in * n_atoms, row_out * n_atoms
            add_messages(
                degrees, kind, y_pair, harmonic, w, n * channels,
                values, (x + i * dim_in) * channels, (x + j * dim_in) * channels,
                values, (out + i * dim_out) * channels, (out + j * dim_out) * channels, channels,
            )  # fmt: skip


@compiled(inline="always")
@no_type_check
def _convolve_backward(
    degrees, paths, splines, splines_at, pairs, values, gradients, n_atoms, channels, wanted, y_gradients
):  # fmt: skip
    """Add derivatives by distances and harmonics and, on request, by the features of the senders."""
    atom, _, _, knot, t, y = pairs
    count = len(paths) * channels
    w, slopes = np.empty(count, values.dtype), np.empty(count, values.dtype)
    sums = np.empty(y.shape[1] * LANES, values.dtype)
    for p in range(len(atom)):
        i, j, y_pair = atom[p, 0], atom[p, 1], y[p]
        evaluate_splines(splines, splines_at + knot[p] * SPLINE_ORDER * count, t[p], w, slopes, count)
        sums[:] = 0
        for n in range(len(paths)):
            kind, row_in, dim_in, row_out, dim_out, harmonic = paths[n]
            x_i, x_j = (row_in * n_atoms + i * dim_in) * channels, (row_in * n_atoms + j * dim_in) * channels
            g_i, g_j = (row_out * n_atoms + i * dim_out) * channels, (row_out * n_atoms + j * dim_out) * channels
            differentiate_messages(
                degrees, kind, y_pair, harmonic, w, slopes, n * channels,
                values, x_i, x_j, gradients, g_i, g_j, sums, channels,
            )  # fmt: skip
            if wanted:
                add_message_gradients(
                    degrees, kind, y_pair, harmonic, w, n * channels,
                    gradients, g_i, g_j, gradients, x_i, x_j, channels,
                )  # fmt: skip
        for m in range(y.shape[1]):
            for lane in range(LANES):
                y_gradients[p, m] += sums[m * LANES + lane]


@compiled()
@no_type_check
def _activate(values, at, odd, constant, active, slopes):
    """SiLU, or tanh for odd features, of consecutive numbers from an index on, with derivatives."""
    one = constant / constant
    sigmoids(values, at, one + one if odd else one, active, len(active))
    for k in range(len(active)):
        z, s = values[at + k], active[k]
        if odd:
            tanh = s + s - one
            active[k], slopes[k] = constant * tanh, constant * (one - tanh * tanh)
        else:
            active[k], slopes[k] = constant * z * s, constant * s * (one + z * (one - s))


@compiled(inline="always")
@no_type_check
def _gate(gates, constants, values, n_atoms, channels, active, slopes):
    """Activations of a layer."""
    for g in range(len(gates)):
        row_out, dim, row_in, row_gate, odd = gates[g]
        row_scalar = row_in if row_gate < 0 else row_gate
        _activate(values, row_scalar * n_atoms * channels, odd, constants[odd], active, slopes)
        a, b = row_in * n_atoms * channels, row_out * n_atoms * channels
        if row_gate < 0:
            for k in range(len(active)):  # slices would take seconds to compile
                values[b + k] = active[k]
            continue
        for n in range(n_atoms):
            for d in range(dim):
                here = (n * dim + d) * channels
                for k in range(channels):
                    values[b + here + k] = active[n * channels + k] * values[a + here + k]


@compiled(inline="always")
@no_type_check
def _gate_backward(gates, constants, values, gradients, n_atoms, channels, active, slopes):
    """Backward pass through the activations of a layer."""
    for g in range(len(gates)):
        row_out, dim, row_in, row_gate, odd = gates[g]
        row_scalar = row_in if row_gate < 0 else row_gate
        scalar = row_scalar * n_atoms * channels
        _activate(values, scalar, odd, constants[odd], active, slopes)
        a, b = row_in * n_atoms * channels, row_out * n_atoms * channels
        if row_gate < 0:
            for k in range(len(active)):
                gradients[scalar + k] = slopes[k] * gradients[b + k]
            continue
        for n in range(n_atoms):
            for d in range(dim):
                here = (n * dim + d) * channels
                for k in range(channels):
                    m = n * channels + k
                    gradients[a + here + k] = active[m] * gradients[b + here + k]
                    gradients[scalar + m] += slopes[m] * values[a + here + k] * gradients[b + here + k]


@compiled(inline="always")
@no_type_check
def _forward(network, degrees, pairs, values, n_atoms):
    """Fill the rows of all layers."""
    convolutions, before, after, gating, (matrices, _), channels = network
    paths, path_starts, splines, spline_starts = convolutions
    gates, gate_starts, constants = gating
    active, slopes = np.empty(n_atoms * channels, values.dtype), np.empty(n_atoms * channels, values.dtype)
    for n in range(len(path_starts) - 1):
        _mix(before[0][before[2][n] : before[2][n + 1]], matrices, values, n_atoms, channels)
        own = paths[path_starts[n] : path_starts[n + 1]]
        _convolve(degrees, own, splines, spline_starts[n], pairs, values, n_atoms, channels)
        _mix(after[0][after[2][n] : after[2][n + 1]], matrices, values, n_atoms, channels)
        own = gates[gate_starts[n] : gate_starts[n + 1]]
        _gate(own, constants, values, n_atoms, channels, active, slopes)


@compiled(inline="always")
@no_type_check
def _backward(network, degrees, pairs, values, gradients, n_atoms):
    """Propagate gradients from the last rows to all rows. Returns those of the pairs' distances and harmonics."""
    convolutions, before, after, gating, (_, matrices), channels = network
    paths, path_starts, splines, spline_starts = convolutions
    gates, gate_starts, constants = gating
    active, slopes = np.empty(n_atoms * channels, values.dtype), np.empty(n_atoms * channels, values.dtype)
    y_gradients = np.zeros_like(pairs[5])
    for n in range(len(path_starts) - 2, -1, -1):
        own = gates[gate_starts[n] : gate_starts[n + 1]]
        _gate_backward(own, constants, values, gradients, n_atoms, channels, active, slopes)
        _mix(after[1][after[2][n] : after[2][n + 1]], matrices, gradients, n_atoms, channels)
        own = paths[path_starts[n] : path_starts[n + 1]]
        _convolve_backward(
            degrees, own, splines, spline_starts[n], pairs, values, gradients, n_atoms, channels, n > 0, y_gradients
        )
        _mix(before[1][before[2][n] : before[2][n + 1]], matrices, gradients, n_atoms, channels)
    return y_gradients


@compiled()
@no_type_check
def _energy_and_forces(r, first, second, shifts, offset, atoms, degrees, harmonics, network, start, forces, virial):
    """Fill in the forces of one replica and, unless it is empty, its virial, and return its energy."""
    (order, _, cutoff), (terms, coefficients), (template, readout) = atoms, harmonics, start
    pairs = _find_pairs(r, first, second, shifts, offset, atoms, degrees, harmonics)
    atom, vector, distance, _, _, y = pairs
    values, gradients = template.copy(), np.zeros_like(template)
    _forward(network, degrees, pairs, values, len(r))
    last = len(template) - len(readout)
    energy = r.dtype.type(0)
    for k in range(len(readout)):
        energy += readout[k] * values[last + k]
        gradients[last + k] = readout[k]
    y_gradients = _backward(network, degrees, pairs, values, gradients, len(r))
    pushed, push = np.zeros((len(r), 3), r.dtype), np.empty(3, r.dtype)
    for p in range(len(atom)):
        i, j = atom[p, 0], atom[p, 1]
        y_gradients[p, 0] *= r.dtype.type(KNOTS) / cutoff
        _push(y_gradients[p], y[p], vector[p], distance[p], terms, coefficients, push)
        for axis in range(3):
            pushed[i, axis] += push[axis]
            pushed[j, axis] -= push[axis]
        for row in range(3 if len(virial) else 0):
            for column in range(3):
                virial[0, row, column] += distance[p] * vector[p, row] * push[column]
    finite = True
    for n in range(len(r)):
        for axis in range(3):
            finite = finite and np.isfinite(r[n, axis])
    for n in range(len(r)):
        for axis in range(3):
            forces[order[n], axis] = pushed[n, axis] if finite else np.nan
    return energy if finite else r.dtype.type(np.nan)


@compiled(parallel=True)
@no_type_check
def energies_and_forces(
    positions, first, second, shifts, starts, atoms, degrees, harmonics,
    convolutions, before, after, gating, matrices, channels, start, energy, forces, virials,
):  # fmt: skip
    """Energies, forces and, on request, virials of all replicas, computed in parallel.

    See `tables.tables` for the arguments. To the virials, zeros, Σ d ⊗ ∂E/∂d is added. They are empty if not wanted.
    """
    for replica in prange(len(positions)):
        begin, end = starts[replica], starts[replica + 1]
        network = convolutions, before, after, gating, matrices, channels
        energy[replica] = _energy_and_forces(
            positions[replica], first[begin:end], second[begin:end], shifts[begin:end], replica * len(positions[0]),
            atoms, degrees, harmonics, network, start, forces[replica], virials[replica : replica + 1],
        )  # fmt: skip
