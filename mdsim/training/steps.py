"""Parameter steps along the joint gradient of all loss terms, several per rerun."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from mdsim.estimator.replay import Replay
from mdsim.estimator.samples import Samples
from mdsim.estimator.signal import signal_to_noise
from mdsim.force_field import ForceField
from mdsim.observables.densities import MUCH_UNVISITED, UNVISITED
from mdsim.training.average import ParameterAverage
from mdsim.training.joint_gradient import LossIncreases, WeightedTerm, joint_gradient
from mdsim.training.progress import Progress
from mdsim.training.schedule import Schedule
from mdsim.training.skips import skipped_in_a_row
from mdsim.typing import Tensor

log = logging.getLogger("mdsim")

REMEDY = (
    "lower learning.learning_rate, or look for labels and references that are not finite; earlier checkpoints of the "
    "run are unchanged"
)


@dataclass(frozen=True)
class StepSettings:
    """Settings of the steps of one rerun.

    Attributes:
        steps_per_rerun: largest number of steps. After the first, samples are reweighted by exp(-ΔU/kT).
        min_effective_fraction: effective fraction of samples below which the steps of a rerun end.
        clip_norm: largest norm of the joint gradient. None: no limit.
        signal_every: learning epochs between measurements of signal-to-noise ratios. None: never.
        randomize: control with steps of the same length in random directions.
        replay_reruns: earlier reruns whose samples are used again while their effective fraction is sufficient.
    """

    steps_per_rerun: int = 1
    min_effective_fraction: float = 0.5
    clip_norm: float | None = 1.0
    signal_every: int | None = None
    randomize: bool = False
    replay_reruns: int = 0


@dataclass
class ParameterSteps:
    """Steps along the joint gradient.

    Attributes:
        force_field: stepped in place.
        terms: the loss terms.
        schedule: optimizer and learning rate.
        settings: settings of the steps.
        average: the running average of the parameters.
        replay: earlier reruns whose samples are used again.
        increases: the losses so far, by which bounded terms fade.
        skipped: consecutive latest steps with a non-finite loss or gradient.
        warned: scalars that a warning has named.
    """

    force_field: ForceField
    terms: Sequence[WeightedTerm]
    schedule: Schedule
    settings: StepSettings
    average: ParameterAverage
    replay: Replay = field(default_factory=Replay)
    increases: LossIncreases = field(default_factory=LossIncreases)
    skipped: int = 0
    warned: set[str] = field(default_factory=set)

    def __call__(self, samples: Samples, progress: Progress) -> dict[str, float]:
        """Step while the effective sample size of the reweighting is sufficient.

        Args:
            samples: samples of the rerun.
            progress: is told how many structures are evaluated; measurements at intervals go by its epoch of the cycle.

        Returns:
            Scalars of the first step, and the number of steps.
        """
        samples, evaluated = self.replay(samples, self.force_field)
        progress.count(evaluated)
        logged = {"learn/samples": float(len(samples)), **self._signals(samples, progress.cycle_epoch)}
        logged |= self._step(samples, progress)
        self._warn_of_unvisited(logged)
        reweigh = len(samples) > 0 and any(weighted.term.uses_samples for weighted in self.terms)
        for taken in range(1, self.settings.steps_per_rerun):
            if reweigh:
                progress.count(len(samples.positions))
                samples = samples.reweighted(self.force_field)
                logged["learn/effective_fraction"] = samples.effective_fraction
                if samples.effective_fraction < self.settings.min_effective_fraction:
                    break
            self._step(samples, progress)
            logged["learn/steps"] = float(taken + 1)
        return logged

    def _signals(self, samples: Samples, cycle_epoch: int) -> dict[str, float]:
        every = self.settings.signal_every
        if every is None or cycle_epoch % every or len(samples.replica.unique()) < 2:
            return {}
        terms = [weighted.term for weighted in self.terms if weighted.term.uses_samples]
        found = {term.name: signal_to_noise(term, self.force_field, samples) for term in terms}
        return {f"learn/{name}_signal_to_noise": signal.ratio for name, signal in found.items() if signal is not None}

    def _step(self, samples: Samples, progress: Progress) -> dict[str, float]:
        """Take one step along the joint gradient, unless it or a loss is not finite."""
        joint = joint_gradient(self.terms, self.force_field, samples, self.increases)
        if joint is None:
            log.warning("%d usable samples give no gradient: no step", len(samples))
            return {"learn/steps": 0.0}
        progress.count(joint.n_evaluated)
        parameters = self.force_field.trainable_parameters
        for parameter, gradient in zip(parameters, joint.gradients, strict=True):
            parameter.grad = gradient
        limit = float("inf") if self.settings.clip_norm is None else self.settings.clip_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        rate = self.schedule.current_rate
        losses = {f"loss of {name}": loss for name, loss in joint.losses.items()}
        self.skipped = skipped_in_a_row(self.skipped, {**losses, "joint gradient": norm}, REMEDY)
        taken = not self.skipped
        if taken:
            self._move(samples.generator)
            self.average.update()
        self.schedule.optimizer.zero_grad(set_to_none=True)
        own = {"learn/steps": float(taken), "learn/gradient_norm": norm, "learn/learning_rate": rate}
        return {**joint.scalars, **own}

    def _warn_of_unvisited(self, logged: Mapping[str, float]) -> None:
        """Warn once of each observable that is compared with a reference that samples hardly reach."""
        for key, share in logged.items():
            if key.endswith(UNVISITED) and share > MUCH_UNVISITED and key not in self.warned:
                self.warned.add(key)
                log.warning(
                    "%s: no sample is where %.0f %% of the reference is. The estimator has no gradient toward it; "
                    "compare the reference with the observables of an evaluation",
                    key.removeprefix("learn/").removesuffix(UNVISITED),
                    100 * share,
                )

    def _move(self, generator: torch.Generator) -> None:
        if not self.settings.randomize:
            self.schedule.step()
            return
        before = [parameter.detach().clone() for parameter in self.force_field.trainable_parameters]
        self.schedule.step()
        randomize_step(before, self.force_field, generator)


def randomize_step(before: Sequence[Tensor], force_field: ForceField, generator: torch.Generator) -> None:
    """Replace the step taken since ``before`` by one in a random direction, of equal length in every tensor.

    This control separates the effect of a step from that of any perturbation of its size.
    """
    with torch.no_grad():
        for old, parameter in zip(before, force_field.trainable_parameters, strict=True):
            direction = torch.randn(old.shape, generator=generator, device=generator.device).to(old)
            length = (parameter - old).norm()
            parameter.copy_(old + direction * (length / direction.norm().clamp(min=1e-30)))
