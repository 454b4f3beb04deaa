"""Energies of fixed structures that are differentiable in SchNet's parameters: what the Boltzmann estimator needs.

The structures do not move: no gradient with respect to positions is wanted. The filters are then evaluated at the knots
of a spline instead of at every pair of every structure, and the gradient goes the same way back: from the pairs to the
knots, which the filter networks see once a minibatch. Convolutions run in compiled loops without pair features.

Needs numba; run-time type checks would get in the compiler's way, hence `no_type_check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from numba import prange

from mdsim.models.compiled_loops import compiled, use_torch_threads
from mdsim.models.schnet_kernels import activate, add_product, convolve, evaluate, find_pairs, hermite
from mdsim.models.schnet_tabulated import KNOTS, filter_table, pairs_and_box
from mdsim.state import System
from mdsim.typing import Float, Tensor


def atomic_energies(model, system: System, positions: Float[Tensor, "sample atom 3"]) -> Float[Tensor, "sample atom"]:
    """Atomic energies of a `SchNet` in eV, with a graph to its parameters only; see `schnet_tabulated.supports`."""
    pairs = Pairs.of(system, positions, model.cutoff)
    features = model.embedding(system.atomic_numbers).repeat(len(positions), 1)
    for block, table in zip(model.interactions, filter_table(model, features.dtype), strict=True):
        messages = _Convolution.apply(block.conv.lin1(features), table, pairs)
        activated = _ShiftedSoftplus.apply(messages @ block.conv.lin2.weight.T, block.conv.lin2.bias)
        features = features + block.lin(activated)
    activated = _ShiftedSoftplus.apply(features @ model.lin1.weight.T, model.lin1.bias)
    return model.energy_scale * model.lin2(activated).reshape(positions.shape[:2])


@dataclass(frozen=True)
class Pairs:
    """Pairs within the cutoff of each sample: as many as `counts` says, the rest of a row is not set."""

    counts: np.ndarray  # sample
    index: np.ndarray  # sample pair 2
    knot: np.ndarray  # sample pair
    spline: np.ndarray  # sample pair 2 4

    @classmethod
    def of(cls, system: System, positions: Float[Tensor, "sample atom 3"], cutoff: float) -> Pairs:
        box, first, second = pairs_and_box(system)
        shape = len(positions), len(first)
        pairs = cls(
            np.zeros(shape[0], np.int64),
            np.empty((*shape, 2), np.int64),
            np.empty(shape, np.int64),
            np.empty((*shape, 2, 4), np.float32),
        )
        coordinates = positions.detach().contiguous().numpy()
        use_torch_threads()
        _find(coordinates, box, first, second, np.float32(cutoff), KNOTS, *pairs.arrays)
        return pairs

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.counts, self.index, self.knot, self.spline


class _Convolution(torch.autograd.Function):
    """Messages summed over the neighbours of each atom, differentiable once in features and table."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, table: Tensor, pairs: Pairs) -> Tensor:
        h = features.detach().contiguous().numpy().reshape(len(pairs.counts), -1, features.shape[1])
        ctx.arguments = table.detach().contiguous().numpy(), *pairs.arrays, h
        received = np.zeros_like(h)
        use_torch_threads()
        _convolve_samples(*ctx.arguments, received)
        return torch.from_numpy(received).view_as(features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        table, *_, h = ctx.arguments
        gm = gradient.contiguous().numpy().reshape(h.shape)
        gh = np.zeros_like(h)
        g_tables = np.zeros((use_torch_threads(), *table.shape), table.dtype)  # each thread adds to its own
        _convolve_samples_backward(*ctx.arguments, gm, gh, g_tables)
        return torch.from_numpy(gh).view_as(gradient), torch.from_numpy(g_tables.sum(0)), None


class _ShiftedSoftplus(torch.autograd.Function):
    """ssp(x + bias), differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        arguments = x.detach().contiguous(), bias.detach()
        activated, slope = torch.empty_like(arguments[0]), torch.empty_like(arguments[0])
        use_torch_threads()
        _activate_rows(*(tensor.numpy() for tensor in (*arguments, activated, slope)))
        ctx.save_for_backward(slope)
        return activated

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (slope,) = ctx.saved_tensors
        of_x = gradient * slope
        return of_x, of_x.sum(0)


@compiled(parallel=True)
@no_type_check
def _find(positions, box, first, second, cutoff, knots, counts, index, knot, spline):
    for sample in prange(len(positions)):
        vector, distance = np.empty((len(first), 3), np.float32), np.empty(len(first), np.float32)
        n = find_pairs(positions[sample], box, first, second, cutoff, index[sample], vector, distance)
        for p in range(n):
            knot[sample, p] = hermite(
                distance[p], np.float32(knots) / cutoff, knots, spline[sample, p, 0], spline[sample, p, 1]
            )
        counts[sample] = n


@compiled(parallel=True)
@no_type_check
def _convolve_samples(table, counts, index, knot, spline, h, received):
    for sample in prange(len(counts)):
        n = counts[sample]
        convolve(table, index[sample, :n], knot[sample, :n], spline[sample], h[sample], received[sample])


@compiled(parallel=True)
@no_type_check
def _convolve_samples_backward(table, counts, index, knot, spline, h, gm, gh, g_tables):
    n_parts = len(g_tables)
    for part in prange(n_parts):
        for sample in range(part, len(counts), n_parts):
            n = counts[sample]
            _convolve_backward(
                table, index[sample, :n], knot[sample], spline[sample], h[sample], gm[sample], gh[sample],
                g_tables[part],
            )  # fmt: skip


@compiled()
@no_type_check
def _convolve_backward(table, index, knot, spline, h, gm, gh, g_table):
    """Gradients of the features and of the table, added up."""
    filters, gradient = np.empty(h.shape[1], np.float32), np.empty(h.shape[1], np.float32)
    for p in range(len(index)):
        i, j, k = index[p, 0], index[p, 1], knot[p]
        evaluate(table[k], table[k + 1], spline[p, 0], filters)
        add_product(filters, gm[j], gh[i])
        add_product(filters, gm[i], gh[j])
        gradient[:] = 0
        add_product(h[j], gm[i], gradient)
        add_product(h[i], gm[j], gradient)
        for end in range(2):
            for kind in range(2):
                _add_multiple(spline[p, 0, 2 * end + kind], gradient, g_table[k + end, kind])


@compiled(inline="always")
@no_type_check
def _add_multiple(factor, x, total):
    for f in range(x.shape[0]):
        total[f] += factor * x[f]


@compiled(parallel=True)
@no_type_check
def _activate_rows(x, bias, activated, slope):
    for row in prange(len(x)):
        activate(x[row : row + 1], bias, activated[row : row + 1], slope[row : row + 1])
