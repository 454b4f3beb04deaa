"""StABlE training of a force field."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from mdsim import assembly, distributed, memory
from mdsim.assembly.inputs import inputs_of
from mdsim.assembly.resume import resume_training
from mdsim.assembly.run_folder import check_folder, open_folder
from mdsim.assembly.runs.common import (
    datasets_of,
    mistakes_in_the_configuration,
    never,
    provenance,
    scalar_writer,
    starting_state,
)
from mdsim.config.schema import TrainConfig
from mdsim.distributed.launch import own_folder, restarted
from mdsim.evaluation import report
from mdsim.reporting.console import LOG_FILE, finished
from mdsim.reporting.live import waiting
from mdsim.reporting.phases import CHARTS
from mdsim.training.restarts import Restarts
from mdsim.training.saved_weights import LabelMean
from mdsim.training.stable import StableTraining

log = logging.getLogger("mdsim")


def train_stable(
    config: TrainConfig,
    resume: bool = False,
    overwrite: bool = False,
    stop_requested: Callable[[], bool] = never,
    debug: bool = False,
) -> bool:
    """Run StABlE training; False where it was stopped before its end."""
    with own_folder(config.run_path) as folder:
        return _train(config, folder, resume or restarted(), overwrite, distributed.agreed(stop_requested), debug)


def _train(
    config: TrainConfig, folder: Path, resume: bool, overwrite: bool, stop_requested: Callable[[], bool], debug: bool
) -> bool:
    check_folder(folder, config, resume, overwrite)
    memory.set_budget_GB(config.memory_budget_GB)
    checkpoint = assembly.starting_checkpoint(config, debug)
    with mistakes_in_the_configuration():
        trainer = build_stable_training(config, checkpoint, debug, folder)
    inputs = inputs_of(config, datasets_of(config), pretrained_checkpoint=checkpoint)
    with open_folder(folder, config, resume, overwrite, inputs) as run:
        trainer.provenance["run"] = run.identity
        log.info(
            "StABlE training of %s, %d replicas at %s",
            *(checkpoint, config.dynamics.replicas, assembly.shown(config)),
        )
        if resume:
            resume_training(trainer, folder / "last.pt", run)
        with scalar_writer(folder, config, trainer.progress.epoch + 1) as writer:
            writer.lay_out("StABlE training", CHARTS)
            if not trainer.run(writer, stop_requested):
                return False
        with waiting("drawing the report"):
            report.draw_training(folder)
        here = trainer.progress
        finished(
            f"trained: {here.epoch} epochs, finished cycles: {here.cycle - 1}",
            {
                folder / report.REPORT: "the course of the training",
                folder / "last.pt": "the trained force field",
                folder / LOG_FILE: "this log",
            },
        )
    return True


def build_stable_training(
    config: TrainConfig, checkpoint: Path, debug: bool = False, folder: Path | None = None
) -> StableTraining:
    """The training of a configuration, in its own run folder unless another one is given."""
    with waiting("reading the data"):
        data = assembly.dataset(config.data)
        points = assembly.state_points(config, data)
    system = data.system().to(assembly.device(config.device_name))
    force_field = assembly.run_force_field(config.model, checkpoint, system, data.train)
    if force_field.why_undetermined(system):
        assembly.log_recentering(force_field.recenter(system, data.train.positions, data.train.energy))
    assembly.train_only(force_field, config.trainable)
    stretch = assembly.stretch(config, system, data)
    zero_energy_eV = float(force_field.zero_energy_eV(system))
    several = assembly.SeveralLabeled.of(assembly.labeled_data(config.data), force_field)
    terms = assembly.weighted_terms(config, system, data, points, zero_energy_eV, several)
    starts = assembly.starts(points, system, lambda point: point.data.train)
    return StableTraining(
        force_field,
        stretch,
        starting_state(config, stretch, force_field, starts, meant_to_break=debug),
        terms,
        assembly.sampling(config, system, data),
        assembly.stable_settings(config, terms),
        folder or config.run_path,
        torch.Generator().manual_seed(config.seed),
        provenance=provenance(data) | {"seed": config.seed, "pretrained": checkpoint.as_posix()},
        restarts=Restarts(assembly.starts(points, system, lambda point: point.reference_data.train)),
        label_mean=LabelMean(system, data.train),
        recording=assembly.recording(config, stretch, folder or config.run_path),
    )
