"""Tabulated NequIP: energies and forces of a frozen model on the CPU, by splines and compiled loops.

Parameters are constant during dynamics, so the weights of each convolution are functions of one distance. They are
tabulated once as quintic Hermite splines. Forces are the exact derivative of the same splines, so energy is conserved.
Everything else is computed as in the plain path, with replicas in parallel, both directions of a pair at once, no
messages in memory, and a hand-written backward pass.

    tables.py     a model and a system as arrays
    loops.py      the loops over layers, pairs and atoms
    vectors.py    the vector instructions in them, written with `vector_instructions`

Needs numba (the extra `fast`). Without it, `NequIP.bind` uses the plain path.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from mdsim.compiled.fast_paths import PairArrays, check_interpolation, check_on_cpu
from mdsim.compiled.jit import arrays, use_torch_threads
from mdsim.force_field import FAST_TOLERANCE
from mdsim.models.nequip.fast.loops import energies_and_forces
from mdsim.models.nequip.fast.tables import tables
from mdsim.state import System
from mdsim.typing import Float, Tensor


class TabulatedNequIP:
    """The potential of a system under a NequIP with fixed parameters.

    Args:
        model: a `NequIP`. Its parameters are copied.
        system: the system of all replicas.
        tolerance: largest error of a weight, relative to the largest value of all weights of its convolution.
        skin: skin of the neighbor list, Å.

    Raises:
        NoFastPath: not on the CPU, in different precisions, or the tolerance is exceeded.
    """

    def __init__(self, model, system: System, tolerance: float = FAST_TOLERANCE, skin: float = 0.5) -> None:
        check_on_cpu(model, system)
        self._pairs = PairArrays(system, model.cutoff, skin)
        self.neighbor_list = self._pairs.neighbor_list
        precise = copy.deepcopy(model).eval().requires_grad_(False).double()
        self.tables, error = tables(precise, system)
        check_interpolation(error, tolerance)
        self.description = f"tabulated weights (relative error {error:.0e}) in compiled loops"

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to `zero_energy_eV`) and forces (eV/Å)."""
        return self._evaluate(positions, self._pairs(positions), positions.new_empty(0, 3, 3))

    def in_cells(
        self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
        """Energies (eV, relative to `zero_energy_eV`), forces (eV/Å) and virials (eV) in moving cells (Å)."""
        virials = torch.zeros_like(cells)
        energy, forces = self._evaluate(positions, self._pairs.in_cells(positions, cells), virials)
        return energy, forces, 0.5 * (virials + virials.mT)

    def _evaluate(
        self,
        positions: Float[Tensor, "replica atom 3"],
        pairs: tuple[np.ndarray, ...],
        virials: Float[Tensor, "_ 3 3"],
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        positions = positions.detach().contiguous()
        energy, forces = positions.new_empty(len(positions)), torch.empty_like(positions)
        use_torch_threads()
        energies_and_forces(*arrays(positions), *pairs, *self.tables, *arrays(energy, forces, virials))
        return energy, forces
