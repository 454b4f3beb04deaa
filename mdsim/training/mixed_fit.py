"""A fit to labeled frames of several compositions and cells."""

from __future__ import annotations

import torch

from mdsim.datasets.mixed import MixedFrames
from mdsim.errors import TrainingError
from mdsim.flat_batch import evaluate, joined
from mdsim.force_field import ForceField
from mdsim.losses import Labeled, MixedLoss, has_stress, mixed_errors
from mdsim.state import System
from mdsim.training.mixed_labels import MixedLabels, predictions
from mdsim.typing import Float, Int, Tensor

SCALE_FRAMES, SCALE_PAIRS = 64, 50_000  # at most, for scales, which are single numbers
SAME = 1e-3  # of the forces: largest difference between one call and several, in single precision
COMPARED = 3  # frames
BATCH_SIZE = 64  # frames at a time before the fit


class MixedFit:
    """Frames of several compositions and cells, evaluated as flat batches.

    Args:
        train, val: labeled frames.
        loss: loss of energies, forces and stresses.
        like: a tensor on the training device and in the training precision.
        keeps_atoms: the reference energies of isolated atoms that the model has recorded are those of the labels, and
            keep their differences. Otherwise all reference energies are fitted.
    """

    def __init__(
        self, train: MixedFrames, val: MixedFrames, loss: MixedLoss, like: Tensor, keeps_atoms: bool = False
    ) -> None:
        self.frames, self.val_frames = train, val
        self.loss = loss
        self.like = like
        self.keeps_atoms = keeps_atoms

    @property
    def n_train(self) -> int:
        return len(self.frames)

    def prepare(self, model: ForceField, pretrained: bool = False) -> ForceField:
        model = model.to(self.like.device, self.like.dtype)
        find_bonds = model.repulsion is not None
        self.train = MixedLabels.of(self.frames, self.like, find_bonds)
        self.val = MixedLabels.of(self.val_frames, self.like, find_bonds)
        if pretrained:
            self.recenter(model, BATCH_SIZE)
        else:
            energy, forces = self._without_repulsion(model)
            model.fit_energy_zero(*self._compositions(energy))
            self._fit_scales(model, float(forces.double().square().mean().sqrt()))
        self._check_several_at_once(model)
        self.energy, self.val_energy = self.train.relative_energy(model), self.val.relative_energy(model)
        return model

    def loss_of(self, model: ForceField, chosen: Int[Tensor, "sample"], amp: bool) -> Float[Tensor, ""]:
        indices = chosen.tolist()
        batch = self.train.batch(indices, model.cutoff)
        with torch.autocast(self.like.device.type, torch.bfloat16, enabled=amp):
            found = evaluate(model, batch, create_graph=True, with_stress=self.loss.needs_stress)
        stress = None if found.stress is None else found.stress.to(self.like)
        predicted = Labeled(found.energy.to(self.like), found.forces.to(self.like), stress)
        return self.loss(predicted, self.train.labels(indices, self.energy), batch.n_atoms)

    def validate(self, model: ForceField, batch_size: int) -> tuple[dict[str, float], float]:
        labels = self.val.labels(range(len(self.val)), self.val_energy)
        assert labels.stress is not None
        predicted = predictions(model, self.val, batch_size, bool(has_stress(labels.stress).any()))
        n_atoms = self.val.n_atoms
        return mixed_errors(predicted, labels, n_atoms), float(self.loss(predicted, labels, n_atoms))

    def recenter(self, model: ForceField, batch_size: int) -> float:
        """Refit the reference energies to what the model leaves of the labels. Returns the mean shift per frame, eV."""
        model = model.to(self.like.device)
        before = self.train.zero_energies_eV(model)
        rest = self.train.total_energy - predictions(model, self.train, batch_size, with_stress=False).energy.double()
        if self.keeps_atoms:
            model.fit_energy_zero(*self._compositions(rest))
        else:
            model.correct_energy_zero(*self._compositions(rest - before))
        return float((self.train.zero_energies_eV(model) - before).mean())

    def _compositions(self, energy: Float[Tensor, "frame"]) -> tuple[list[System], Float[Tensor, "composition"]]:
        """A system of each composition, and the mean energy of its frames."""
        members = self.frames.members()
        systems = [self.train.systems[frames[0]] for frames in members.values()]
        means = [energy[frames].double().mean() for frames in members.values()]
        doubled = [system.cell is not None and system.n_atoms == 1 for system in systems]  # no isolated atoms
        systems = [joined([one, one]) if double else one for one, double in zip(systems, doubled, strict=True)]
        return systems, torch.stack([2 * mean if double else mean for mean, double in zip(means, doubled, strict=True)])

    def _without_repulsion(self, model: ForceField) -> tuple[Float[Tensor, "frame"], Float[Tensor, "atom 3"]]:
        """The labels, without the part of the repulsion of nuclei, which is not learned."""
        energy, forces = self.train.total_energy, torch.cat(self.train.forces)
        if model.repulsion is None:
            return energy, forces
        only = RepulsionOnly(model)
        found = predictions(only, self.train, BATCH_SIZE, with_stress=False)
        return energy - found.energy.double(), forces - found.forces

    def _fit_scales(self, model: ForceField, force_rms: float) -> None:
        """Let the model set its scales on frames spread evenly over the training set."""
        evenly = torch.linspace(0, self.n_train - 1, min(SCALE_FRAMES, self.n_train)).long().tolist()
        some = self.train.batch(evenly, model.cutoff)
        count = max(1, min(len(evenly), SCALE_PAIRS * len(evenly) // max(1, some.pairs.n_pairs)))
        if count < len(evenly):
            some = self.train.batch(evenly[:: -(-len(evenly) // count)], model.cutoff)
        model.fit_scales(some.system, some.positions, some.pairs, force_rms)

    def _check_several_at_once(self, model: ForceField) -> None:
        """Compare some frames in one call with each of them alone.

        Raises:
            TrainingError: they differ, because the model reads the cell, or counts on equal frames.
        """
        frozen = model.frozen_copy()
        order = self.train.n_atoms.argsort(stable=True).tolist()
        periodic = [frame for frame in order if self.train.systems[frame].cell is not None]
        chosen = [*order[:COMPARED], *periodic[:COMPARED]]
        together = evaluate(frozen, self.train.batch(chosen, model.cutoff))
        alone = [frozen(self.train.systems[i], self.train.positions[i][None], create_graph=True) for i in chosen]
        expected = torch.cat([forces[0] for _, forces in alone]).detach()
        scale = max(float(expected.abs().max()), float(frozen.cutoff) * 1e-6)
        if not float((together.forces - expected).abs().max()) <= SAME * scale:
            raise TrainingError(
                "the force field gives other forces for several frames in one call than for each alone: it must use"
                " atomic numbers, positions and neighbors only, see `mdsim.flat_batch`; fit it to one composition"
            )


class RepulsionOnly(ForceField):
    """The repulsion of a force field without what it learns."""

    def __init__(self, model: ForceField) -> None:
        super().__init__(model.cutoff)
        self.repulsion = model.repulsion

    def atomic_energies(self, system, positions, neighbors):
        assert self.repulsion is not None
        return self.repulsion.atomic_energies(system, positions, neighbors)
