"""Energies and forces of a frozen NequIP for molecular dynamics on the CPU: tabulated weights, fused convolutions.

While replicas move, the parameters do not. The weights of each convolution are then functions of one distance: they are
tabulated once as cubic Hermite splines, and forces are the exact derivative of the same splines, so that energy is
conserved. A convolution and its derivatives run pair by pair, both directions at once, replicas in parallel, without
materialized messages. What happens at atoms (linear maps, gates) is the model's own code.

Needs numba (the extra `fast`); without it `NequIP.bind` uses the plain path. Run-time type checks would get in the
compiler's way, hence `no_type_check`.

With w the weights of a path, Y the harmonics of the pair and c the coupling coefficients, one term for each nonzero c:

    forward                              backward (g: gradient of out)
    out_i += c Y w x_j                   gx_j += c Y w g_i,  gx_i += ± c Y w g_j
    out_j += ± c Y w x_i                 gw += c Y q,  gY += c Σ w q  with  q = x_j g_i ± x_i g_j

where ± is the parity of the harmonic: the other direction sees the pair inverted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, no_type_check

import numpy as np
import torch
from e3nn.o3 import Irrep
from numba import njit, prange, set_num_threads

from mdsim.models.compiled_loops import FAST, MOST_THREADS
from mdsim.models.nequip_layers import Convolution, Features, coupling
from mdsim.neighbors import NeighborList
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor

KNOTS = 1024  # on [0, cutoff]: interpolation errors of weights and slopes are below float32's rounding


@dataclass(frozen=True)
class Pairs:
    """What the convolutions of one call share. Pairs are sorted by replica; `starts` says where each begins."""

    first: Int[Tensor, "pair"]
    second: Int[Tensor, "pair"]
    starts: Int[Tensor, "boundary"]
    knots: Int[Tensor, "pair"]  # below the distance
    powers: Float[Tensor, "pair 3"]  # t, t², t³ of the spline
    harmonics: Float[Tensor, "pair harmonic"]  # of the direction from first to second


class TabulatedNequIP:
    """The potential of a system under a NequIP with fixed parameters.

    Args:
        model: a `NequIP`; its parameters are copied.
        system: what the replicas are copies of.
        skin: of the neighbour list, Å.
    """

    def __init__(self, model, system: System, skin: float = 0.5) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.system = system
        self.neighbor_list = NeighborList(system, model.cutoff, skin)
        precise = copy.deepcopy(self.model).double()
        self.convolutions = [TabulatedConvolution(precise, layer.convolution, system) for layer in precise.layers]

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to `zero_energy_eV`) and forces (eV/Å)."""
        with torch.enable_grad():
            positions = positions.detach().requires_grad_()
            pairs = self._pairs(positions)
            convolutions = [partial(convolution, pairs=pairs) for convolution in self.convolutions]
            energy = self.model.network(self.system, len(positions), convolutions).sum(-1)
            (gradient,) = torch.autograd.grad(energy.sum(), positions)
        return energy.detach(), -gradient

    def _pairs(self, positions: Float[Tensor, "replica atom 3"]) -> Pairs:
        n_replicas, n_atoms, _ = positions.shape
        found = self.model.pairs_within_cutoff(positions, self.neighbor_list(positions))
        displacements, distances, first, second = found
        starts = torch.searchsorted(first, n_atoms * torch.arange(n_replicas + 1))
        u = distances * (KNOTS / self.model.cutoff)
        knots = u.detach().nan_to_num().long().clamp(max=KNOTS - 1)
        t = u - knots
        return Pairs(
            first, second, starts, knots, torch.stack([t, t**2, t**3], dim=-1), self.model.harmonics(displacements)
        )


def supports(model, system: System) -> bool:
    """Whether this path can stand in for the plain one: on the CPU, model and system in the same precision."""
    weight = next(model.parameters())
    return weight.device.type == system.masses.device.type == "cpu" and weight.dtype == system.masses.dtype


class TabulatedConvolution:
    """A convolution with tabulated weights.

    Args:
        model: in float64; its radial basis and cutoff.
        convolution: of that model.
        system: gives the precision.
    """

    def __init__(self, model, convolution: Convolution, system: System) -> None:
        self.convolution = convolution
        self.rows = [path.ir_out.dim for path in convolution.paths]
        dtype = system.masses.numpy().dtype
        self.constants = (tabulate(model, convolution).numpy().astype(dtype), *_terms(convolution, dtype))

    def __call__(self, features: Features, pairs: Pairs) -> Features:
        """The sum over each atom's neighbours, as `Convolution` gives it."""
        packed = torch.cat([features[ir] for ir in self.convolution.irreps_in], dim=1)
        indices = tuple(t.numpy() for t in (pairs.first, pairs.second, pairs.starts, pairs.knots))
        received = _Fused.apply(packed, pairs.powers, pairs.harmonics, (*indices, *self.constants), sum(self.rows))
        return self.convolution.collect(received.split(self.rows, dim=1))


def tabulate(model, convolution: Convolution) -> Float[Tensor, "interval 4 weight"]:
    """Coefficients 1, t, t², t³ of the cubic Hermite spline of each weight, t from 0 to 1 between two knots.

    Powers instead of values and slopes at both knots: the derivative is then no difference of nearly equal numbers.
    """
    distances = torch.linspace(0.0, model.cutoff, KNOTS + 1, dtype=torch.float64)
    values, slopes = torch.func.jvp(
        lambda d: convolution.radial_network(model.radial_basis(d)), (distances,), (torch.ones_like(distances),)
    )[:2]
    slopes = slopes * (model.cutoff / KNOTS)
    rise, start, end = values.diff(dim=0), slopes[:-1], slopes[1:]
    return torch.stack([values[:-1], start, 3 * rise - 2 * start - end, start + end - 2 * rise], dim=1).detach()


def _terms(convolution: Convolution, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every nonzero coupling coefficient: path, row of the result, row of the sender, harmonic; its value; its value
    in the other direction."""
    row_in, row_y = _first_rows(convolution.irreps_in), _first_rows(convolution.harmonics)
    places, values, parities, row_out = [], [], [], 0
    for number, path in enumerate(convolution.paths):
        symbols = coupling(path)
        for y, row, column in torch.nonzero(symbols.abs() > 1e-12).tolist():
            places.append([number, row_out + row, row_in[path.ir_in] + column, row_y[path.ir_harmonic] + y])
            values.append(float(symbols[y, row, column]))
            parities.append(path.ir_harmonic.p)
        row_out += path.ir_out.dim
    return np.array(places, np.int64), np.array(values, dtype), np.array(values, dtype) * np.array(parities, dtype)


def _first_rows(irreps: Sequence[Irrep]) -> dict[Irrep, int]:
    return {ir: sum(before.dim for before in irreps[:place]) for place, ir in enumerate(irreps)}


class _Fused(torch.autograd.Function):
    """The compiled loops, differentiable once in features, powers and harmonics."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, powers: Tensor, harmonics: Tensor, constants: tuple, n_rows: int) -> Tensor:
        arrays = tuple(tensor.detach().contiguous().numpy() for tensor in (packed, powers, harmonics))
        ctx.arguments = (*arrays, *constants)
        received = np.zeros((len(packed), n_rows, packed.shape[-1]), arrays[0].dtype)
        set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
        _forward(*ctx.arguments, received)
        return torch.from_numpy(received)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        gradients = tuple(np.zeros_like(array) for array in ctx.arguments[:3])
        set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
        _backward(*ctx.arguments, gradient.contiguous().numpy(), *gradients)
        return (*(torch.from_numpy(array) for array in gradients), None, None)


@njit(fastmath=FAST, cache=True)
@no_type_check
def _weights(c, powers, w):
    """The splines of all weights."""
    t, t2, t3 = powers[0], powers[1], powers[2]
    for k in range(w.shape[0]):
        w[k] = c[0, k] + t * c[1, k] + t2 * c[2, k] + t3 * c[3, k]


@njit(fastmath=FAST, cache=True)
@no_type_check
def _add_product(factor, a, b, total):
    for k in range(total.shape[0]):
        total[k] += factor * a[k] * b[k]


@njit(fastmath=FAST, cache=True)
@no_type_check
def _add_weight_gradient(here, back, w, x_i, x_j, g_i, g_j, gw):
    """Gradient of the weights; returns those of the coefficients of both directions."""
    ahead, behind = w[0] * 0, w[0] * 0
    for k in range(w.shape[0]):
        p, q = x_j[k] * g_i[k], x_i[k] * g_j[k]
        gw[k] += here * p + back * q
        ahead += w[k] * p
        behind += w[k] * q
    return ahead, behind


@njit(fastmath=FAST, cache=True)
@no_type_check
def _dot(a, b):
    total = a[0] * 0
    for k in range(a.shape[0]):
        total += a[k] * b[k]
    return total


@njit(fastmath=FAST, cache=True, parallel=True)
@no_type_check
def _forward(x, powers, harmonics, first, second, starts, knots, table, places, values, reverse_values, received):
    n_weights, n_channels = table.shape[2], x.shape[2]
    for replica in prange(len(starts) - 1):
        w = np.empty(n_weights, x.dtype)
        for p in range(starts[replica], starts[replica + 1]):
            i, j = first[p], second[p]
            _weights(table[knots[p]], powers[p], w)
            for t in range(len(places)):
                path, row_out, row_in, y = places[t, 0], places[t, 1], places[t, 2], places[t, 3]
                w_path = w[path * n_channels : (path + 1) * n_channels]
                _add_product(values[t] * harmonics[p, y], w_path, x[j, row_in], received[i, row_out])
                _add_product(reverse_values[t] * harmonics[p, y], w_path, x[i, row_in], received[j, row_out])


@njit(fastmath=FAST, cache=True, parallel=True)
@no_type_check
def _backward(
    x, powers, harmonics, first, second, starts, knots, table, places, values, reverse_values,
    g, gx, g_powers, g_harmonics,
):  # fmt: skip
    n_weights, n_channels = table.shape[2], x.shape[2]
    for replica in prange(len(starts) - 1):
        w = np.empty(n_weights, x.dtype)
        gw = np.empty(n_weights, x.dtype)
        for p in range(starts[replica], starts[replica + 1]):
            i, j = first[p], second[p]
            _weights(table[knots[p]], powers[p], w)
            gw[:] = 0
            for t in range(len(places)):
                path, row_out, row_in, y = places[t, 0], places[t, 1], places[t, 2], places[t, 3]
                here, back = values[t] * harmonics[p, y], reverse_values[t] * harmonics[p, y]
                channels = slice(path * n_channels, (path + 1) * n_channels)
                _add_product(here, w[channels], g[i, row_out], gx[j, row_in])
                _add_product(back, w[channels], g[j, row_out], gx[i, row_in])
                ahead, behind = _add_weight_gradient(
                    here, back, w[channels], x[i, row_in], x[j, row_in], g[i, row_out], g[j, row_out], gw[channels]
                )
                g_harmonics[p, y] += values[t] * ahead + reverse_values[t] * behind
            for power in range(3):
                g_powers[p, power] = _dot(gw, table[knots[p], power + 1])
