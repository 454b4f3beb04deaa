"""The repulsion of a system as a potential for dynamics, with its own short list of pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mdsim.compiled import HAS_NUMBA
from mdsim.neighbors import MovingCellList, NeighborList, Neighbors
from mdsim.repulsion.pairs import selected
from mdsim.repulsion.zbl import SCREENING_TERMS, ZBL, constants
from mdsim.state import System
from mdsim.typing import Float, Tensor

SKIN_A = 1.0  # the pairs are few, so that a wide skin costs less than frequent searches


class RepulsionPotential:
    """Energies and forces of a repulsion, by a compiled loop on the CPU (if numba is installed).

    Args:
        zbl: the repulsion.
        system: the system of all replicas.
        skin: skin of the list of pairs, Å.
    """

    def __init__(self, zbl: ZBL, system: System, skin: float = SKIN_A) -> None:
        self.zbl, self.system = zbl, system
        self._listed: Neighbors | None = None  # the pairs from which those that repel each other were selected
        self._repelling: Neighbors
        self.neighbor_list = NeighborList(system, zbl.reach_A, skin)
        self.moving_list = MovingCellList(system, zbl.reach_A, skin)
        self._loop = _Loop(zbl, system) if HAS_NUMBA and system.masses.device.type == "cpu" else None

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV) and forces (eV/Å)."""
        return self.neighbor_list.evaluate(
            positions, lambda pairs: self._evaluate(positions, self._selected(pairs))[:2]
        )

    def in_cells(
        self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
        """Energies (eV), forces (eV/Å) and virials (eV) in moving cells (Å)."""
        return self.moving_list.evaluate_in_cells(
            positions,
            cells,
            lambda pairs: self._evaluate(positions, self._selected(pairs).in_cells(cells, self.system.n_atoms)),
        )

    def _selected(self, pairs: Neighbors) -> Neighbors:
        """The pairs that repel each other, selected again where the list is new."""
        if pairs is not self._listed:
            n_atoms = self.system.n_atoms
            repel = selected(self.zbl.selection, self.system, pairs.first % n_atoms, pairs.second % n_atoms)
            kept = torch.nonzero(repel)[:, 0]
            self._repelling, self._listed = pairs.chosen(kept), pairs
        return self._repelling

    def _evaluate(self, positions: Tensor, pairs: Neighbors) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, forces and virials."""
        if self._loop is not None:
            return self._loop(positions, pairs)
        with torch.enable_grad():
            positions, shift = positions.detach().requires_grad_(), pairs.shift
            variables = [positions] if shift is None else [positions, shift.detach().requires_grad_()]
            pairs = replace(pairs, shift=None if shift is None else variables[1])
            energy = self.zbl.atomic_energies(self.system, positions, pairs).sum(-1)
            gradients = torch.autograd.grad(energy.sum(), variables)
        virials = pairs.virials(positions, gradients[0], None if shift is None else gradients[1])
        return energy.detach(), -gradients[0], virials.detach()


class _Loop:
    """The compiled loop with its constants."""

    def __init__(self, zbl: ZBL, system: System) -> None:
        elements, kinds = torch.unique(system.atomic_numbers, return_inverse=True)
        table = constants(zbl, torch.device("cpu"), torch.float64)[elements[:, None], elements]
        self.arguments = (kinds.numpy(), table.numpy(), np.array(SCREENING_TERMS))

    def __call__(self, positions: Tensor, pairs: Neighbors) -> tuple[Tensor, Tensor, Tensor]:
        from mdsim.compiled.jit import arrays
        from mdsim.compiled.repulsion import energies_and_forces

        shift = positions.new_empty(0, 3) if pairs.shift is None else pairs.shift
        energy, forces = positions.new_zeros(len(positions)), torch.zeros_like(positions)
        virials = positions.new_zeros(len(positions), 3, 3)
        given = arrays(positions, pairs.first, pairs.second, shift, *self.arguments)
        energies_and_forces(*given, *arrays(energy, forces, virials))
        return energy, forces, virials
