"""Labeled frames of several compositions and cells on the training device, and predictions for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.systems import systems_of
from mdsim.flat_batch import FlatBatch, FlatResults, evaluate
from mdsim.force_field import ForceField
from mdsim.losses import Labeled
from mdsim.memory import PiecesAtOnce, budget_bytes
from mdsim.neighbors import Neighbors, pairs_within
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor

SHARE = 0.1  # of the memory budget, for pairs that are kept


class KnownPairs:
    """Pairs of structures whose positions never change, up to a share of the memory."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, float], Neighbors] = {}
        self._room = SHARE * budget_bytes(torch.device("cpu"))

    def get(self, frame: int, cutoff: float) -> Neighbors | None:
        return self._pairs.get((frame, cutoff))

    def keep(self, frame: int, cutoff: float, pairs: Neighbors) -> None:
        """Keep the pairs of a structure if there is room."""
        tensors = (pairs.first, pairs.second, *(() if pairs.shift is None else (pairs.shift,)))
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self._room:
            self._room -= size
            self._pairs[frame, cutoff] = pairs


@dataclass(frozen=True)
class MixedLabels:
    """Structures with total energies (eV), forces (eV/Å) and stresses (eV/Å³, NaN where there are none)."""

    systems: tuple[System, ...]
    positions: tuple[Float[Tensor, "_ 3"], ...]
    total_energy: Float[Tensor, "frame"]  # float64
    forces: tuple[Float[Tensor, "_ 3"], ...]
    stress: Float[Tensor, "frame 3 3"]
    known_pairs: KnownPairs = field(default_factory=lambda: KnownPairs())

    @classmethod
    def of(cls, frames: MixedFrames, like: Tensor, find_bonds: bool = False) -> MixedLabels:
        """The frames of a data set.

        Args:
            frames: the frames, with energies and forces.
            like: a tensor on the device and in the precision of the model.
            find_bonds: with the bonds of the systems, which a repulsion of nuclei needs.
        """
        sizes = frames.n_atoms.tolist()
        known = systems_of(frames, like.dtype, find_bonds)
        moved = {id(system): system.to(like.device) for system in known}
        stress = torch.full((len(frames), 3, 3), torch.nan) if frames.stress is None else frames.stress
        return cls(
            tuple(moved[id(system)] for system in known),
            frames.positions.to(like).split(sizes),
            frames.energy.double().to(like.device),
            frames.labels.to(like).split(sizes),
            stress.to(like),
        )

    def __len__(self) -> int:
        return len(self.systems)

    @property
    def n_atoms(self) -> Int[Tensor, "frame"]:
        return torch.tensor([system.n_atoms for system in self.systems], device=self.stress.device)

    def zero_energies_eV(self, model: ForceField) -> Float[Tensor, "frame"]:
        """Total energy at which the model energy of each frame is zero, float64."""
        zeros: dict[int, Tensor] = {}
        for system in self.systems:
            if id(system) not in zeros:
                zeros[id(system)] = model.zero_energy_eV(system)
        return torch.stack([zeros[id(system)] for system in self.systems])

    def batch(self, chosen: Sequence[int], cutoff: float) -> FlatBatch:
        """Some of the structures, with their pairs within the cutoff (Å)."""
        systems, positions = [self.systems[i] for i in chosen], [self.positions[i] for i in chosen]
        return FlatBatch.of(systems, positions, cutoff, [self._pairs(i, cutoff) for i in chosen])

    def _pairs(self, frame: int, cutoff: float) -> Neighbors:
        """The pairs of one structure. They are kept on the CPU while there is memory, because they never change."""
        known = self.known_pairs.get(frame, cutoff)
        if known is None:
            cell, positions = self.systems[frame].cell, self.positions[frame].cpu()
            known = pairs_within(cell, positions[None], cutoff)
            self.known_pairs.keep(frame, cutoff, known)
        return known

    def labels(self, chosen: Sequence[int], relative_energy: Float[Tensor, "frame"]) -> Labeled:
        """Labels of some structures, given the energies of all of them relative to the zero of the model."""
        index = torch.tensor(chosen, device=self.stress.device)
        return Labeled(relative_energy[index], torch.cat([self.forces[i] for i in chosen]), self.stress[index])

    def relative_energy(self, model: ForceField) -> Float[Tensor, "frame"]:
        """Energies relative to the zero of the model, in its precision."""
        return (self.total_energy - self.zero_energies_eV(model)).to(self.stress)

    @property
    def largest(self) -> int:
        """The structure with the most atoms."""
        return int(self.n_atoms.argmax())


def as_labeled(found: FlatResults) -> Labeled:
    return Labeled(found.energy, found.forces, found.stress)


def predictions(model: ForceField, frames: MixedLabels, batch_size: int, with_stress: bool) -> Labeled:
    """Energies (relative to the zero of the model), forces and stresses of all frames, a few at a time."""
    frozen = model.frozen_copy()

    def of_frames(chosen: Sequence[int]) -> Labeled:
        return as_labeled(evaluate(frozen, frames.batch(chosen, frozen.cutoff), with_stress=with_stress))

    at_once = PiecesAtOnce(batch_size, "frames of a prediction")(
        lambda: of_frames([frames.largest]), frames.stress.device
    )
    parts = [of_frames(batch.tolist()) for batch in torch.arange(len(frames)).split(at_once)]
    stress = torch.cat([part.stress for part in parts if part.stress is not None]) if with_stress else None
    return Labeled(torch.cat([part.energy for part in parts]), torch.cat([part.forces for part in parts]), stress)
