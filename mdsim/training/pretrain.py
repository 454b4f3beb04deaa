"""The energy/force fit: minibatches, averaged weights, early stopping and exact resumption."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints
from mdsim.errors import TrainingError
from mdsim.force_field import ForceField
from mdsim.models.loading import load_force_field, model_config
from mdsim.reporting.live import Bar
from mdsim.reporting.pace import Pace
from mdsim.reporting.scalars import ScalarWriter
from mdsim.training.average import ParameterAverage
from mdsim.training.fit_data import FitData
from mdsim.training.schedule import OptimizerSettings, Schedule
from mdsim.training.skips import skipped_in_a_row
from mdsim.typing import Float, Int, Tensor

log = logging.getLogger("mdsim")

REMEDY = (
    "lower optim.learning_rate, or look for labels that are not finite; earlier checkpoints of the fit are unchanged"
)


@dataclass(frozen=True)
class FitSettings:
    """The settings of a fit."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    batch_size: int = 100  # frames per parameter step
    eval_batch_size: int = 100  # frames at a time in validation
    ema_decay: float | None = None  # decay of the averaged weights, which are evaluated and saved
    clip_norm: float | None = None
    max_epochs: int = 10000
    early_stopping_lr: float = 1e-6
    early_stopping_time_s: float = 604800.0
    checkpoint_every_epochs: int = 10
    evaluate_every_epochs: int = 1


@dataclass
class Progress:
    """The progress of a fit, saved in its checkpoints."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best: int = 0  # index in the history
    skipped: int = 0  # consecutive latest steps with a non-finite loss or gradient
    history: list[dict[str, int | float]] = field(default_factory=list)


class Pretraining:
    """Fits one force field to labeled frames.

    Args:
        model: the force field. Its shift and scale are set from the training frames.
        data: the labeled frames with their loss.
        settings: optimizer, schedule and stopping.
        run_dir: folder for checkpoints, scalars and metrics.
        seed: seed of the order of the minibatches.
        amp: run the forward pass under bfloat16 autocast.
        provenance: facts about the data, stored in every checkpoint.
        pretrained: the model was fitted before. Only its zero of energy is then set from the training frames.
    """

    def __init__(
        self,
        model: ForceField,
        data: FitData,
        settings: FitSettings,
        run_dir: Path,
        seed: int = 0,
        amp: bool = False,
        provenance: dict[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        self.model = data.prepare(model, pretrained)
        self.data = data
        self.settings = settings
        self.run_dir = run_dir
        self.amp = amp
        self.provenance = provenance or {}
        self.generator = torch.Generator().manual_seed(seed)
        self.parameters = self.model.trainable_parameters
        self.schedule = Schedule(self.parameters, settings.optimizer)
        self.average = ParameterAverage(self.model, settings.ema_decay)
        self.progress = Progress()

    def resume_from(self, path: Path) -> None:
        """Continue from a checkpoint, or start from the beginning if there is none."""
        if path.exists():
            self.load_state_dict(checkpoints.load(path, "pretraining")["training"])
            log.info("resumed after epoch %d (%s)", self.progress.epoch, path)

    def fit(
        self, writer: ScalarWriter, print_every: int = 50, stop_requested: Callable[[], bool] = lambda: False
    ) -> bool:
        """Train until the learning rate, the time or the number of epochs reaches its limit. Saves the best weights.

        Returns:
            True at the end of the fit; False where it was asked to stop before, in a state that can be resumed.
        """
        last = self.run_dir / "checkpoints" / "last.pt"
        last.parent.mkdir(parents=True, exist_ok=True)
        if not self.progress.history:
            self._evaluate(writer)
        started, spent_before = time.monotonic(), self.progress.seconds
        pace = Pace(self.settings.max_epochs)
        with Bar(total=pace.total, desc="fit", unit="epochs", pace=pace) as bar:
            while (reason := self._reason_to_stop()) is None:
                if stop_requested():
                    self._save_last(last, writer)
                    return False
                train_loss = self._train_epoch(writer, print_every)
                self.progress.epoch += 1
                self.progress.seconds = spent_before + time.monotonic() - started
                if self.progress.epoch % self.settings.evaluate_every_epochs == 0:
                    self._evaluate(writer, train_loss)
                if self.progress.epoch % self.settings.checkpoint_every_epochs == 0:
                    self._save_last(last, writer)
                pace.measure(self.progress.epoch, self.progress.epoch * self.data.n_train)
                bar.show(self._state_of_fit)
        self._save_last(last, writer)
        self._recenter_best()
        best = self.progress.history[self.progress.best]
        log.info("stopped after %d epochs: %s; best epoch %d", self.progress.epoch, reason, best["epoch"])
        return True

    @property
    def _state_of_fit(self) -> str:
        """The latest validation, and the learning rate, whose fall may end the fit before the last epoch."""
        mae = f"force MAE {self.progress.history[-1]['force_mae_meV_per_A']:.1f} meV/Å"
        return f"{mae}, learning rate {self.schedule.learning_rate:.1e} (ends at {self.settings.early_stopping_lr:g})"

    def _reason_to_stop(self) -> str | None:
        s = self.settings
        if self.schedule.learning_rate < s.early_stopping_lr:
            return f"the learning rate fell below {s.early_stopping_lr:g}"
        if self.progress.seconds > s.early_stopping_time_s:
            return f"{s.early_stopping_time_s:g} s of training are over"
        if self.progress.epoch >= s.max_epochs:
            return "all epochs are done"
        return None

    def _train_epoch(self, writer: ScalarWriter, print_every: int) -> float:
        order = torch.randperm(self.data.n_train, generator=self.generator)
        losses = []
        for batch in order.split(self.settings.batch_size):
            losses.append(self._step(batch))
            if self.progress.step % print_every == 0:
                loss = float(losses[-1])
                writer.log(self.progress.step, {"train/loss": loss, "train/learning_rate": self.schedule.last_rate})
                latest = self.progress.history[-1]  # of the previous epochs
                log.info(
                    "epoch %d step %d: loss %.4f; in validation %.1f meV/Å, %.1f meV",
                    *(self.progress.epoch + 1, self.progress.step, loss),
                    *(latest["force_mae_meV_per_A"], latest["energy_mae_meV"]),
                    extra={"fields": {"epoch": self.progress.epoch + 1, "scalars": {"train/loss": loss}}},
                )
        return float(torch.stack(losses).mean())

    def _step(self, batch: Int[Tensor, "sample"]) -> Float[Tensor, ""]:
        self.schedule.optimizer.zero_grad(set_to_none=True)
        self.model.train()
        loss = self.data.loss_of(self.model, batch, self.amp)
        loss.backward(inputs=self.parameters)  # not with respect to positions, whose gradient is unused
        limit = math.inf if self.settings.clip_norm is None else self.settings.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        numbers = dict(zip(("loss", "gradient"), torch.stack([loss.detach(), norm.to(loss)]).tolist(), strict=True))
        self.progress.skipped = skipped_in_a_row(self.progress.skipped, numbers, REMEDY)
        self.progress.step += 1
        if not self.progress.skipped:
            self.schedule.step()
            self.average.update()
        return loss.detach()

    def _evaluate(self, writer: ScalarWriter, train_loss: float = math.nan) -> None:
        """Validate, lower the learning rate on a plateau, and keep the model if it is the best so far."""
        with self.average.applied() as model:
            errors, loss = self.data.validate(model, self.settings.eval_batch_size)
        self.schedule.observe(loss)
        self.progress.history.append({"epoch": self.progress.epoch, "train_loss": train_loss, "loss": loss, **errors})
        writer.log(self.progress.step, {f"val/{key}": value for key, value in {"loss": loss, **errors}.items()})
        if loss < self.progress.best_loss:
            self.progress.best_loss = loss
            self.progress.best = len(self.progress.history) - 1
            self._save_best()

    def _save_best(self) -> None:
        metrics = self.progress.history[-1]
        facts = {**self.provenance, "epoch": self.progress.epoch, "val": metrics}
        checkpoints.save_atomically(self._best_path, self._payload(facts))

    def _payload(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The averaged force field, if any, with its provenance."""
        with self.average.applied() as model:
            return checkpoints.force_field_payload(model, model_config(model), facts)

    def _recenter_best(self) -> None:
        """Shift the energies of the best weights to the mean of the labels, which is learned later than the forces."""
        path = self._best_path
        if not math.isfinite(self.progress.best_loss):
            raise TrainingError(f"{self.run_dir}: the validation loss was never finite: lower optim.learning_rate")
        payload = checkpoints.load(path, "force_field")
        if "recentered_eV" in payload["provenance"]:
            return  # by a process that was killed at its end: a second shift would be one of rounding
        model = load_force_field(path, (self.model.made_by or {}).get("factory"))
        moved = self.data.recenter(model, self.settings.eval_batch_size)
        facts = {**payload["provenance"], "recentered_eV": moved}
        checkpoints.save_atomically(path, checkpoints.force_field_payload(model, model_config(model), facts))
        log.info("zero of energy moved by %.3g eV to the mean of the training labels", moved)

    @property
    def _best_path(self) -> Path:
        return self.run_dir / "checkpoints" / "best_checkpoint.pt"

    def _save_last(self, path: Path, writer: ScalarWriter) -> None:
        writer.flush()  # what is saved is not repeated, so its scalars must not be lost either
        payload = self._payload(self.provenance)
        checkpoints.save_atomically(path, {**payload, "kind": "pretraining", "training": self.state_dict()})

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the fit depends on."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "progress": copy.deepcopy(vars(self.progress)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self.progress = Progress(**state["progress"])
