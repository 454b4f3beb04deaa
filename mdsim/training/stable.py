"""StABlE training: explore until enough replicas have broken, learn until their stretches hold, explore again.

Raja et al., TMLR 2025, arXiv 2402.13984. One *epoch* is one stretch of simulation, with (learning) or without
(exploring) a parameter step; a *cycle* is one exploring phase and the learning phase after it. Everything that the rest
of a run depends on is saved after every epoch, so that a killed run continues bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints
from mdsim.config.schema import TrainConfig
from mdsim.dynamics.stretch import Stretch
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.samples import Target
from mdsim.force_field import ForceField
from mdsim.reporting.scalars import ScalarWriter
from mdsim.stability.survival import wilson_interval
from mdsim.state import MDState
from mdsim.training.explore import Replicas, explore, rewind
from mdsim.training.learn import QMData
from mdsim.training.steps import ParameterSteps

log = logging.getLogger("mdsim")


@dataclass
class Position:
    """Where a run stands."""

    epoch: int = 0
    cycle: int = 1
    explore_epochs: int = 0  # in this cycle
    cycle_epoch: int = 0  # parameter steps in this cycle
    learning: bool = False
    force_evaluations: int = 0  # structures evaluated so far, in dynamics and in gradients
    reductions: int = 0  # of the learning rate, in this cycle
    recent: list[tuple[int, int]] = field(default_factory=list)  # unstable replicas and all, in the last reruns


class StableTraining:
    """Alternates exploring and learning.

    Args:
        force_field: the QM-pretrained force field; it is changed in place.
        model_config: what rebuilds it; stored in every checkpoint.
        stretch: the dynamics of one epoch.
        start: the replicas' first state.
        targets: the terms of the observable loss.
        qm: the labelled training frames.
        config: thresholds, optimizer and schedule.
        run_dir: where checkpoints and scalars go.
        generator: all random numbers of the run.
        provenance: facts that are stored in every checkpoint.
        sampler: draws the neighborhoods of the local estimator; None: the global one.
    """

    def __init__(
        self,
        force_field: ForceField,
        model_config: dict[str, Any],
        stretch: Stretch,
        start: MDState,
        targets: Sequence[Target],
        qm: QMData,
        config: TrainConfig,
        run_dir: Path,
        generator: torch.Generator,
        provenance: dict[str, Any] | None = None,
        sampler: NeighborhoodSampler | None = None,
    ) -> None:
        self.force_field = force_field
        self.model_config = model_config
        self.stretch = stretch
        self.replicas = Replicas.at(start)
        self.config = config
        self.run_dir = run_dir
        self.generator = generator
        self.provenance = provenance or {}
        self.position = Position()
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.learning.optimizer]
        self.optimizer = kind(force_field.parameters(), lr=config.learning.learning_rate)
        self.steps = ParameterSteps(
            force_field, stretch.system, targets, qm, config, self.optimizer, generator, self._count, sampler
        )
        self._restart_schedule()

    # ------------------------------------------------------------------------------------------------ the algorithm

    def resume_from(self, path: Path) -> None:
        """Continue from a checkpoint; begin at the beginning where none was written yet."""
        if path.exists():
            self.load_state_dict(checkpoints.load(path, "stable_training")["training"])
            log.info("resumed after epoch %d (%s)", self.position.epoch, path)

    def run(self, writer: ScalarWriter) -> None:
        """Train until the epochs or cycles of the configuration are done."""
        last = self.run_dir / "last.pt"
        while not self._done():
            self.position.epoch += 1
            if self.position.learning:
                self._learn(writer)
            else:
                self._explore(writer)
            self._save_last(last)
        log.info("done: %d epochs, %d finished cycles", self.position.epoch, self.position.cycle - 1)

    def _done(self) -> bool:
        position, config = self.position, self.config
        limits = (
            (position.epoch, config.epochs),
            (position.cycle - 1, config.max_cycles),
            (position.force_evaluations, config.max_force_evaluations),
        )
        return any(limit is not None and used >= limit for used, limit in limits)

    def _explore(self, writer: ScalarWriter) -> None:
        self._count(int((~self.replicas.parked).sum()) * self.stretch.n_steps)
        replicas, rewound = rewind(self.replicas, self.config.reset_probability, self.generator)
        self.replicas, outcome = explore(replicas, self.force_field, self.stretch, self.generator)
        fraction = self.replicas.fraction_parked
        stable_ps = float(self.replicas.stable_ps.mean())
        scalars = {
            "explore/fraction_unstable": fraction,
            "explore/newly_unstable": float(outcome.verdict.unstable.sum()),
            "explore/mean_stable_time_ps": stable_ps,
            "explore/rewound": float(rewound),
        }
        if self.config.learn_while_exploring and outcome.verdict.unstable.any():
            scalars |= self.steps(outcome, self.position.cycle_epoch)
        self._log(writer, scalars)
        log.info(
            "epoch %3d  cycle %d  explore   unstable %3.0f %%  mean stable time %.2f ps",
            *(self.position.epoch, self.position.cycle, 100 * fraction, stable_ps),
        )
        self.position.explore_epochs += 1
        limit = self.config.max_explore_epochs
        long_enough = limit is not None and self.position.explore_epochs >= limit
        if fraction > 0 and (fraction >= self.config.start_learning_at or long_enough):
            self.position.learning = True
            self._restart_schedule()

    def _learn(self, writer: ScalarWriter) -> None:
        """Rerun the parked stretches, step the parameters, and end the cycle once they hold."""
        parked = torch.nonzero(self.replicas.parked).squeeze(-1)
        reruns = max(len(parked), self.config.learning.reruns or 0)
        start = parked[torch.arange(reruns, device=parked.device) % len(parked)]
        outcome = self.stretch.run(self.force_field, self.replicas.state[start], self.generator)
        self._count(len(start) * self.stretch.n_steps)
        unstable = outcome.verdict.unstable
        scalars = {"learn/fraction_unstable": float(unstable.double().mean())}
        if self._stretches_hold(int(unstable.sum()), len(unstable)):
            self._report_learning(writer, scalars)
            self._end_cycle("the parked stretches hold")
            return
        scalars |= self.steps(outcome, self.position.cycle_epoch)
        self.position.cycle_epoch += 1
        self._report_learning(writer, scalars)
        self._save_force_field(f"cycle{self.position.cycle}_epoch{self.position.cycle_epoch}.pt")
        monitored = "learn/observable_loss" if self.config.learning.direction == "joint" else "learn/qm_loss"
        if self._plateau_over(scalars[monitored]):
            self._end_cycle("the learning rate has been reduced as often as allowed")
        elif self.position.cycle_epoch == self.config.learning.max_epochs_per_cycle:
            self._end_cycle("all epochs of this cycle are done")

    def _stretches_hold(self, unstable: int, reruns: int) -> bool:
        """Whether the last few reruns together leave no doubt, at the confidence asked for."""
        self.position.recent = [*self.position.recent, (unstable, reruns)][-self.config.stop_window :]
        broken, trials = (sum(counts) for counts in zip(*self.position.recent, strict=True))
        confidence = self.config.stop_confidence
        bound = broken / trials if confidence is None else wilson_interval(broken, trials, confidence).high
        return bound <= self.config.stop_learning_at

    def _count(self, force_evaluations: int) -> None:
        self.position.force_evaluations += force_evaluations

    def _plateau_over(self, loss: float) -> bool:
        """Advance the plateau schedule; True once it would reduce the learning rate once too often."""
        before = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step(loss)
        self.position.reductions += self.optimizer.param_groups[0]["lr"] < before
        return self.position.reductions > self.config.learning.max_times_reduce_lr

    def _end_cycle(self, reason: str) -> None:
        log.info("cycle %d ends: %s", self.position.cycle, reason)
        self._save_force_field(f"end_of_cycle{self.position.cycle}.pt")
        self.replicas = self.replicas.released()
        here = self.position
        self.position = Position(here.epoch, here.cycle + 1, force_evaluations=here.force_evaluations)

    def _restart_schedule(self) -> None:
        """A learning phase starts with the learning rate of its cycle; the optimizer's knowledge of gradients stays."""
        settings = self.config.learning
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * settings.learning_rate_decay ** (self.position.cycle - 1)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience
        )

    # ------------------------------------------------------------------------------------ reporting and checkpoints

    def _log(self, writer: ScalarWriter, scalars: dict[str, float]) -> None:
        here = self.position
        position = {"cycle": float(here.cycle), "cost/force_evaluations": float(here.force_evaluations)}
        writer.log(here.epoch, scalars | position)

    def _report_learning(self, writer: ScalarWriter, scalars: dict[str, float]) -> None:
        self._log(writer, scalars)
        line = f"unstable {100 * scalars['learn/fraction_unstable']:3.0f} %"
        if "learn/observable_loss" in scalars:
            line += (
                f"  observable loss {scalars['learn/observable_loss']:.3e}  QM loss {scalars['learn/qm_loss']:.4f}"
                f"  |g_obs|/|g_QM| {scalars['learn/gradient_ratio']:.2f}  cos {scalars['learn/gradient_cosine']:+.2f}"
            )
        log.info(
            "epoch %3d  cycle %d  learn %2d  %s",
            self.position.epoch,
            self.position.cycle,
            self.position.cycle_epoch,
            line,
        )

    def _save_force_field(self, name: str) -> None:
        payload = checkpoints.force_field_payload(
            self.force_field, self.model_config, {**self.provenance, **asdict(self.position)}
        )
        checkpoints.save_atomically(self.run_dir / name, payload)

    def _save_last(self, path: Path) -> None:
        payload = checkpoints.force_field_payload(self.force_field, self.model_config, self.provenance)
        checkpoints.save_atomically(path, {**payload, "kind": "stable_training", "training": self.state_dict()})

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "model": self.force_field.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "replicas": self.replicas.state_dict(),
            "generator": self.generator.get_state(),
            "position": asdict(self.position),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.force_field.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.replicas = Replicas.from_state_dict(state["replicas"], self.replicas.parked.device)
        self.generator.set_state(state["generator"])
        self.position = Position(**state["position"])
