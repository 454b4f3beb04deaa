"""Tables for the compiled loops of NequIP: a model and a system as plain arrays.

Channels are padded with zeros to whole vectors. Atoms are ordered by species, so that the self-connection is one matrix
product per species. The matrices include all factors (normalization, number of neighbors, scale of energies).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch

from mdsim.compiled.vector_instructions import LANES
from mdsim.models.nequip.fast.vectors import KNOTS, coupling_degrees
from mdsim.models.nequip.irreps import Irrep, spherical_harmonics, wigner_3j
from mdsim.models.nequip.layers import SCALAR, Convolution, Gate, Linear, SelfConnection
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


def tables(model, system: System) -> tuple[tuple, float]:
    """The arguments of `energies_and_forces` from `atoms` to `start`, and the largest relative error of the splines.

    Args:
        model: a `NequIP` in float64.
        system: the system of all replicas. It sets the precision.
    """
    builder = _Builder(model, system)
    for number, layer in enumerate(model.layers):
        builder.add_layer(layer, first=number == 0)
    return builder.arguments(system.masses.numpy().dtype), max(builder.errors)


@dataclass
class _PerLayer:
    """Rows of integers, grouped by layer."""

    rows: list[list[int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])

    def array(self, width: int) -> Int[np.ndarray, "row column"]:
        return np.array(self.rows, np.int64).reshape(-1, width)

    def end_layer(self) -> None:
        self.starts.append(len(self.rows))


class _Builder:
    """Assigns rows and records the operations between them, layer by layer."""

    def __init__(self, model, system: System) -> None:
        self.model = model
        self.channels = model.layers[0].convolution.channels
        self.padded = -(-self.channels // LANES) * LANES
        self.one_hot = model.one_hot[system.atomic_numbers]
        species = self.one_hot.argmax(-1)
        self.order = torch.argsort(species, stable=True)
        boundaries = torch.searchsorted(species[self.order], torch.arange(self.one_hot.shape[1] + 1))
        self.atoms_of = list(zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strict=True))
        self.kinds = coupling_degrees(len(model.irreps_harmonics) - 1)
        self.n_rows = 0
        self.constants: dict[int, Tensor] = {}  # first values of scalar rows, "atom channel"
        self.matrices: list[Tensor] = []
        self.splines: list[Tensor] = []
        self.errors: list[float] = []  # of the splines of each layer
        self.paths, self.before, self.after, self.gates = (_PerLayer() for _ in range(4))
        self.features: dict[Irrep, int] = {}  # rows that the last layer has written

    def new_rows(self, dim: int) -> int:
        self.n_rows += dim
        return self.n_rows - dim

    def add_layer(self, layer, first: bool) -> None:
        hidden = {ir: self.new_rows(ir.dim) for ir in layer.convolution.irreps_in}
        received = self._convolution(layer.convolution, hidden)
        needed = layer.gate.channels_in
        inputs = {ir: [self.new_rows(ir.dim) for _ in range(n // self.channels)] for ir, n in needed.items()}
        normalization = float(self.model.avg_num_neighbors.rsqrt())
        for ir, weight in _weights(layer.linear_2).items():
            self._map(self.after, received[ir], inputs[ir], ir.dim, normalization * weight)
        if first:  # features, and linear maps of them, depend on the species alone
            species = self.one_hot[self.order]
            features = self.model.embedding({SCALAR: species[:, None]})
            self.constants[hidden[SCALAR]] = layer.linear_1(features)[SCALAR][:, 0]
            own = layer.self_connection(features, species)[SCALAR][:, 0].split(self.channels, dim=-1)
            self.constants |= dict(zip(inputs[SCALAR], own, strict=True))
        else:
            for ir, weight in _weights(layer.linear_1).items():
                self._map(self.before, [self.features[ir]], [hidden[ir]], ir.dim, weight)
            self._self_connection(layer.self_connection, inputs)
        self._gate(layer.gate, inputs)
        for part in (self.paths, self.before, self.after, self.gates):
            part.end_layer()

    def _convolution(self, convolution: Convolution, hidden: dict[Irrep, int]) -> dict[Irrep, list[int]]:
        """Record a convolution and return the rows that receive each irrep."""
        harmonic_rows = {ir: ir.l**2 for ir in convolution.harmonics}
        received: dict[Irrep, list[int]] = {ir: [] for ir in convolution.irreps_out}
        for path in convolution.paths:
            row, triple = self.new_rows(path.ir_out.dim), (path.ir_in.l, path.ir_harmonic.l, path.ir_out.l)
            received[path.ir_out].append(row)
            sender = [hidden[path.ir_in], path.ir_in.dim]
            kind = self.kinds.index(triple)
            self.paths.rows.append([kind, *sender, row, path.ir_out.dim, harmonic_rows[path.ir_harmonic]])
        coefficients = tabulate(self.model, convolution)
        self.splines.append(self._pad(coefficients.unflatten(-1, (-1, self.channels))).flatten())
        self.errors.append(_interpolation_error(self.model, convolution, coefficients))
        return received

    def _map(
        self,
        blocks: _PerLayer,
        rows_in: list[int],
        rows_out: list[int],
        dim: int,
        weight: Float[Tensor, "input output"],
        atoms: tuple[int, int] | None = None,
    ) -> None:
        """Record a linear map, cut into square matrices, for some or all of the atoms."""
        cut = weight.unflatten(0, (len(rows_in), -1)).unflatten(-1, (len(rows_out), -1))
        for row_in, of_input in zip(rows_in, cut, strict=True):
            for place, row_out in enumerate(rows_out):
                blocks.rows.append([len(self.matrices), row_in, row_out, dim, *(atoms or (0, len(self.order)))])
                self.matrices.append(of_input[:, place])

    def _self_connection(self, connection: SelfConnection, inputs: dict[Irrep, list[int]]) -> None:
        for ir, weight in _weights(connection.linear).items():
            for own, atoms in zip(weight.unflatten(0, (self.channels, -1)).unbind(1), self.atoms_of, strict=True):
                if atoms[0] < atoms[1]:
                    self._map(self.after, [self.features[ir]], inputs[ir], ir.dim, own, atoms)

    def _gate(self, gate: Gate, inputs: dict[Irrep, list[int]]) -> None:
        _, *scales = inputs[SCALAR]
        no_gate = -1
        gate_of = dict(zip(gate.gated, scales, strict=True))
        self.features = {ir: self.new_rows(ir.dim) for ir in (*gate.scalars, *gate.gated)}
        for ir, row in self.features.items():
            odd = int(ir.l == 0 and ir.p == -1)
            self.gates.rows.append([row, ir.dim, inputs[ir][0], gate_of.get(ir, no_gate), odd])

    def _pad(self, weights: Float[Tensor, "*axes channel"]) -> Float[Tensor, "*axes padded"]:
        """Pad the channels (the last axis) with zeros to whole vectors."""
        return torch.nn.functional.pad(weights, (0, self.padded - self.channels))

    def arguments(self, dtype: np.dtype) -> tuple:
        model, n_atoms = self.model, len(self.order)
        template = torch.zeros(self.n_rows, n_atoms, self.padded, dtype=torch.float64)
        for row, values in self.constants.items():
            template[row] = self._pad(values)
        weight = _weights(model.readout_1)[SCALAR] @ _weights(model.readout_2)[SCALAR]
        readout = self._pad((self.one_hot[self.order] @ model.energy_scale)[:, None] * weight[:, 0])
        matrices = self._pad(self._pad(torch.stack(self.matrices)).mT).mT
        constants = [model.layers[0].gate.activations[parity].cst for parity in (1, -1)]
        terms, term_coefficients = harmonic_terms(len(model.irreps_harmonics) - 1)
        spline_starts = np.cumsum([0, *(len(spline) for spline in self.splines)])

        def numbers(values: Tensor) -> np.ndarray:
            return np.ascontiguousarray(values.detach().numpy(), dtype).reshape(-1)

        def maps(blocks: _PerLayer) -> tuple:
            forward = blocks.array(6)
            return forward, np.ascontiguousarray(forward[:, [0, 2, 1, 3, 4, 5]]), np.array(blocks.starts)

        atoms = self.order.numpy(), torch.argsort(self.order).numpy(), dtype.type(model.cutoff)
        degrees = (0,) * len(model.irreps_harmonics)  # only its length matters
        harmonics = terms, term_coefficients.astype(dtype)
        network = (
            (self.paths.array(6), np.array(self.paths.starts), numbers(torch.cat(self.splines)), spline_starts),
            maps(self.before),
            maps(self.after),
            (self.gates.array(5), np.array(self.gates.starts), numbers(torch.tensor(constants))),
            (numbers(matrices), numbers(matrices.mT)),
            self.padded,
        )
        return atoms, degrees, harmonics, *network, (numbers(template), numbers(readout))


def _weights(linear: Linear) -> dict[Irrep, Tensor]:
    """Normalized weights of each irrep, "input output"."""
    named = {ir: linear.weights[name] for ir, name in linear.irreps.items()}
    return {ir: cast("Tensor", weight / math.sqrt(len(weight))).detach() for ir, weight in named.items()}


def tabulate(model, convolution: Convolution) -> Float[Tensor, "interval order weight"]:
    """Coefficients of the quintic Hermite spline of each weight, in powers of t, from 0 to 1 between two knots.

    Values and two derivatives are exact at the knots, so forces are smooth there. In powers of t, the derivative is not
    a difference of nearly equal numbers, as it would be in terms of the values at knots.
    """
    distances = torch.linspace(0.0, model.cutoff, KNOTS + 1, dtype=torch.float64)
    spacing = model.cutoff / KNOTS

    def weights(d: Tensor) -> Tensor:
        return convolution.radial_network(model.radial_basis(d))

    def slopes(d: Tensor) -> Tensor:
        return torch.func.jvp(weights, (d,), (torch.ones_like(d),))[1]

    slope, curvature = torch.func.jvp(slopes, (distances,), (torch.ones_like(distances),))[:2]
    v, s, c = weights(distances), spacing * slope, spacing**2 * curvature
    rise, (s0, s1), (c0, c1) = v.diff(dim=0), (s[:-1], s[1:]), (c[:-1], c[1:])
    third = 10 * rise - 6 * s0 - 4 * s1 - 1.5 * c0 + 0.5 * c1
    fourth = -15 * rise + 8 * s0 + 7 * s1 + 1.5 * c0 - c1
    fifth = 6 * rise - 3 * s0 - 3 * s1 - 0.5 * c0 + 0.5 * c1
    return torch.stack([v[:-1], s0, 0.5 * c0, third, fourth, fifth], dim=1).detach()


def _interpolation_error(
    model, convolution: Convolution, coefficients: Float[Tensor, "interval order weight"]
) -> float:
    """Largest error of the splines between their knots, relative to the largest weight of the convolution.

    The first interval is left out, because sin(x)/x cannot be evaluated at zero and atoms never come that close.
    """
    halfway = (torch.arange(KNOTS, dtype=torch.float64) + 0.5) * (model.cutoff / KNOTS)
    expected = convolution.radial_network(model.radial_basis(halfway)).detach()
    found = torch.einsum("o,iow->iw", 0.5 ** torch.arange(6, dtype=torch.float64), coefficients)
    return float((found - expected)[1:].abs().max() / expected.abs().max())


def harmonic_terms(l_max: int) -> tuple[Int[np.ndarray, "term 3"], Float[np.ndarray, "term"]]:
    """Spherical harmonics from degree two on, as sums of products of harmonics of the degree below and of degree one.

    Returns:
        Indices of the sum and of both factors among the harmonics of all degrees, and the coefficients.
    """
    probe = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    exact = [
        spherical_harmonics([degree], probe, normalize=True, normalization="component") for degree in range(l_max + 1)
    ]
    places, coefficients = [], []
    for degree in range(2, l_max + 1):
        symbols = wigner_3j(degree, degree - 1, 1, dtype=torch.float64)
        raw = torch.einsum("cab,a,b->c", symbols, exact[degree - 1], exact[1])
        symbols = symbols * (exact[degree] @ raw / (raw @ raw))  # the product is the harmonic up to a factor
        for c, a, b in torch.nonzero(symbols.abs() > 1e-12).tolist():
            places.append([degree**2 + c, (degree - 1) ** 2 + a, 1 + b])
            coefficients.append(float(symbols[c, a, b]))
    return np.array(places, np.int64).reshape(-1, 3), np.array(coefficients)
