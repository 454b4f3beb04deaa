"""Energies and forces of a frozen NequIP for molecular dynamics on the CPU: tabulated weights, compiled loops.

While replicas move, the parameters do not. The weights of each convolution are then functions of one distance: they are
tabulated once as quintic Hermite splines, and forces are the exact derivative of the same splines, so that energy is
conserved. Everything else is computed as in the plain path, replica by replica in parallel, pairs both directions at
once, without materialized messages and with a hand-written way back.

    nequip_tables     a model and a system as arrays
    nequip_loops      the loops over layers, pairs and atoms
    nequip_vectors    the vector instructions in them, written with `vector_instructions`

Needs numba (the extra `fast`); without it `NequIP.bind` uses the plain path.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from mdsim.interfaces import FAST_TOLERANCE
from mdsim.models.compiled_loops import check_interpolation, check_on_cpu, use_torch_threads
from mdsim.models.nequip_loops import energies_and_forces
from mdsim.models.nequip_tables import interpolation_error, tables
from mdsim.neighbors import NeighborList, Neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor


class TabulatedNequIP:
    """The potential of a system under a NequIP with fixed parameters.

    Args:
        model: a `NequIP`; its parameters are copied.
        system: what the replicas are copies of.
        tolerance: largest error of a weight, relative to the largest value of all weights of its convolution.
        skin: of the neighbour list, Å.

    Raises:
        NoFastPath: not on the CPU, in different precisions, or the tolerance is exceeded.
    """

    def __init__(self, model, system: System, tolerance: float = FAST_TOLERANCE, skin: float = 0.5) -> None:
        check_on_cpu(model, system)
        self.neighbor_list = NeighborList(system, model.cutoff, skin)
        precise = copy.deepcopy(model).eval().requires_grad_(False).double()
        error = interpolation_error(precise)
        check_interpolation(error, tolerance)
        self.description = f"tabulated weights (relative error {error:.0e}) in compiled loops"
        self.tables = tables(precise, system)
        self._listed: Neighbors | None = None
        self._pairs: tuple[np.ndarray, ...] = ()

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to `zero_energy_eV`) and forces (eV/Å)."""
        positions = positions.detach().contiguous()
        neighbors = self.neighbor_list(positions)
        if neighbors is not self._listed:
            self._listed, self._pairs = neighbors, _as_arrays(neighbors, positions)
        energy, forces = positions.new_empty(len(positions)), torch.empty_like(positions)
        use_torch_threads()
        energies_and_forces(positions.numpy(), *self._pairs, *self.tables, energy.numpy(), forces.numpy())
        return energy, forces


def _as_arrays(neighbors: Neighbors, positions: Float[Tensor, "replica atom 3"]) -> tuple[np.ndarray, ...]:
    """First and second atoms, shifts (none for open boundaries), and where the pairs of each replica begin."""
    shifts = positions.new_empty(0, 3) if neighbors.shift is None else neighbors.shift
    starts = neighbors.boundaries(*positions.shape[:2])
    return tuple(tensor.numpy() for tensor in (neighbors.first, neighbors.second, shifts, starts))
