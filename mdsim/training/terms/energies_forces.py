"""Loss of energies and forces on labeled frames, by backpropagation."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mdsim import distributed
from mdsim.datasets.npz import Frames
from mdsim.estimator.loss_term import TermGradient
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.losses import EnergyForceLoss
from mdsim.memory import PiecesAtOnce
from mdsim.state import System
from mdsim.training.terms.draw import drawn
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class LabeledFrames:
    """Frames on the training device. Energies (eV) are relative to the zero of the force field; forces are in eV/Å."""

    positions: Float[Tensor, "frame atom 3"]
    energy: Float[Tensor, "frame"]
    forces: Float[Tensor, "frame atom 3"]

    @classmethod
    def of(cls, frames: Frames, system: System, zero_energy_eV: float) -> LabeledFrames:
        """The labels of a data set, on the device and in the precision of the system.

        Args:
            frames: the frames, with energies and forces.
            system: the system of the frames.
            zero_energy_eV: total energy at which the force field is zero, see `ForceField.zero_energy_eV`.
        """
        energy = (frames.energy - zero_energy_eV).to(system.masses)
        return cls(frames.positions.to(system.masses), energy, frames.labels.to(system.masses))

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, eq=False)
class EnergyForceTerm:
    """The loss of the energy/force fit, over all labeled frames or some of them.

    Args:
        system: the system of the frames.
        frames: the labeled frames.
        loss: loss of energies, forces and their references.
        batch_size: frames drawn per gradient. None: all frames.
        frames_at_once: frames per backward pass. It bounds the memory and does not change the result.
    """

    system: System
    frames: LabeledFrames
    loss: EnergyForceLoss
    batch_size: int | None = None
    frames_at_once: PiecesAtOnce = field(default_factory=lambda: PiecesAtOnce(40, "labeled frames of a minibatch"))
    name: str = "energies_forces"
    uses_samples: bool = False

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient:
        """Gradient over the drawn frames. Only the random numbers of the samples are used."""
        positions = self.frames.positions
        chosen = drawn(len(positions), self.batch_size, samples.generator, positions.device)
        return self.gradient_of(force_field, chosen)

    def gradient_of(self, force_field: ForceField, chosen: Int[Tensor, "chosen"]) -> TermGradient:
        """Gradient over the chosen frames, summed over the shares of all ranks."""
        parameters = force_field.trainable_parameters
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        total, frames = 0.0, self.frames
        for batch in chosen[distributed.share(len(chosen))].split(self._at_once(force_field)):
            energy, forces = force_field(self.system, frames.positions[batch], create_graph=True)
            loss = self.loss(energy, forces, frames.energy[batch], frames.forces[batch]) * (len(batch) / len(chosen))
            parts = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradients = [old if new is None else old + new for old, new in zip(gradients, parts, strict=True)]
            total += float(loss.detach())
        *gradients, loss = distributed.summed([*gradients, gradients[0].new_tensor([total])])
        return TermGradient(tuple(gradients), float(loss), n_evaluated=len(chosen))

    def _at_once(self, force_field: ForceField) -> int:
        first = self.frames.positions[:1]
        return self.frames_at_once(lambda: force_field(self.system, first, create_graph=True), first.device)
