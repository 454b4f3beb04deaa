"""Emitter of LLVM vector instructions, for loops that numba's compiler does not vectorize.

The compiler must assume that any two arrays overlap, which prevents vectorization. Here arrays are one-dimensional and
positions in them are integers, so the instructions run as written. A vector of float32 fills one of the widest
registers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir
from numba.core import types

from mdsim.compiled.jit import FAST

FLAGS = tuple(sorted(FAST))  # instructions may be fused and reordered; numbers may be non-finite
LANES = 16
INDEX = ir.IntType(64)


class Emitter:
    """Arithmetic on vectors of channels.

    Args:
        context, builder: numba's, as passed to an intrinsic.
        scalar: floating-point type of all arrays.
    """

    def __init__(self, context, builder: ir.IRBuilder, scalar: types.Float) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(scalar)
        self.vector = ir.VectorType(self.scalar, LANES)
        self.alignment = scalar.bitwidth // 8

    def data(self, array_type: types.Array, array: ir.Value) -> ir.Value:
        return self.context.make_array(array_type)(self.context, self.builder, array).data

    def place(self, start: ir.Value, *offsets: ir.Value | int) -> ir.Value:
        """The sum of indices."""
        for offset in offsets:
            start = self.builder.add(start, INDEX(offset) if isinstance(offset, int) else offset)
        return start

    def scalar_at(self, data: ir.Value, place: ir.Value) -> ir.Value:
        return self.builder.load(self.builder.gep(data, [place]))

    def load(self, data: ir.Value, place: ir.Value) -> ir.Value:
        return self.builder.load(self._pointer(data, place), align=self.alignment)

    def store(self, value: ir.Value, data: ir.Value, place: ir.Value) -> None:
        self.builder.store(value, self._pointer(data, place), align=self.alignment)

    def _pointer(self, data: ir.Value, place: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(data, [place]), self.vector.as_pointer())

    def spread(self, value: ir.Value | float) -> ir.Value:
        """The same number in all lanes."""
        if not isinstance(value, ir.Value):
            return ir.Constant(self.vector, LANES * [self.scalar(value)])
        single = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), value, ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return self.builder.shuffle_vector(single, ir.Constant(self.vector, ir.Undefined), lanes)

    def times(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b, flags=FLAGS)

    def sum(self, terms: Sequence[ir.Value]) -> ir.Value:
        total = terms[0]
        for term in terms[1:]:
            total = self.builder.fadd(total, term, flags=FLAGS)
        return total

    def combination(self, factors: Sequence[ir.Value | float | None], values: Sequence[ir.Value]) -> ir.Value:
        """Sum of products. A factor of None stands for one."""
        return self.sum(
            [v if f is None else self.times(self._like(f, v), v) for f, v in zip(factors, values, strict=True)]
        )

    def _like(self, factor: ir.Value | float, value: ir.Value) -> ir.Value:
        if isinstance(factor, ir.Value):
            return factor
        return self.spread(factor) if isinstance(value.type, ir.VectorType) else self.scalar(factor)

    def exp(self, x: ir.Value) -> ir.Value:
        """2 to the power of n, times a series in the remainder. Arguments are clipped to avoid overflow."""
        bits, mantissa, terms = (32, 23, 11) if self.alignment == 4 else (64, 52, 18)
        most = 2.0 ** (bits - mantissa - 2) - 2
        y = self.times(x, self.spread(1.0 / math.log(2.0)))
        for bound, comparison in ((most, "<"), (-most, ">")):
            limit = self.spread(bound)
            y = self.builder.select(self.builder.fcmp_ordered(comparison, y, limit), y, limit)
        integers = ir.VectorType(ir.IntType(bits), LANES)
        n = self.builder.fptosi(y, integers)
        rest = self.builder.fsub(y, self.builder.sitofp(n, self.vector), flags=FLAGS)
        r = self.times(rest, self.spread(math.log(2.0)))
        series = self.spread(1.0 / math.factorial(terms - 1))
        for power in range(terms - 2, -1, -1):
            series = self.combination([None, r], [self.spread(1.0 / math.factorial(power)), series])
        bias, shift = (ir.Constant(integers, LANES * [number]) for number in (2 ** (bits - mantissa - 2) - 1, mantissa))
        exponent = self.builder.add(n, bias)
        return self.times(series, self.builder.bitcast(self.builder.shl(exponent, shift), self.vector))

    def add_to(self, value: ir.Value, data: ir.Value, place: ir.Value) -> None:
        self.store(self.sum([self.load(data, place), value]), data, place)

    def components(self, data: ir.Value, start: ir.Value, channels: ir.Value, count: int) -> list[ir.Value]:
        """One vector per component."""
        return [self.load(data, self.place(start, self.builder.mul(channels, INDEX(n)))) for n in range(count)]
