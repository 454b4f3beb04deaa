"""Structures of any sizes and cells in one call of a force field.

The structures become one replica of a large system whose parts do not interact: atoms and pairs follow one another, and
pairs are searched for in each structure with its own cell. Every force field whose energies are functions of atomic
numbers, positions and `neighbors` evaluates them unchanged. Sums of its atomic energies are the energies, one backward
pass gives all forces, and the stress of each structure follows from the gradients of its own atoms and pairs (see
`mdsim.stress`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mdsim.force_field import ForceField
from mdsim.geometry import outer, volume
from mdsim.neighbors import Neighbors, pairs_within
from mdsim.state import System
from mdsim.stress import shifts_of
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class FlatBatch:
    """Structures, atom after atom. Their joint system has no cell: the cells of the structures are in the pairs."""

    system: System
    positions: Float[Tensor, "1 atom 3"]
    pairs: Neighbors
    owners: Int[Tensor, "atom"]  # structure of each atom
    cells: Float[Tensor, "structure 3 3"]  # zeros with open boundaries

    @classmethod
    def of(
        cls,
        systems: Sequence[System],
        positions: Sequence[Float[Tensor, "_ 3"]],
        cutoff: float,
        pairs: Sequence[Neighbors] | None = None,
    ) -> FlatBatch:
        """A batch of one structure or more.

        Args:
            systems: the system of each structure, all on one device and in one precision.
            positions: its positions, Å.
            cutoff: of the force field, Å.
            pairs: those of each structure within the cutoff, on any device. None: they are searched for.
        """
        device = positions[0].device
        if pairs is None:
            pairs = [pairs_within(system.cell, at[None], cutoff) for system, at in zip(systems, positions, strict=True)]
        sizes = torch.tensor([system.n_atoms for system in systems])
        return cls(
            joined(systems),
            torch.cat(list(positions))[None],
            joined_pairs(pairs, [system.n_atoms for system in systems], positions[0]),
            torch.repeat_interleave(sizes).to(device),
            torch.stack([_cell_or_zeros(system) for system in systems]),
        )

    @property
    def n_structures(self) -> int:
        return len(self.cells)

    @property
    def n_atoms(self) -> Int[Tensor, "structure"]:
        """Atoms of each structure."""
        return torch.bincount(self.owners, minlength=self.n_structures)

    def sums(self, of_atoms: Float[Tensor, "atom *axes"]) -> Float[Tensor, "structure *axes"]:
        """Sum over the atoms of each structure."""
        return of_atoms.new_zeros(self.n_structures, *of_atoms.shape[1:]).index_add(0, self.owners, of_atoms)


@dataclass(frozen=True)
class FlatResults:
    """Energies (eV, from the zero of the force field), forces (eV/Å) and stresses (eV/Å³; NaN without a cell)."""

    energy: Float[Tensor, "structure"]
    atomic: Float[Tensor, "atom"]  # energy of each atom
    forces: Float[Tensor, "atom 3"]
    stress: Float[Tensor, "structure 3 3"] | None


def evaluate(
    force_field: ForceField, batch: FlatBatch, create_graph: bool = False, with_stress: bool = False
) -> FlatResults:
    """Energies, forces and, on request, stresses of all structures.

    Args:
        force_field: any model that sees atoms and pairs only, and does not read `System.cell`.
        batch: the structures, with the pairs within the cutoff of the force field.
        create_graph: keep all results differentiable with respect to parameters.
        with_stress: compute stresses, which costs little.
    """
    with torch.enable_grad():
        positions = batch.positions.detach().requires_grad_()
        shifts = shifts_of(batch.pairs, positions) if with_stress else None
        pairs = batch.pairs if shifts is None else replace(batch.pairs, shift=shifts)
        atomic = force_field.atomic_energies(batch.system, positions, pairs).to(positions)
        variables = (positions,) if shifts is None else (positions, shifts)
        gradients = torch.autograd.grad(atomic.sum(), variables, create_graph=create_graph, allow_unused=True)
    with torch.set_grad_enabled(create_graph):
        stress = None if shifts is None else _stress(batch, positions, shifts, gradients)
        energy = batch.sums(atomic[0])
    kept = (energy, atomic[0]) if create_graph else (energy.detach(), atomic[0].detach())
    return FlatResults(*kept, -gradients[0][0], stress)


def _stress(
    batch: FlatBatch,
    positions: Float[Tensor, "1 atom 3"],
    shifts: Float[Tensor, "pair 3"],
    gradients: Sequence[Tensor],
) -> Float[Tensor, "structure 3 3"]:
    """Symmetric part of Σ x ⊗ ∂E/∂x over the positions and shifts of each structure, per volume."""
    of_positions, of_shifts = gradients
    virial = batch.sums(outer(positions[0], of_positions[0]))
    if of_shifts is not None:
        virial = virial.index_add(0, batch.owners[batch.pairs.first], outer(shifts, of_shifts))
    volumes = volume(batch.cells)[:, None, None]
    # NaN is set last: a division by it would make gradients with respect to parameters NaN as well.
    stress = 0.5 * (virial + virial.mT) / torch.where(volumes > 0, volumes, 1.0)
    return torch.where(volumes > 0, stress, torch.nan)


def joined(systems: Sequence[System]) -> System:
    """One system of all atoms, without a cell. Bonds and molecules are those of the parts."""
    if len(systems) == 1:
        return replace(systems[0], cell=None)
    first_atoms = _starts([system.n_atoms for system in systems])
    first_molecules = _starts([system.n_molecules for system in systems])
    return System(
        torch.cat([system.atomic_numbers for system in systems]),
        torch.cat([system.masses for system in systems]),
        None,
        torch.cat([system.bonds + start for system, start in zip(systems, first_atoms, strict=True)]),
        torch.cat([system.molecules + start for system, start in zip(systems, first_molecules, strict=True)]),
    )


def _starts(sizes: Sequence[int]) -> list[int]:
    starts, total = [], 0
    for size in sizes:
        starts.append(total)
        total += size
    return starts


def joined_pairs(parts: Sequence[Neighbors], sizes: Sequence[int], like: Tensor) -> Neighbors:
    """The pairs of all structures, sorted by their first atom, on the device and in the precision of a tensor."""
    starts, shift = _starts(sizes), None
    if any(part.shift is not None for part in parts):
        none = (torch.zeros(part.n_pairs, 3, dtype=like.dtype, device=part.first.device) for part in parts)
        shifts = [zero if part.shift is None else part.shift for zero, part in zip(none, parts, strict=True)]
        shift = torch.cat(shifts).to(like)
    return Neighbors(
        torch.cat([part.first + start for part, start in zip(parts, starts, strict=True)]).to(like.device),
        torch.cat([part.second + start for part, start in zip(parts, starts, strict=True)]).to(like.device),
        shift,
    )


def _cell_or_zeros(system: System) -> Float[Tensor, "3 3"]:
    return system.masses.new_zeros(3, 3) if system.cell is None else system.cell
