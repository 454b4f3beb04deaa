"""Energies and forces of a frozen SchNet for molecular dynamics on the CPU: tabulated filters, one compiled loop.

While replicas move, the parameters do not. Each filter W^l(d), times the cutoff, is then a function of one distance: it
is tabulated once as a cubic Hermite spline, and forces are the exact derivative of the same spline, so that energy is
conserved. The rest of the network and its hand-written backward pass run atom by atom without materialized pair
features, replicas in parallel. Interpolation errors are below the rounding errors of float32 (`KNOTS`).

Needs numba (the extra `fast`); without it `SchNet.bind` uses the plain path. Run-time type checks would get in the
compiler's way, hence `no_type_check`.

    forward, layer l                                backward
    h = x W1ᵀ                                       gs = gx W3,  ga = gs σ(a),  gm = ga W2
    m_i = Σ_j w(d_ij) h_j                           gh_j += w gm_i,  gd_ij += w' (gm_i·h_j + gm_j·h_i)
    a = m W2ᵀ + b2,  x += ssp(a) W3ᵀ + b3           gx += gh W1
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch
from numba import njit, prange, set_num_threads
from numba.core import config

from mdsim.geometry import all_pairs
from mdsim.neighbors import ALL_PAIRS_UP_TO_ATOMS
from mdsim.state import System
from mdsim.typing import Float, Tensor

# numba's own pool of threads: its OpenMP layer shares, and changes, the number of threads that torch computes with.
config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]

MOST_THREADS: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
KNOTS = 512  # on [0, cutoff]; for basis functions 0.2 Å wide the error of a filter is about 1e-7 of its size
ALL_PERIODIC_PAIRS_UP_TO_ATOMS = 512  # looking at all distances takes a small part of the time up to there
FAST = {"contract", "reassoc", "nsz", "arcp"}  # no assumption that numbers are finite: a broken replica is data
LOG2 = math.log(2.0)


class TabulatedSchNet:
    """The potential of a small system under a SchNet with fixed parameters, see `supports`.

    Args:
        model: its parameters are copied.
        system: open, or in an orthorhombic cell at least twice as wide as the cutoff.
    """

    def __init__(self, model, system: System) -> None:
        pairs = all_pairs(system.n_atoms).numpy().astype(np.int64)
        with torch.no_grad():
            embedded = model.embedding(system.atomic_numbers.cpu())
        blocks = model.interactions
        box = np.zeros(3) if system.cell is None else torch.diagonal(system.cell).cpu().numpy()
        self.arguments = (
            box.astype(np.float32),
            np.ascontiguousarray(pairs[:, 0]),
            np.ascontiguousarray(pairs[:, 1]),
            _tabulate(model),
            np.float32(model.cutoff),
            _array(embedded),
            np.stack([_array(block.conv.lin1.weight.T) for block in blocks]),
            np.stack([_array(block.conv.lin2.weight.T) for block in blocks]),
            np.stack([_array(block.conv.lin2.bias) for block in blocks]),
            np.stack([_array(block.lin.weight.T) for block in blocks]),
            np.stack([_array(block.lin.bias) for block in blocks]),
            _array(model.lin1.weight.T),
            _array(model.lin1.bias),
            _array(model.lin2.weight[0]),
            np.float32(model.lin2.bias.item()),
            np.float32(model.energy_scale.item()),
        )

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to the shift) and forces (eV/Å)."""
        coordinates = positions.detach().contiguous().numpy()
        energy = np.empty(len(coordinates), np.float32)
        forces = np.empty_like(coordinates)
        set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
        _energies_and_forces(coordinates, *self.arguments, energy, forces)
        return torch.from_numpy(energy), torch.from_numpy(forces)


def supports(model, system: System) -> bool:
    """Whether this path can stand in for the plain one: CPU, float32, few atoms, one image of each pair in reach."""
    weight = model.lin1.weight
    plain = weight.dtype == system.masses.dtype == torch.float32 and weight.device.type == "cpu"
    if system.cell is None:
        return plain and system.n_atoms <= ALL_PAIRS_UP_TO_ATOMS
    edges = torch.diagonal(system.cell)
    one_image = torch.equal(system.cell, torch.diag(edges)) and float(edges.min()) >= 2 * model.cutoff
    return plain and one_image and system.n_atoms <= ALL_PERIODIC_PAIRS_UP_TO_ATOMS


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)


def _tabulate(model) -> Float[np.ndarray, "knot layer 2 filter"]:
    """Values and slopes (times the knot spacing) of every filter times the cosine cutoff, computed in float64."""
    distances = torch.linspace(0.0, model.cutoff, KNOTS + 1, dtype=torch.float64)
    offset, coefficient = model.distance_expansion.offset.double(), model.distance_expansion.coeff
    layers = []
    for block in model.interactions:
        first, _, second = block.mlp
        weights = [t.detach().double() for t in (first.weight, first.bias, second.weight, second.bias)]

        def filters(d: Tensor, weights: list[Tensor] = weights) -> Tensor:
            basis = torch.exp(coefficient * (d[:, None] - offset) ** 2)
            hidden = torch.nn.functional.softplus(basis @ weights[0].T + weights[1]) - LOG2
            cutoff = 0.5 * (torch.cos(math.pi / model.cutoff * d) + 1.0)
            return (hidden @ weights[2].T + weights[3]) * cutoff[:, None]

        values, slopes = torch.func.jvp(filters, (distances,), (torch.ones_like(distances),))[:2]
        layers.append(torch.stack([values, slopes * (model.cutoff / KNOTS)], dim=1))
    return np.ascontiguousarray(torch.stack(layers, dim=1).numpy(), dtype=np.float32)


@njit(fastmath=FAST, cache=True)
@no_type_check
def _softplus(x):
    """log(1 + exp(x)) - log 2 without overflow."""
    return max(x, np.float32(0.0)) + np.log1p(np.exp(-abs(x))) - np.float32(LOG2)


@njit(fastmath=FAST, cache=True)
@no_type_check
def _sigmoid(x):
    return np.float32(1.0) / (np.float32(1.0) + np.exp(-x))


@njit(fastmath=FAST, cache=True)
@no_type_check
def _find_pairs(r, box, first, second, cutoff, index, vector, distance):
    """Pairs within the cutoff: their atoms, unit vectors and distances; returns how many.

    The box has the edges of an orthorhombic cell, or zeros for open boundaries, where the nearest image is the pair.
    """
    n = 0
    per_edge = np.zeros(3, np.float32)
    for axis in range(3):
        if box[axis] > 0:
            per_edge[axis] = np.float32(1.0) / box[axis]
    half = np.float32(0.5)
    for p in range(len(first)):
        i, j = first[p], second[p]
        x, y, z = r[j, 0] - r[i, 0], r[j, 1] - r[i, 1], r[j, 2] - r[i, 2]
        x -= box[0] * np.floor(x * per_edge[0] + half)
        y -= box[1] * np.floor(y * per_edge[1] + half)
        z -= box[2] * np.floor(z * per_edge[2] + half)
        squared = x * x + y * y + z * z
        if squared < cutoff * cutoff:  # false for numbers that are not finite
            d = np.sqrt(squared)
            inverse = np.float32(1.0) / max(d, np.float32(1e-12))
            index[n, 0], index[n, 1] = i, j
            vector[n, 0], vector[n, 1], vector[n, 2] = x * inverse, y * inverse, z * inverse
            distance[n] = d
            n += 1
    return n


@njit(fastmath=FAST, cache=True)
@no_type_check
def _hermite(distance, scale, knots, weights, slopes):
    """Knot below a distance, and the four weights of the spline and of its derivative there."""
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


@njit(fastmath=FAST, cache=True)
@no_type_check
def _convolve(low, high, w, h_i, h_j, m_i, m_j):
    """Both messages of one pair."""
    a, b, c, d = w[0], w[1], w[2], w[3]
    for f in range(h_i.shape[0]):
        value = a * low[0, f] + b * low[1, f] + c * high[0, f] + d * high[1, f]
        m_i[f] += value * h_j[f]
        m_j[f] += value * h_i[f]


@njit(fastmath=FAST, cache=True)
@no_type_check
def _convolve_backward(low, high, w, s, h_i, h_j, gm_i, gm_j, gh_i, gh_j):
    """Gradients of the features of one pair; returns the energy's derivative with respect to its distance."""
    a, b, c, d = w[0], w[1], w[2], w[3]
    p, q, r, t = s[0], s[1], s[2], s[3]
    total = np.float32(0.0)
    for f in range(h_i.shape[0]):
        value = a * low[0, f] + b * low[1, f] + c * high[0, f] + d * high[1, f]
        slope = p * low[0, f] + q * low[1, f] + r * high[0, f] + t * high[1, f]
        total += slope * (gm_i[f] * h_j[f] + gm_j[f] * h_i[f])
        gh_i[f] += value * gm_j[f]
        gh_j[f] += value * gm_i[f]
    return total


@njit(fastmath=FAST, cache=True, parallel=True)
@no_type_check
def _energies_and_forces(
    positions, box, first, second, table, cutoff, embedded, w1, w2, b2, w3, b3, r1, c1, r2, c2, scale, energy, forces
):
    knots, n_layers, n_filters = table.shape[0] - 1, table.shape[1], table.shape[3]
    n_atoms, n_hidden = embedded.shape
    inverse_spacing = np.float32(knots) / cutoff
    for replica in prange(len(positions)):
        r = positions[replica]
        index = np.empty((len(first), 2), np.int64)
        vector = np.empty((len(first), 3), np.float32)
        distance = np.empty(len(first), np.float32)
        n_pairs = _find_pairs(r, box, first, second, cutoff, index, vector, distance)
        knot = np.empty(n_pairs, np.int64)
        weights = np.empty((n_pairs, 4), np.float32)
        slopes = np.empty((n_pairs, 4), np.float32)
        for p in range(n_pairs):
            knot[p] = _hermite(distance[p], inverse_spacing, knots, weights[p], slopes[p])

        x = embedded.copy()
        h = np.empty((n_layers, n_atoms, n_filters), np.float32)
        a = np.empty((n_layers, n_atoms, n_hidden), np.float32)
        activated = np.empty((n_atoms, n_hidden), np.float32)
        for layer in range(n_layers):
            h[layer] = np.dot(x, w1[layer])
            m = np.zeros((n_atoms, n_filters), np.float32)
            for p in range(n_pairs):
                i, j, k = index[p, 0], index[p, 1], knot[p]
                _convolve(table[k, layer], table[k + 1, layer], weights[p], h[layer, i], h[layer, j], m[i], m[j])
            a[layer] = np.dot(m, w2[layer])
            for n in range(n_atoms):
                for f in range(n_hidden):
                    a[layer, n, f] += b2[layer, f]
                    activated[n, f] = _softplus(a[layer, n, f])
            x += np.dot(activated, w3[layer])
            for n in range(n_atoms):
                x[n] += b3[layer]

        out = np.dot(x, r1)
        total = np.float32(0.0)
        for n in range(n_atoms):
            total += c2
            for f in range(out.shape[1]):
                z = out[n, f] + c1[f]
                total += _softplus(z) * r2[f]
                out[n, f] = scale * r2[f] * _sigmoid(z)
        energy[replica] = scale * total

        gx = np.dot(out, r1.T)
        gd = np.zeros(n_pairs, np.float32)
        for layer in range(n_layers - 1, -1, -1):
            ga = np.dot(gx, w3[layer].T)
            for n in range(n_atoms):
                for f in range(n_hidden):
                    ga[n, f] *= _sigmoid(a[layer, n, f])
            gm = np.dot(ga, w2[layer].T)
            gh = np.zeros((n_atoms, n_filters), np.float32)
            for p in range(n_pairs):
                i, j, k = index[p, 0], index[p, 1], knot[p]
                gd[p] += _convolve_backward(
                    table[k, layer], table[k + 1, layer], weights[p], slopes[p],
                    h[layer, i], h[layer, j], gm[i], gm[j], gh[i], gh[j],
                )  # fmt: skip
            gx += np.dot(gh, w1[layer].T)

        force = np.zeros((n_atoms, 3), np.float32)
        for p in range(n_pairs):
            i, j = index[p, 0], index[p, 1]
            for axis in range(3):
                push = gd[p] * vector[p, axis]
                force[i, axis] += push
                force[j, axis] -= push
        finite = True
        for n in range(n_atoms):
            for axis in range(3):
                finite = finite and np.isfinite(r[n, axis])
        if not finite:
            energy[replica] = np.nan
            force[:] = np.nan
        forces[replica] = force
