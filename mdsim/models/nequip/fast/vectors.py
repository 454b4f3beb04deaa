"""Vector instructions of the tabulated NequIP: couplings, matrix products and splines over many channels.

Arrays are one-dimensional, and positions in them are integers. `channels` must be a multiple of `LANES`. The kinds of
coupling are the triples of degrees in `coupling_degrees(l_max)`. Code is generated for the length l_max + 1 of the
tuple `degrees`, which is part of its type.

With w the weight of a path, Y the harmonics, c the coupling coefficients, A = Σ c Y:

    add_messages                    add_message_gradients            differentiate_messages
    out_i += w A x_j                gx_j += w Aᵀ g_i                 q = Σ c (x_j g_i ± x_i g_j)
    out_j += ± w A x_i              gx_i += ± w Aᵀ g_j               sums += w' Σ Y q,  w q

where ± is the parity of the harmonic, because the pair is inverted for the other direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from mdsim.compiled.jit import compiled
from mdsim.compiled.vector_instructions import FLAGS, INDEX, LANES, Emitter
from mdsim.models.nequip.irreps import Irrep
from mdsim.models.nequip.layers import Path, coupling

ROWS = 8  # rows of a matrix product that share the loaded values
SPLINE_ORDER = 6  # coefficients per interval
KNOTS = 128  # on [0, cutoff]; interpolation changes forces by a tenth of the float32 rounding error


def coupling_degrees(l_max: int) -> list[tuple[int, int, int]]:
    """Degrees of sender, harmonic and result, for all allowed couplings."""
    degrees = range(l_max + 1)
    return [(a, b, c) for a in degrees for b in degrees for c in degrees if abs(a - b) <= c <= a + b]


def coefficients_of(kind: tuple[int, int, int]) -> np.ndarray:
    """Coupling coefficients "harmonic out in". They do not depend on parity."""
    irreps = [Irrep(degree, 1) for degree in kind]
    found = coupling(Path(*irreps)).numpy().copy()
    found[np.abs(found) < 1e-12] = 0.0
    return found


def _cases(emitter: Emitter, kind: ir.Value, degrees: types.UniTuple, emit: Callable) -> None:
    """Emit a switch that runs the instructions of the given kind."""
    builder = emitter.builder
    end = builder.append_basic_block("end")
    switch = builder.switch(kind, end)
    for number, triple in enumerate(coupling_degrees(len(degrees) - 1)):
        block = builder.append_basic_block(f"kind_{number}")
        switch.add_case(INDEX(number), block)
        with builder.goto_block(block):
            emit(triple)
            builder.branch(end)
    builder.position_at_end(end)


def _emit_messages(emitter: Emitter, kind: tuple[int, int, int], arguments: Sequence, backward: bool) -> None:
    y, y_at, w, w_at, x, x_i, x_j, out, out_i, out_j, channels = arguments
    coefficients = coefficients_of(kind)
    if backward:
        coefficients, x_i, x_j, out_i, out_j = coefficients.transpose(0, 2, 1), x_j, x_i, out_j, out_i
    builder, (_, n_out, n_in) = emitter.builder, coefficients.shape
    matrix = _matrix(emitter, coefficients, y, y_at)
    with cgutils.for_range_slice(builder, INDEX(0), channels, INDEX(LANES)) as (k, _):
        weight = emitter.load(w, emitter.place(w_at, k))
        other = emitter.times(weight, emitter.spread(-1.0)) if kind[1] % 2 else weight
        for factor, source, target in ((weight, x_j, out_i), (other, x_i, out_j)):
            sent = [emitter.times(factor, v) for v in emitter.components(x, emitter.place(source, k), channels, n_in)]
            for row in range(n_out):
                columns = [column for column in range(n_in) if (row, column) in matrix]
                message = emitter.combination([matrix[row, c] for c in columns], [sent[c] for c in columns])
                emitter.add_to(message, out, emitter.place(target, k, builder.mul(channels, INDEX(row))))


def _matrix(emitter: Emitter, coefficients: np.ndarray, y: ir.Value, y_at: ir.Value) -> dict:
    """Nonzero entries of Σ c Y by row and column. None stands for one."""
    if len(coefficients) == 1:  # the harmonic of degree zero is one, and so is its coupling
        return {(row, row): None for row in range(coefficients.shape[1])}
    harmonics = [emitter.scalar_at(y, emitter.place(y_at, m)) for m in range(len(coefficients))]
    entries = {}
    for row, column in np.argwhere(np.any(coefficients, axis=0)).tolist():
        used = np.flatnonzero(coefficients[:, row, column])
        factors = coefficients[used, row, column].tolist()
        entries[row, column] = emitter.spread(emitter.combination(factors, [harmonics[m] for m in used]))
    return entries


def _emit_differentiation(emitter: Emitter, kind: tuple[int, int, int], arguments: Sequence) -> None:
    y, y_at, w, slope, w_at, x, x_i, x_j, g, g_i, g_j, sums, channels = arguments
    coefficients, builder = coefficients_of(kind), emitter.builder
    n_y, n_out, n_in = coefficients.shape
    harmonics = [emitter.spread(emitter.scalar_at(y, emitter.place(y_at, m))) for m in range(n_y)]
    sign = emitter.spread(-1.0) if kind[1] % 2 else None
    with cgutils.for_range_slice(builder, INDEX(0), channels, INDEX(LANES)) as (k, _):
        here, there = (emitter.components(x, emitter.place(at, k), channels, n_in) for at in (x_j, x_i))
        there = [emitter.combination([sign], [value]) for value in there]
        to, fro = (emitter.components(g, emitter.place(at, k), channels, n_out) for at in (g_i, g_j))
        products = {
            (row, column): emitter.combination([here[column], there[column]], [to[row], fro[row]])
            for row, column in np.argwhere(np.any(coefficients, axis=0)).tolist()
        }
        q = []
        for of_harmonic in coefficients:
            used = [place for place in products if of_harmonic[place]]
            factors = [float(of_harmonic[place]) if n_y > 1 else None for place in used]
            q.append(emitter.combination(factors, [products[place] for place in used]))
        total = emitter.combination(harmonics, q) if n_y > 1 else q[0]
        emitter.add_to(emitter.times(emitter.load(slope, emitter.place(w_at, k)), total), sums, INDEX(0))
        if n_y > 1:
            weight = emitter.load(w, emitter.place(w_at, k))
            for m in range(n_y):
                place = builder.mul(emitter.place(y_at, m), INDEX(LANES))
                emitter.add_to(emitter.times(weight, q[m]), sums, place)


def _by_kind(emit: Callable, degrees, arguments) -> tuple:
    """Signature and code generator, as `intrinsic` expects them, for instructions that depend on the coupling."""
    arguments = [types.intp if isinstance(t, types.Integer) else t for t in arguments]

    def codegen(context, builder, signature, values):
        scalar = next(t.dtype for t in arguments if isinstance(t, types.Array))
        emitter = Emitter(context, builder, scalar)
        kind, *others = [
            emitter.data(t, value) if isinstance(t, types.Array) else value
            for t, value in zip(signature.args[1:], values[1:], strict=True)
        ]
        _cases(emitter, kind, degrees, lambda triple: emit(emitter, triple, others))
        return context.get_dummy_value()

    return types.void(degrees, *arguments), codegen


@intrinsic
@no_type_check
def add_messages(typingctx, degrees, kind, y, y_at, w, w_at, x, x_i, x_j, out, out_i, out_j, channels):
    """The messages of one path between two atoms, both ways."""
    emit = partial(_emit_messages, backward=False)
    return _by_kind(emit, degrees, (kind, y, y_at, w, w_at, x, x_i, x_j, out, out_i, out_j, channels))


@intrinsic
@no_type_check
def add_message_gradients(typingctx, degrees, kind, y, y_at, w, w_at, g, g_i, g_j, gx, gx_i, gx_j, channels):
    """Add the contributions of the gradients of both sums to the gradients of the senders' features."""
    emit = partial(_emit_messages, backward=True)
    return _by_kind(emit, degrees, (kind, y, y_at, w, w_at, g, g_i, g_j, gx, gx_i, gx_j, channels))


@intrinsic
@no_type_check
def differentiate_messages(
    typingctx, degrees, kind, y, y_at, w, slope, w_at, x, x_i, x_j, g, g_i, g_j, sums, channels
):  # fmt: skip
    """Add derivatives to `sums` "harmonic lane": by the harmonics to their rows, by the distance to the first row,
    whose harmonic is constant."""
    arguments = (kind, y, y_at, w, slope, w_at, x, x_i, x_j, g, g_i, g_j, sums, channels)
    return _by_kind(_emit_differentiation, degrees, arguments)


def _rows_product(n_rows: int):
    """Instructions for target += source @ matrix with the given number of rows."""

    @no_type_check
    def product(typingctx, source, source_at, matrix, matrix_at, target, target_at, channels):
        def codegen(context, builder, signature, values):
            emitter = Emitter(context, builder, source.dtype)
            (s, m, t), (s_at, m_at, t_at, n) = (
                [emitter.data(source, v) for v in values[0:6:2]], [*values[1:6:2], values[6]],
            )  # fmt: skip
            starts = [[emitter.place(at, builder.mul(n, INDEX(r))) for r in range(n_rows)] for at in (s_at, t_at)]
            totals = [cgutils.alloca_once(builder, emitter.vector) for _ in range(n_rows)]
            with cgutils.for_range_slice(builder, INDEX(0), n, INDEX(LANES)) as (k, _):
                for total, start in zip(totals, starts[1], strict=True):
                    builder.store(emitter.load(t, emitter.place(start, k)), total)
                with cgutils.for_range(builder, n) as loop:
                    entries = emitter.load(m, emitter.place(m_at, builder.mul(loop.index, n), k))
                    for total, start in zip(totals, starts[0], strict=True):
                        factor = emitter.spread(emitter.scalar_at(s, emitter.place(start, loop.index)))
                        product = emitter.times(factor, entries)
                        builder.store(emitter.sum([builder.load(total), product]), total)
                for total, start in zip(totals, starts[1], strict=True):
                    emitter.store(builder.load(total), t, emitter.place(start, k))
            return context.get_dummy_value()

        places = types.intp
        return types.void(source, places, matrix, places, target, places, places), codegen

    return intrinsic(product)


_add_rows, _add_row = _rows_product(ROWS), _rows_product(1)


@compiled()
@no_type_check
def add_product(source, source_at, matrix, matrix_at, target, target_at, n_rows, channels):
    """target += source @ matrix for rows of `channels` numbers and a square matrix."""
    done = 0
    while done + ROWS <= n_rows:
        at = done * channels
        _add_rows(source, source_at + at, matrix, matrix_at, target, target_at + at, channels)
        done += ROWS
    while done < n_rows:
        at = done * channels
        _add_row(source, source_at + at, matrix, matrix_at, target, target_at + at, channels)
        done += 1


@intrinsic
@no_type_check
def evaluate_splines(typingctx, table, table_at, t, values, slopes, count):
    """Values and derivatives by t of `count` polynomials, whose coefficients are `count` apart."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(context, builder, table.dtype)
        c, value, slope = (emitter.data(table, arguments[n]) for n in (0, 3, 4))
        _, start, _, _, _, n = arguments
        t_vector = emitter.spread(arguments[2])
        with cgutils.for_range_slice(builder, INDEX(0), n, INDEX(LANES)) as (k, _):
            coefficients = emitter.components(c, emitter.place(start, k), n, SPLINE_ORDER)
            total, derivative = coefficients[-1], None
            for coefficient in coefficients[-2::-1]:
                derivative = total if derivative is None else emitter.combination([None, t_vector], [total, derivative])
                total = emitter.combination([None, t_vector], [coefficient, total])
            emitter.store(total, value, k)
            emitter.store(derivative, slope, k)
        return context.get_dummy_value()

    return types.void(table, types.intp, table.dtype, values, slopes, types.intp), codegen


@intrinsic
@no_type_check
def sigmoids(typingctx, source, source_at, factor, target, count):
    """1 / (1 + exp(-factor · x)) of `count` numbers."""

    def codegen(context, builder, signature, arguments):
        emitter = Emitter(context, builder, source.dtype)
        x, start, factor_, out, n = arguments
        x, out, one = emitter.data(source, x), emitter.data(target, out), emitter.spread(1.0)
        minus = emitter.times(emitter.spread(factor_), emitter.spread(-1.0))
        with cgutils.for_range_slice(builder, INDEX(0), n, INDEX(LANES)) as (k, _):
            e = emitter.exp(emitter.times(minus, emitter.load(x, emitter.place(start, k))))
            emitter.store(builder.fdiv(one, emitter.sum([one, e]), flags=FLAGS), out, k)
        return context.get_dummy_value()

    return types.void(source, types.intp, source.dtype, target, types.intp), codegen
