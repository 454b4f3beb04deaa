"""The learning phase: the stretches in which replicas broke are rerun, and the parameters stepped, until they hold.

Source: Raja et al., arXiv 2402.13984, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mdsim.dynamics.state_points import by_state_point
from mdsim.dynamics.stretch import Outcome, Stretch
from mdsim.estimator.samples import Sampling
from mdsim.training.explore import Replicas
from mdsim.training.progress import Progress
from mdsim.training.schedule import UnstableFraction
from mdsim.training.steps import ParameterSteps


@dataclass(frozen=True)
class LearnSettings:
    """The learning phase of a cycle.

    Attributes:
        reruns: reruns per epoch, spread over the parked stretches, each with its own noise. None: each stretch once.
        stop: rule that ends the phase when few reruns break.
        monitored: the logged loss whose plateaus reduce the learning rate.
        learning_rate_decay: factor on the learning rate from each cycle to the next.
        max_times_reduce_lr: number of plateaus that reduce the learning rate. The next one ends the phase.
        max_epochs: largest number of epochs per phase. None: no limit.
    """

    reruns: int | None = None
    stop: UnstableFraction = field(default_factory=UnstableFraction)
    monitored: str = "learn/observables_loss"
    learning_rate_decay: float = 1.0
    max_times_reduce_lr: int = 2
    max_epochs: int | None = None


@dataclass
class Learner:
    """The learning phase of every cycle.

    Attributes:
        stretch: the dynamics of one epoch.
        sampling: selection of samples from a rerun.
        steps: the parameter steps.
        settings: settings of the phase.
        generator: random numbers.
    """

    stretch: Stretch
    sampling: Sampling
    steps: ParameterSteps
    settings: LearnSettings
    generator: torch.Generator

    def begin(self, progress: Progress) -> None:
        """Start a phase with the learning rate of its cycle."""
        self.steps.schedule.restart(self.settings.learning_rate_decay ** (progress.cycle - 1))

    def epoch(self, replicas: Replicas, progress: Progress) -> tuple[dict[str, float], str | None]:
        """Rerun the parked stretches and step the parameters, unless the reruns hold.

        Returns:
            Scalars for the log, and the reason if the phase ends.
        """
        outcome = self._rerun(replicas, progress)
        unstable = outcome.verdict.unstable
        progress.recent.append((int(unstable.sum()), len(unstable)))
        del progress.recent[: -self.settings.stop.window]
        scalars = {
            "learn/fraction_unstable": float(unstable.double().mean()),
            **by_state_point("learn/fraction_unstable", outcome.state, unstable),
        }
        if self.settings.stop.holds(progress.recent):
            return scalars, "the parked stretches hold"
        scalars |= self.step_from(outcome, progress)
        progress.cycle_epoch += 1
        return scalars, self._reason_to_end(scalars, progress)

    def step_from(self, outcome: Outcome, progress: Progress) -> dict[str, float]:
        """Step the parameters using the frames of a stretch. Returns scalars for the log."""
        samples = self.sampling(self.steps.force_field, self.stretch.system, outcome, self.generator)
        if samples.neighborhoods is not None:
            progress.count(len(samples.positions))
        return self.steps(samples, progress)

    def _rerun(self, replicas: Replicas, progress: Progress) -> Outcome:
        parked = torch.nonzero(replicas.parked).squeeze(-1)
        n_reruns = max(len(parked), self.settings.reruns or 0)
        start = parked[torch.arange(n_reruns, device=parked.device) % len(parked)]
        progress.count(n_reruns * self.stretch.n_steps)
        return self.stretch.run(self.steps.force_field, replicas.state[start], self.generator)

    def _reason_to_end(self, scalars: dict[str, float], progress: Progress) -> str | None:
        schedule = self.steps.schedule
        schedule.observe(scalars.get(self.settings.monitored, float("nan")))
        if schedule.reductions > self.settings.max_times_reduce_lr:
            return "the learning rate has been reduced as often as allowed"
        if progress.cycle_epoch == self.settings.max_epochs:
            return "all epochs of this cycle are done"
        return None
