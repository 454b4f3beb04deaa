"""Energies and forces of a frozen SchNet for molecular dynamics on the CPU: tabulated filters, one compiled loop.

While replicas move, the parameters do not. Each filter W^l(d), times the cutoff, is then a function of one distance: it
is tabulated once as a cubic Hermite spline, and forces are the exact derivative of the same spline, so that energy is
conserved. The rest of the network and its hand-written backward pass run atom by atom without materialized pair
features, replicas in parallel. Interpolation errors are below the rounding errors of float32 (`KNOTS`).

Needs numba (the extra `fast`); without it `SchNet.bind` uses the plain path.
"""

from __future__ import annotations

import numpy as np
import torch

from mdsim.geometry import all_pairs
from mdsim.models.compiled_loops import use_torch_threads
from mdsim.models.schnet_kernels import energies_and_forces
from mdsim.neighbors import ALL_PAIRS_UP_TO_ATOMS
from mdsim.state import System
from mdsim.typing import Float, Tensor

KNOTS = 512  # on [0, cutoff]; for basis functions 0.2 Å wide the error of a filter is about 1e-7 of its size
ALL_PERIODIC_PAIRS_UP_TO_ATOMS = 512  # looking at all distances takes a small part of the time up to there


class TabulatedSchNet:
    """The potential of a small system under a SchNet with fixed parameters, see `supports`.

    Args:
        model: its parameters are copied.
        system: open, or in an orthorhombic cell at least twice as wide as the cutoff.
    """

    @torch.no_grad()
    def __init__(self, model, system: System) -> None:
        embedded = model.embedding(system.atomic_numbers.cpu())
        blocks = model.interactions
        layers = zip(*((block.conv.lin1, block.conv.lin2, block.lin) for block in blocks), strict=True)
        weights = [np.stack([_array(layer.weight.T) for layer in kind]) for kind in layers]
        self.arguments = (
            *_box_and_pairs(system),
            _array(_tabulate(model)),
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
        coordinates = positions.detach().contiguous().numpy()
        energy = np.empty(len(coordinates), np.float32)
        forces = np.empty_like(coordinates)
        use_torch_threads()
        energies_and_forces(coordinates, *self.arguments, energy, forces)
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


def _box_and_pairs(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of the cell in Å, zeros for open boundaries; first and second atom of all pairs."""
    pairs = all_pairs(system.n_atoms).numpy().astype(np.int64)
    box = np.zeros(3) if system.cell is None else torch.diagonal(system.cell).cpu().numpy()
    return box.astype(np.float32), np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)


def _tabulate(model) -> Float[Tensor, "layer knot 2 filter"]:
    """Values and slopes (times the knot spacing) of every filter times the cosine cutoff, computed in float64."""
    distances = torch.linspace(0.0, model.cutoff, KNOTS + 1, dtype=torch.float64)
    values, slopes = torch.func.jvp(
        lambda d: torch.stack(list(model.filter_networks(d))), (distances,), (torch.ones_like(distances),)
    )[:2]
    return torch.stack([values, slopes * (model.cutoff / KNOTS)], dim=2)
