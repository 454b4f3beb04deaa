"""NequIP's convolutions by cuEquivariance's fused GPU kernels. Needs `cuequivariance-torch`.

A convolution is one "segmented polynomial". Each nonzero coupling coefficient c adds to a row of the result c times the
weights of a path, times a harmonic, times a row of the sender, for all channels. The same kernel gathers the senders
and sums the results over each atom's edges. Coefficients, normalization and the order of features are those of the
plain path. The method "naive" computes the same polynomial in plain PyTorch, on any device.
"""

from __future__ import annotations

import copy
import warnings
from functools import partial
from importlib import import_module
from typing import cast

import cuequivariance as cue
import numpy as np
import torch
from cuequivariance_torch import SegmentedPolynomial
from torch import nn

from mdsim.force_field import NoFastPath
from mdsim.models.nequip.layers import Convolution, EdgeFeatures, Features
from mdsim.neighbors import NeighborList
from mdsim.state import System
from mdsim.typing import Float, Tensor

GPU_METHOD = "uniform_1d"  # every segment is one row of channels


class SegmentedConvolution(nn.Module):
    """A `Convolution` as one segmented polynomial.

    Args:
        convolution: provides the radial network and the coefficients.
        method: cuEquivariance method. "naive" needs no GPU.

    Raises:
        NoFastPath: cuEquivariance has no such method here. It would use a slower one.
    """

    def __init__(self, convolution: Convolution, method: str = GPU_METHOD) -> None:
        super().__init__()
        self.convolution = convolution
        self.rows = [path.ir_out.dim for path in convolution.paths]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the method that is taken instead, which is an error here
            self.polynomial = SegmentedPolynomial(polynomial(convolution), method=method)
        if self.polynomial.method != method:
            raise NoFastPath(f"cuEquivariance takes its method {self.polynomial.method!r} in place of {method!r}")

    def forward(self, features: Features, edges: EdgeFeatures) -> Features:
        """The sum over each atom's neighbors, as `Convolution` gives it."""
        weights = self.convolution.radial_network(edges.radial)
        sent = torch.cat([features[ir] for ir in self.convolution.irreps_in], dim=1)
        pairs = torch.arange(len(weights), device=weights.device).repeat(2)  # both directions share their weights
        (received,) = self.polynomial(
            [weights, sent.flatten(1), torch.cat([edges.harmonics[ir] for ir in self.convolution.harmonics], dim=1)],
            input_indices={0: pairs, 1: edges.senders},
            output_shapes={0: sent[:, 0]},
            output_indices={0: edges.receivers},
        )
        by_row = received.unflatten(1, (-1, self.convolution.channels))
        return self.convolution.collect(by_row.split(self.rows, dim=1))


def polynomial(convolution: Convolution) -> cue.SegmentedPolynomial:
    """The polynomial of weights, features and harmonics, in rows of channels as `SegmentedConvolution` passes them."""
    channels = convolution.channels
    product = cue.SegmentedTensorProduct.from_subscripts("u,u,,u")
    product.add_segments(0, len(convolution.paths) * [(channels,)])
    first_in, first_harmonic, n_in, n_harmonics = {}, {}, 0, 0
    for ir in convolution.irreps_in:
        first_in[ir], n_in = n_in, n_in + ir.dim
    for ir in convolution.harmonics:
        first_harmonic[ir], n_harmonics = n_harmonics, n_harmonics + ir.dim
    product.add_segments(1, n_in * [(channels,)])
    product.add_segments(2, n_harmonics * [()])
    product.add_segments(3, sum(path.ir_out.dim for path in convolution.paths) * [(channels,)])
    first_out = 0
    for number, (path, coefficients) in enumerate(zip(convolution.paths, convolution.exact, strict=True)):
        for y, row, column in torch.nonzero(coefficients.abs() > 1e-12).tolist():
            places = first_in[path.ir_in] + column, first_harmonic[path.ir_harmonic] + y, first_out + row
            product.add_path(number, *places, c=np.array(float(coefficients[y, row, column])))
        first_out += path.ir_out.dim
    return cue.SegmentedPolynomial.eval_last_operand(product)


class CuequivarianceNequIP:
    """The potential of a system under a NequIP with fixed parameters, on a GPU.

    Args:
        model: a `NequIP`; its parameters are copied.
        system: the system of all replicas.
        skin: skin of the neighbor list, Å.
        method: see `SegmentedConvolution`.

    Raises:
        NoFastPath: model and system are not on one GPU, or the kernels are not installed.
    """

    def __init__(self, model, system: System, skin: float = 0.5, method: str = GPU_METHOD) -> None:
        if method == GPU_METHOD:
            _check_kernels(model, system)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.system = system
        self.neighbor_list = NeighborList(system, model.cutoff, skin)
        self.description = f"cuEquivariance, method {method}"
        self.convolutions = [
            SegmentedConvolution(cast("Convolution", layer.convolution), method).to(system.masses.device)
            for layer in self.model.layers
        ]

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to `zero_energy_eV`) and forces (eV/Å)."""
        with torch.enable_grad():
            positions = positions.detach().requires_grad_()
            edges = self.model.edges(positions, self.neighbor_list(positions))
            convolutions = [partial(convolution, edges=edges) for convolution in self.convolutions]
            energy = self.model.network(self.system, len(positions), convolutions).sum(-1)
            (gradient,) = torch.autograd.grad(energy.sum(), positions)
        return energy.detach(), -gradient


def _check_kernels(model, system: System) -> None:
    device = next(model.parameters()).device
    if device.type != "cuda" or device != system.masses.device:
        raise NoFastPath(f"cuEquivariance's kernels need a GPU; the model is on {device}")
    try:
        import_module("cuequivariance_ops_torch")
    except (ImportError, OSError, RuntimeError) as error:  # also where it is there, but for another CUDA than torch's
        raise NoFastPath(
            f"cuEquivariance's kernels (cuequivariance-ops-torch-cu{(torch.version.cuda or '13').split('.')[0]}) "
            f"cannot be loaded: {error}"
        ) from error
