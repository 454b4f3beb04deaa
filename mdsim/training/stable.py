"""StABlE training: cycles of exploring, until enough replicas have broken, and learning, until their stretches hold.

Raja et al., TMLR 2025, arXiv 2402.13984. One *epoch* is one stretch of simulation, with (learning) or without
(exploring) parameter steps; a *cycle* is one exploring phase and the learning phase after it. Everything that the rest
of a run depends on is saved after every epoch, so that a killed run continues bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints, distributed
from mdsim.dynamics.state_points import by_state_point
from mdsim.dynamics.stretch import Stretch
from mdsim.estimator.replay import Replay
from mdsim.estimator.samples import Sampling
from mdsim.force_field import ForceField
from mdsim.reporting.live import COMPILES, Bar
from mdsim.reporting.pace import Pace
from mdsim.reporting.scalars import ScalarWriter
from mdsim.state import MDState
from mdsim.training.average import ParameterAverage
from mdsim.training.chains import move_chains
from mdsim.training.explore import ExploreSettings, Replicas, explore, rewind
from mdsim.training.joint_gradient import LossIncreases, WeightedTerm
from mdsim.training.learn import Learner, LearnSettings
from mdsim.training.progress import Progress
from mdsim.training.recorded import Recording
from mdsim.training.restarts import Restarts
from mdsim.training.saved_weights import LabelMean, saved_weights
from mdsim.training.schedule import OptimizerSettings, Schedule
from mdsim.training.steps import ParameterSteps, StepSettings

log = logging.getLogger("mdsim")


@dataclass(frozen=True)
class Limits:
    """Limits on the length of a training. The first one reached ends it. None: no limit."""

    epochs: int | None = 500
    cycles: int | None = None
    force_evaluations: int | None = None

    def reached(self, progress: Progress) -> bool:
        return self.used(progress) >= 1

    def used(self, progress: Progress) -> float:
        """The fraction that is used of the limit that is nearest."""
        used = (progress.epoch, progress.cycle - 1, progress.force_evaluations)
        limits = (self.epochs, self.cycles, self.force_evaluations)
        return max((n / limit for n, limit in zip(used, limits, strict=True) if limit is not None), default=0.0)


@dataclass(frozen=True)
class StableSettings:
    """The settings of a StABlE training, by part."""

    limits: Limits = field(default_factory=Limits)
    explore: ExploreSettings = field(default_factory=ExploreSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    steps: StepSettings = field(default_factory=StepSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    average_decay: float | None = None  # of the running average of parameters that checkpoints contain; None: none


class StableTraining:
    """Alternates exploring and learning.

    Args:
        force_field: the QM-pretrained force field, changed in place.
        stretch: the dynamics of one epoch.
        start: initial state of all replicas.
        terms: loss terms with their weights.
        sampling: selection of samples from the frames of a rerun.
        settings: settings of the training.
        run_dir: folder for checkpoints and scalars.
        generator: all random numbers of the run.
        provenance: facts stored in every checkpoint.
        restarts: initial conditions of replicas that begin again.
        label_mean: labeled frames whose mean energy error is removed from checkpoints. None: it is kept.
        recording: trajectories of some replicas. None: none are kept.

    Raises:
        ValueError: persistent chains, or a restart probability, without restarts.
    """

    def __init__(
        self,
        force_field: ForceField,
        stretch: Stretch,
        start: MDState,
        terms: Sequence[WeightedTerm],
        sampling: Sampling,
        settings: StableSettings,
        run_dir: str | Path,
        generator: torch.Generator,
        provenance: dict[str, Any] | None = None,
        restarts: Restarts | None = None,
        label_mean: LabelMean | None = None,
        recording: Recording | None = None,
    ) -> None:
        if restarts is None and (settings.explore.persistent or settings.explore.restart_probability):
            raise ValueError("persistent chains and a restart probability need `restarts`")
        self.force_field = force_field
        self.stretch = stretch
        self.replicas = Replicas.at(start)
        self.settings = settings
        self.run_dir = Path(run_dir)
        self.generator = generator
        self.provenance = provenance or {}
        self.restarts = restarts
        self.label_mean = label_mean
        self.recording = recording
        self.average = ParameterAverage(force_field, settings.average_decay)
        self._saved: tuple[int, dict[str, Any]] | None = None  # after so many steps: the payload of checkpoints
        self.progress = Progress()
        self.schedule = Schedule(force_field.trainable_parameters, settings.optimizer)
        replay = Replay(settings.steps.replay_reruns, settings.steps.min_effective_fraction)
        steps = ParameterSteps(force_field, terms, self.schedule, settings.steps, self.average, replay)
        self.learner = Learner(stretch, sampling, steps, settings.learn, generator)

    # ------------------------------------------------------------------------------------------------ the algorithm

    def run(self, writer: ScalarWriter, stop_requested: Callable[[], bool] = lambda: False) -> bool:
        """Train until a limit is reached and return True, or until asked to stop and return False."""
        if self.recording is None:
            return self._train(writer, stop_requested)
        self.recording.begin_after(self.progress.epoch)
        if not self._train(writer, stop_requested):
            return False
        self.recording.write()
        return True

    def _train(self, writer: ScalarWriter, stop_requested: Callable[[], bool]) -> bool:
        pace = Pace(1.0)
        with Bar(total=1.0, desc="train", unit="", pace=pace, note=f"first stretch, {COMPILES}") as bar:
            while not self.settings.limits.reached(self.progress):
                if stop_requested():
                    return False
                cycle = self.progress.cycle
                self._epoch(writer)
                writer.flush()  # what is saved is not repeated, so its scalars must not be lost either
                self._save_last()
                here = self.progress
                simulated_ps = here.epoch * self.stretch.length_ps
                pace.measure(self.settings.limits.used(here), here.force_evaluations, simulated_ps)
                bar.show(f"cycle {here.cycle}, {'learning' if here.learning else 'exploring'}, epoch {here.epoch}")
                if here.cycle > cycle:
                    log.info("%s", ", ".join([f"{100 * pace.done:.0f} % of the training is done", *pace.parts]))
        return True

    def _epoch(self, writer: ScalarWriter) -> None:
        """One stretch of simulation, with or without parameter steps."""
        self.progress.epoch += 1
        if self.restarts is not None and self.settings.explore.persistent:
            self._move_chains(self.restarts, writer)
        elif self.progress.learning:
            self._learn(writer)
        else:
            self._explore(writer)
        distributed.check_same(self.force_field.trainable_parameters, "the parameters")

    def _explore(self, writer: ScalarWriter) -> None:
        """Move the replicas for one stretch, and start learning once enough are parked."""
        settings, progress = self.settings.explore, self.progress
        self.progress.count(int((~self.replicas.parked).sum()) * self.stretch.n_steps)
        replicas, rewound = rewind(self.replicas, settings.reset_probability, self.generator)
        self.replicas, outcome = explore(replicas, self.force_field, self.stretch, self.generator)
        if self.recording is not None:
            self.recording.record(progress.epoch, torch.nonzero(~replicas.parked).squeeze(-1), outcome)
        scalars = {
            "explore/fraction_unstable": self.replicas.fraction_parked,
            "explore/newly_unstable": float(outcome.verdict.unstable.sum()),
            "explore/mean_stable_time_ps": float(self.replicas.stable_ps.mean()),
            "explore/rewound": float(rewound),
            **by_state_point("explore/fraction_unstable", self.replicas.state, self.replicas.parked),
        }
        if settings.learn_while_exploring and outcome.verdict.unstable.any():
            scalars |= self.learner.step_from(outcome, progress)
        self._report("explore", scalars, writer)
        progress.explore_epochs += 1
        if settings.ends(self.replicas.fraction_parked, progress.explore_epochs):
            progress.learning = True
            self.learner.begin(progress)

    def _move_chains(self, restarts: Restarts, writer: ScalarWriter) -> None:
        """Move persistent chains for one stretch and step the parameters."""
        progress = self.progress
        progress.count(self.replicas.state.n_replicas * self.stretch.n_steps)
        if progress.cycle_epoch == 0:
            self.learner.begin(progress)
        self.replicas, outcome = move_chains(self.replicas, self.force_field, self.stretch, restarts, self.generator)
        if self.recording is not None:
            self.recording.record(progress.epoch, torch.arange(self.replicas.state.n_replicas), outcome)
        scalars = {
            "explore/fraction_unstable": float(outcome.verdict.unstable.double().mean()),
            "explore/restarted": float(outcome.verdict.unstable.sum()),
            "explore/mean_stable_time_ps": float(self.replicas.stable_ps.mean()),
            **by_state_point("explore/fraction_unstable", self.replicas.state, outcome.verdict.unstable),
            **self.learner.step_from(outcome, progress),
        }
        self._report("chains", scalars, writer)
        progress.cycle_epoch += 1
        self._save_force_field(f"cycle{progress.cycle}_epoch{progress.cycle_epoch}.pt")
        if progress.cycle_epoch == self.settings.explore.max_epochs:
            self._end_cycle()

    def _learn(self, writer: ScalarWriter) -> None:
        """Rerun the parked stretches, step the parameters, and end the cycle once they hold."""
        scalars, reason = self.learner.epoch(self.replicas, self.progress)
        self._report(f"learn {self.progress.cycle_epoch:2d}", scalars, writer)
        if "learn/steps" in scalars:
            self._save_force_field(f"cycle{self.progress.cycle}_epoch{self.progress.cycle_epoch}.pt")
        if reason is not None:
            log.info("cycle %d ends: %s", self.progress.cycle, reason)
            self.replicas = self._restarted(self.replicas.released())
            self._end_cycle()

    def _restarted(self, replicas: Replicas) -> Replicas:
        probability = self.settings.explore.restart_probability
        if self.restarts is None or probability == 0:
            return replicas
        return self.restarts.of_some(replicas, probability, self.force_field, self.stretch, self.generator)

    def _end_cycle(self) -> None:
        self._save_force_field(f"end_of_cycle{self.progress.cycle}.pt")
        self.progress.start_cycle()

    # ------------------------------------------------------------------------------------ reporting and checkpoints

    def _report(self, phase: str, scalars: dict[str, float], writer: ScalarWriter) -> None:
        """Write the scalars of an epoch to the log, and the most important ones to the console."""
        here = self.progress
        position = {"cycle": float(here.cycle), "cost/force_evaluations": float(here.force_evaluations)}
        writer.log(here.epoch, scalars | position)
        fields = {"epoch": here.epoch, "cycle": here.cycle, "scalars": scalars}
        log.info(
            "epoch %3d  cycle %d  %-8s  %s", here.epoch, here.cycle, phase, _line(scalars), extra={"fields": fields}
        )

    def _save_force_field(self, name: str) -> None:
        facts = {**self.provenance, **asdict(self.progress)}
        checkpoints.save_atomically(self.run_dir / name, self._payload(facts))

    def _payload(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The force field for a checkpoint. It is computed once for all checkpoints between two parameter steps."""
        if self._saved is None or self._saved[0] != self.schedule.steps:
            self._saved = self.schedule.steps, saved_weights(self.average, self.label_mean, {})
        return {**self._saved[1], "provenance": dict(facts)}

    def _save_last(self) -> None:
        payload = self._payload(self.provenance)
        state = {**payload, "kind": "stable_training", "training": self.state_dict()}
        checkpoints.save_atomically(self.run_dir / "last.pt", state)

    def resume_from(self, path: Path) -> None:
        """Continue from a checkpoint, or start from the beginning if there is none."""
        if path.exists():
            self.load_state_dict(checkpoints.load(path, "stable_training")["training"])
            log.info("resumed after epoch %d (%s)", self.progress.epoch, path)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "model": self.force_field.state_dict(),
            "average": self.average.state_dict(),
            "schedule": self.schedule.state_dict(),
            "replicas": self.replicas.state_dict(),
            "generator": self.generator.get_state(),
            "skipped": self.learner.steps.skipped,
            "replay": self.learner.steps.replay.state_dict(),
            "increases": asdict(self.learner.steps.increases),
            "progress": asdict(self.progress),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._saved = None
        self.force_field.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.schedule.load_state_dict(state["schedule"])
        self.replicas = Replicas.from_state_dict(state["replicas"], self.replicas.parked.device)
        self.generator.set_state(state["generator"])
        self.learner.steps.skipped = state["skipped"]
        self.learner.steps.replay.load_state_dict(state["replay"], self.replicas.parked.device)
        self.learner.steps.increases = LossIncreases(**state["increases"])
        self.progress = Progress(**state["progress"])


def _line(scalars: dict[str, float]) -> str:
    """The scalars shown on the console: stability, and loss, ratio and cosine of each term."""
    unstable = scalars.get("learn/fraction_unstable", scalars.get("explore/fraction_unstable", 0.0))
    words = [f"unstable {100 * unstable:3.0f} %"]
    if "explore/mean_stable_time_ps" in scalars:
        words.append(f"mean stable time {scalars['explore/mean_stable_time_ps']:.2f} ps")
    for key, value in scalars.items():
        name = key.removeprefix("learn/")
        for ending, form in (("_loss", ".3g"), ("_ratio", ".2f"), ("_cosine", "+.2f")):
            if name.endswith(ending):
                label = name.removesuffix(ending) if ending == "_loss" else ending[1:]
                words.append(f"{label} {value:{form}}")
    return "  ".join(words)
