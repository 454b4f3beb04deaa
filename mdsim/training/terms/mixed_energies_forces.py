"""Loss of energies, forces and stresses on labeled frames of several compositions and cells, by backpropagation."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mdsim import distributed
from mdsim.estimator.loss_term import TermGradient
from mdsim.estimator.samples import Samples
from mdsim.flat_batch import evaluate
from mdsim.force_field import ForceField
from mdsim.losses import Labeled, MixedLoss, has_stress
from mdsim.memory import PiecesAtOnce
from mdsim.training.mixed_labels import MixedLabels, as_labeled
from mdsim.training.terms.draw import drawn
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True, eq=False)
class MixedEnergyForceTerm:
    """The loss of a fit to a mixed set, over all labeled frames or some of them.

    Args:
        frames: the labeled frames, on the device and in the precision of the force field.
        energy: their energies relative to the zero of the force field, eV, see `MixedLabels.relative_energy`.
        loss: loss of energies, forces and stresses.
        batch_size: frames drawn per gradient. None: all frames.
        frames_at_once: frames per backward pass. It bounds the memory and does not change the result.
    """

    frames: MixedLabels
    energy: Float[Tensor, "frame"]
    loss: MixedLoss
    batch_size: int | None = None
    frames_at_once: PiecesAtOnce = field(default_factory=lambda: PiecesAtOnce(40, "labeled frames of a minibatch"))
    name: str = "energies_forces"
    uses_samples: bool = False

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient:
        """Gradient over the drawn frames. Only the random numbers of the samples are used."""
        return self.gradient_of(
            force_field, drawn(len(self.frames), self.batch_size, samples.generator, self.energy.device)
        )

    def gradient_of(self, force_field: ForceField, chosen: Int[Tensor, "chosen"]) -> TermGradient:
        """Gradient over the chosen frames, summed over the shares of all ranks."""
        parameters = force_field.trainable_parameters
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        total = 0.0
        for batch in chosen[distributed.share(len(chosen))].split(self._at_once(force_field)):
            predicted, labels, n_atoms = self._compared(force_field, batch.tolist())
            loss = self.loss(predicted, labels, n_atoms, self._shares(batch, chosen))
            parts = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradients = [old if new is None else old + new for old, new in zip(gradients, parts, strict=True)]
            total += float(loss.detach())
        *gradients, loss = distributed.summed([*gradients, gradients[0].new_tensor([total])])
        return TermGradient(tuple(gradients), float(loss), n_evaluated=len(chosen))

    def _compared(self, force_field: ForceField, batch: list[int]) -> tuple[Labeled, Labeled, Int[Tensor, "frame"]]:
        structures = self.frames.batch(batch, force_field.cutoff)
        found = evaluate(force_field, structures, create_graph=True, with_stress=self.loss.needs_stress)
        return as_labeled(found), self.frames.labels(batch, self.energy), structures.n_atoms

    def _shares(self, batch: Int[Tensor, "batch"], chosen: Int[Tensor, "chosen"]) -> tuple[float, float, float]:
        """The fraction of the structures, atoms and stress labels of the chosen frames that a batch has."""
        sizes, known = self.frames.n_atoms, has_stress(self.frames.stress)
        counts = [(len(some), int(sizes[some].sum()), int(known[some].sum())) for some in (batch, chosen)]
        structures, atoms, stresses = (part / max(1, whole) for part, whole in zip(*counts, strict=True))
        return structures, atoms, stresses

    def _at_once(self, force_field: ForceField) -> int:
        return self.frames_at_once(lambda: self._compared(force_field, [self.frames.largest]), self.energy.device)
