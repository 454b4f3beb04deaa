"""Several systems with atoms, cells and pairs of their own, evaluated in one call of a force field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mdsim.flat_batch import FlatBatch, FlatResults, evaluate, joined, joined_pairs
from mdsim.force_field import ForceField
from mdsim.neighbors import Neighbors, pairs_within
from mdsim.state import System
from mdsim.stress import atomic_energies_forces_stress
from mdsim.typing import Bool, Float, Tensor

Cells = Float[Tensor, "system 3 3"]


class Batch:
    """Systems that follow each other in a list of atoms.

    They are evaluated as one large system without pairs between its parts. A force field whose `message_steps` are
    unknown may depend on more than pairs: on the cell, or on the number of atoms. It is evaluated system by system.

    Args:
        force_field: the force field, with frozen parameters.
        systems: the systems, on its device and in its precision. All have cells, or none has.
        skin: skin of the lists of pairs, Å.
    """

    def __init__(self, force_field: ForceField, systems: Sequence[System], skin: float = 0.5) -> None:
        self.force_field, self.systems = force_field, systems
        self.sizes = [system.n_atoms for system in systems]
        device = systems[0].masses.device
        self.owners = torch.arange(len(systems)).repeat_interleave(torch.tensor(self.sizes)).to(device)
        self.pairs = PairsOfSystems(self.sizes, self.owners, force_field.cutoff, skin)
        self._joined = joined(systems)

    def __call__(self, positions: Float[Tensor, "atom 3"], cells: Cells | None) -> FlatResults:
        """Results at positions (Å) in cells (rows are lattice vectors, Å), which may have changed since the last."""
        pairs = self.pairs(positions, cells)
        if self.force_field.message_steps is None:
            return self._one_by_one(positions, cells)
        return self._together(positions, cells, pairs)

    def _together(self, positions: Float[Tensor, "atom 3"], cells: Cells | None, pairs: Neighbors) -> FlatResults:
        """One call for all systems."""
        of_systems = positions.new_zeros(len(self.systems), 3, 3) if cells is None else cells
        batch = FlatBatch(self._joined, positions[None], pairs, self.owners, of_systems)
        return evaluate(self.force_field, batch, with_stress=cells is not None)

    def _one_by_one(self, positions: Float[Tensor, "atom 3"], cells: Cells | None) -> FlatResults:
        results = []
        for number, x in enumerate(positions.split(self.sizes)):
            system, pairs = self.systems[number], self.pairs.of_each[number]
            if cells is not None:
                of_system = (replace(system, cell=cells[number]), x[None], pairs)
                results.append(atomic_energies_forces_stress(self.force_field, *of_system))
                continue
            with torch.enable_grad():
                x = x.detach()[None].requires_grad_()
                atomic = self.force_field.atomic_energies(system, x, pairs)
                (gradient,) = torch.autograd.grad(atomic.sum(), x)
            results.append((atomic.detach(), -gradient, x.new_zeros(1, 3, 3)))
        atoms, forces, stress = zip(*results, strict=True)
        energy = torch.cat([atomic.sum(1) for atomic in atoms])
        atomic = torch.cat(atoms, 1)[0]
        return FlatResults(energy, atomic, torch.cat(forces, 1)[0], None if cells is None else torch.cat(stress))


class PairsOfSystems:
    """The pairs of each of several systems, searched for again when one of its atoms has moved by half the skin, or
    when its cell has changed.

    Args:
        sizes: atoms of each system.
        owners: the system of each atom.
        cutoff, skin: Å.
    """

    def __init__(self, sizes: Sequence[int], owners: Tensor, cutoff: float, skin: float) -> None:
        self.sizes, self.owners, self.cutoff, self.skin = sizes, owners, cutoff, skin
        self.of_each: list[Neighbors] = []
        self.searched = 0  # systems in all searches
        self._joined: Neighbors
        self._built_at: Tensor
        self._built_cells: Tensor | None

    def __call__(self, positions: Float[Tensor, "atom 3"], cells: Cells | None) -> Neighbors:
        """Valid pairs of all systems; atoms are numbered through all of them."""
        stale = self._stale(positions, cells)
        if stale.any():
            self._search(positions, cells, torch.nonzero(stale)[:, 0].tolist())
            moved = stale[self.owners][:, None]
            self._built_at = torch.where(moved, positions, self._built_at)
            self._built_cells = None if cells is None else cells.clone()
        return self._joined

    def _stale(self, positions: Tensor, cells: Tensor | None) -> Bool[Tensor, "system"]:
        if not self.of_each:
            self._built_at = positions
            return torch.ones(len(self.sizes), dtype=torch.bool, device=positions.device)
        far = (positions - self._built_at).square().sum(-1) > (0.5 * self.skin) ** 2
        stale = torch.bincount(self.owners[far], minlength=len(self.sizes)) > 0
        if cells is None or self._built_cells is None:
            return stale
        return stale | cells.ne(self._built_cells).flatten(1).any(1)

    def _search(self, positions: Tensor, cells: Tensor | None, numbers: Sequence[int]) -> None:
        of_systems = positions.split(list(self.sizes))
        found = {
            number: pairs_within(
                None if cells is None else cells[number], of_systems[number][None], self.cutoff + self.skin
            )
            for number in numbers
        }
        self.of_each = [found[n] if n in found else self.of_each[n] for n in range(len(self.sizes))]
        self.searched += len(found)
        self._joined = joined_pairs(self.of_each, self.sizes, positions)
