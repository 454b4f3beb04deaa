"""Continuation of a stopped training, after a complete check of its saved state."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints, payloads
from mdsim.assembly.run_folder import Run
from mdsim.payloads import Form, like, list_of, number, optional, tensor
from mdsim.training.average import ParameterAverage
from mdsim.training.pretrain import Pretraining
from mdsim.training.schedule import Schedule
from mdsim.training.stable import StableTraining

log = logging.getLogger("mdsim")

HISTORY = ("epoch", "train_loss", "loss", "energy_mae_meV", "force_mae_meV_per_A")  # of each validation, at least
COUNT = number(low=0, high=2**63 - 1, whole=True)


def resume_training(trainer: Pretraining | StableTraining, path: Path, run: Run) -> None:
    """Continue from a checkpoint; begin at the beginning where none was written yet.

    Args:
        trainer: a fresh one, of the same settings and inputs.
        path: `last.pt`.
        run: that is continued.

    Raises:
        CheckpointError: the state is damaged, or of another run.
    """
    if not path.exists():
        log.warning("%s is not there yet: starting at the beginning", path)
        return
    kind = "pretraining" if isinstance(trainer, Pretraining) else "stable_training"
    form = pretraining_state(trainer) if isinstance(trainer, Pretraining) else stable_training_state(trainer)
    payload = checkpoints.load(path, kind)
    _complete(payload, kind)
    checkpoints.check_run(payload.get("provenance"), path, run.identity, run.is_older)
    saved = checkpoints.state_in(payload, path, "training", form)
    with payloads.restoring(path):
        trainer.load_state_dict(saved)
        if isinstance(trainer, Pretraining):
            trainer.progress.history[trainer.progress.best]  # must be there
    log.info("resumed after epoch %d (%s)", trainer.progress.epoch, path)


def _complete(payload: dict[str, Any], kind: str) -> None:
    """Add what earlier versions did not save: skipped steps of a fit, and reruns that are used again."""
    training = payload.get("training")
    if not isinstance(training, dict):
        return
    if kind == "stable_training":
        training.setdefault("replay", [])
    elif isinstance(progress := training.get("progress"), dict):
        progress.setdefault("skipped", 0)


def pretraining_state(trainer: Pretraining) -> Form:
    """The form of what `Pretraining.state_dict` saves."""
    return {
        **like(trainer.state_dict()),
        "average": average_state(trainer.average),
        "schedule": schedule_state(trainer.schedule),
        "progress": {
            **dict.fromkeys(("epoch", "step", "best", "skipped"), COUNT),
            "seconds": number(low=0),
            "best_loss": number(),
            "history": list_of(payloads.mapping_of(number(nan=True), *HISTORY)),
        },
    }


def stable_training_state(trainer: StableTraining) -> Form:
    """The form of what `StableTraining.state_dict` saves."""
    replicas = like(trainer.replicas.state_dict())
    progress = {
        key: bool if isinstance(value, bool) else COUNT for key, value in trainer.state_dict()["progress"].items()
    }
    return {
        **like(trainer.state_dict()),
        "average": average_state(trainer.average),
        "schedule": schedule_state(trainer.schedule),
        "replicas": {**replicas, "past": list_of(replicas["state"])},
        "skipped": COUNT,
        "increases": {"first": payloads.mapping_of(number(low=0)), "latest": payloads.mapping_of(number(low=0))},
        "replay": list_of(rerun_state(trainer)),
        "progress": {**progress, "recent": list_of([COUNT, COUNT])},
    }


def rerun_state(trainer: StableTraining) -> Form:
    """The form of what `Rerun.state_dict` saves."""
    replicas, n_atoms = trainer.replicas.state, trainer.stretch.system.n_atoms
    drawn = {
        **dict.fromkeys(("frames", "molecules"), tensor(None, dtype=torch.long)),
        "membership": tensor(None, n_atoms, dtype=torch.bool),
        "weights": optional(tensor(None)),
    }
    return {
        "positions": tensor(None, n_atoms, 3),
        "energy": tensor(None),
        "replica": tensor(None, dtype=torch.long),
        "after_break": tensor(None, dtype=torch.bool),
        "bath": number(low=0) if replicas.kT is None else tensor(None),
        "neighborhoods": optional(drawn),
        "cells": None if replicas.cell is None else tensor(None, 3, 3),
        "pressure": None if replicas.pressure is None else tensor(None),
    }


def average_state(average: ParameterAverage) -> Form:
    """The form of what `ParameterAverage.state_dict` saves."""
    return {**like(average.state_dict()), "steps": COUNT}


def schedule_state(schedule: Schedule) -> Form:
    """The form of what `Schedule.state_dict` saves."""
    return {
        "optimizer": payloads.optimizer_state(schedule.optimizer),
        "plateau": payloads.scheduler_state(schedule.plateau),
        "learning_rate": number(low=0),
        "steps": COUNT,
        "reductions": COUNT,
    }
