"""Tabulated SchNet: energies and forces of a frozen model on the CPU, by splines and one compiled loop.

Parameters are constant during dynamics, so each filter W^l(d), times the cutoff, is a function of one distance. It is
tabulated once as a cubic Hermite spline. Forces are the exact derivative of the same spline, so energy is conserved.
The rest of the network and its hand-written backward pass run atom by atom, without pair features in memory and with
replicas in parallel. Interpolation errors are below the rounding errors of float32 (`KNOTS`).

Needs numba (the extra `fast`). Without it, `SchNet.bind` uses the plain path.
"""

from __future__ import annotations

import numpy as np
import torch

from mdsim.compiled.fast_paths import PairArrays, check_interpolation, check_on_cpu
from mdsim.compiled.jit import arrays, use_torch_threads
from mdsim.force_field import FAST_TOLERANCE, NoFastPath
from mdsim.models.schnet.fast.loops import energies_and_forces
from mdsim.state import System
from mdsim.typing import Float, Tensor

KNOTS = 512  # on [0, cutoff]; for basis functions 0.2 Å wide the error of a filter is about 1e-7 of its size
DIFFERENCE_A = 1e-5  # of distances, for slopes


class TabulatedSchNet:
    """The potential of a system under a SchNet with fixed parameters.

    Args:
        model: a `SchNet`. Its parameters are copied.
        system: the system of all replicas.
        tolerance: largest error of a filter, relative to the largest value of all filters of its layer.
        skin: skin of the neighbor list, Å.

    Raises:
        NoFastPath: not on the CPU, not in float32, or the tolerance is exceeded.
    """

    @torch.no_grad()
    def __init__(self, model, system: System, tolerance: float = FAST_TOLERANCE, skin: float = 0.5) -> None:
        check_on_cpu(model, system)
        if system.masses.dtype != torch.float32:
            raise NoFastPath(f"the compiled loops compute in float32, not in {system.masses.dtype}")
        table = _tabulate(model)
        error = _interpolation_error(model, table)
        check_interpolation(error, tolerance)
        self.description = f"tabulated filters (relative error {error:.0e}) in compiled loops"
        self._candidates = PairArrays(system, model.cutoff, skin)
        self.neighbor_list = self._candidates.neighbor_list
        embedded = model.embedding(system.atomic_numbers.cpu())
        blocks = model.interactions
        layers = zip(*((block.conv.lin1, block.conv.lin2, block.lin) for block in blocks), strict=True)
        weights = [np.stack([_array(layer.weight.T) for layer in kind]) for kind in layers]
        self.arguments = (
            _array(table),
            np.float32(model.cutoff),
            _array(embedded),
            (*weights, *(np.ascontiguousarray(w.transpose(0, 2, 1)) for w in weights)),
            (
                np.stack([_array(block.conv.lin2.bias) for block in blocks]),
                np.stack([_array(block.lin.bias) for block in blocks]),
            ),
            (
                _array(model.lin1.weight.T),
                _array(model.lin1.weight),
                _array(model.lin1.bias),
                _array(model.lin2.weight[0]),
                np.float32(model.lin2.bias.item()),
            ),
            np.float32(model.energy_scale.item()),
        )

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to the shift) and forces (eV/Å)."""
        return self._evaluate(positions, self._candidates(positions), positions.new_empty(0, 3, 3))

    def in_cells(
        self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
        """Energies (eV, relative to the shift), forces (eV/Å) and virials (eV) in moving cells (Å)."""
        virials = torch.zeros_like(cells)
        return *self._evaluate(positions, self._candidates.in_cells(positions, cells), virials), virials

    def _evaluate(
        self,
        positions: Float[Tensor, "replica atom 3"],
        candidates: tuple[np.ndarray, ...],
        virials: Float[Tensor, "_ 3 3"],
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        positions = positions.detach().contiguous()
        energy, forces = positions.new_empty(len(positions)), torch.empty_like(positions)
        use_torch_threads()
        energies_and_forces(*arrays(positions), *candidates, *self.arguments, *arrays(energy, forces, virials))
        return energy, forces


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)


def _tabulate(model) -> Float[Tensor, "layer knot 2 filter"]:
    """Values and slopes (times the knot spacing) of every filter times the cosine cutoff, computed in float64.

    Slopes are central differences with an error of 1e-9. `torch.func.jvp` would take ten times as long.
    """
    distances = torch.linspace(0.0, model.cutoff, KNOTS + 1, dtype=torch.float64)
    around = torch.cat([distances, distances - DIFFERENCE_A, distances + DIFFERENCE_A])
    values, behind, ahead = torch.stack(list(model.filter_networks(around))).unflatten(1, (3, -1)).unbind(1)
    slopes = (ahead - behind) / (2 * DIFFERENCE_A)
    return torch.stack([values, slopes * (model.cutoff / KNOTS)], dim=2)


def _interpolation_error(model, table: Float[Tensor, "layer knot 2 filter"]) -> float:
    """Largest error of the spline between its knots, relative to the largest filter of the same layer."""
    halfway = (torch.arange(KNOTS, dtype=torch.float64) + 0.5) * (model.cutoff / KNOTS)
    expected = torch.stack(list(model.filter_networks(halfway)))
    values, slopes = table.unbind(2)
    found = (values[:, :-1] + values[:, 1:]) / 2 + (slopes[:, :-1] - slopes[:, 1:]) / 8
    return float(((found - expected).abs().amax((1, 2)) / expected.abs().amax((1, 2))).max())
