"""The runs behind the scripts: pretraining, StABlE training, evaluation, prediction and comparison."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch

import mdsim
from mdsim import assembly, memory
from mdsim.assembly.inputs import inputs_of
from mdsim.assembly.resume import resume_training
from mdsim.assembly.run_folder import check_folder, check_output_file, open_folder
from mdsim.calculator import ForceFieldCalculator
from mdsim.config.schema import OptimizationConfig, PretrainConfig, RunConfig, SimulateConfig, TrainConfig
from mdsim.datasets.folder import Dataset
from mdsim.datasets.npz import Frames
from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.errors import ConfigError, DatasetError, UnknownSpeciesError, UserError, one_line
from mdsim.evaluation import metrics, report
from mdsim.evaluation.errors import errors_on
from mdsim.evaluation.evaluate import Evaluation
from mdsim.evaluation.results import read_results
from mdsim.force_field import ForceField
from mdsim.reporting.console import format_table
from mdsim.reporting.scalars import ScalarWriter
from mdsim.state import MDState
from mdsim.training.pretrain import FitSettings, Pretraining
from mdsim.training.stable import StableTraining

log = logging.getLogger("mdsim")


def flush_denormals() -> None:
    """Flush numbers below 1e-38 (1e-308 in float64) to zero, in this thread and those it starts.

    The far tails of Gaussian basis functions are such denormal numbers. A CPU is a hundred times slower on them, and a
    fit of SchNet takes twice as long.
    """
    for dtype in (np.float32, np.float64):
        np.finfo(dtype)  # cached now, because numpy would warn later that the smallest number is zero
    torch.set_flush_denormal(True)


# ----------------------------------------------------------------------------------------------------- pretraining


def never() -> bool:
    """No request to stop."""
    return False


def pretrain(
    config: PretrainConfig,
    resume: bool = False,
    overwrite: bool = False,
    stop_requested: Callable[[], bool] = never,
) -> bool:
    """Fit a force field, then report its errors; False where it was stopped before its end."""
    folder = assembly.pretraining_run_path(config)
    check_folder(folder, config, resume, overwrite)
    data = assembly.dataset(config.data)
    check_readable(data)
    trainer = _pretraining(config, data, folder)
    inputs = inputs_of(config, [(data, ("train", "val", "test"))])
    with open_folder(folder, config, resume, overwrite, inputs) as run:
        trainer.provenance["run"] = run.identity
        if resume:
            resume_training(trainer, folder / "checkpoints" / "last.pt", run)
        begun = bool(trainer.progress.history)  # the validation at its last step was written, and is not repeated
        with _writer(folder, config, trainer.progress.step + 1 if begun else 0) as writer:
            if not trainer.fit(writer, config.print_every, stop_requested):
                return False
        report.draw_training(folder)
        report_fit(config, data, folder / "checkpoints" / "best_checkpoint.pt")
    return True


def validate(config: PretrainConfig, checkpoint: Path | None = None) -> None:
    """Report the errors of an existing fit."""
    folder = assembly.pretraining_run_path(config)
    report_fit(
        config, assembly.dataset(config.data), checkpoint or folder / "checkpoints" / "best_checkpoint.pt", False
    )


def report_fit(config: PretrainConfig, data: Dataset, checkpoint: Path, write: bool = True) -> None:
    """Errors on every split as a table, and in the run's `metrics.json`."""
    model = assembly.saved_force_field(config.model, checkpoint)
    system = data.system().to(assembly.device(config.cpu))
    model.to(system.masses.device)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    errors = {
        name: {"frames": len(frames), **errors_on(model, system, frames, config.optim.eval_batch_size)}
        for name, frames in splits.items()
    }
    keys = list(errors["test"])
    rows = [[name, *(f"{errors[name][key]:.4g}" for key in keys)] for name in errors]
    log.info("errors of %s\n%s", checkpoint, format_table(["split", *keys], rows))
    if write:
        metrics.write_json(checkpoint.parents[1] / "metrics.json", {**_provenance(data), **errors})


def predict(
    checkpoint: Path,
    frames: Path,
    output: Path,
    cpu: bool = False,
    allow_factory: str | None = None,
    energy_zero: str = "labels",
) -> None:
    """Write energies (eV), forces (eV/Å) and atomic energies (eV) of every frame of a file as extended xyz.

    `energy_zero` is as in `ForceFieldCalculator`, and is written with every frame.
    """
    check_output_file(output)
    device = assembly.device(cpu)
    calculator = ForceFieldCalculator(checkpoint, device, allow_factory=allow_factory, energy_zero=energy_zero)
    try:
        images = ase.io.read(frames, index=":")
    except Exception as error:  # readers raise arbitrary errors on files of other formats
        raise ConfigError(f"{frames}: cannot be read as frames ({error or type(error).__name__})") from error
    predicted = []
    for number, atoms in enumerate(images):
        try:
            calculator.calculate(atoms, ["energy", "forces", "energies"])
        except ValueError as error:
            raise ConfigError(f"{frames}, frame {number}: {error}") from error
        _check_finite(calculator.results, f"{frames}, frame {number}")
        copy = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        copy.info |= {"energy": calculator.results["energy"], "energy_zero": energy_zero}
        copy.arrays["forces"] = calculator.results["forces"]
        copy.arrays["atomic_energies"] = calculator.results["energies"]
        predicted.append(copy)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        ase.io.write(temporary, predicted, format="extxyz")
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    log.info("%d frame%s -> %s", len(predicted), "" if len(predicted) == 1 else "s", output)


def _check_finite(results: dict[str, Any], where: str) -> None:
    if not all(np.isfinite(results[key]).all() for key in ("energy", "forces", "energies")):
        raise ConfigError(f"{where}: energies or forces are NaN or infinite: check the positions and the cell")


def _pretraining(config: PretrainConfig, data: Dataset, folder: Path) -> Pretraining:
    torch.manual_seed(config.seed)
    system = data.system().to(assembly.device(config.cpu))
    with _a_model_that_can_be_built():
        model = assembly.force_field(config.model, sorted(set(system.atomic_numbers.tolist())))
    return Pretraining(
        model,
        system,
        data.train,
        data.val,
        _fit_settings(config.optim),
        folder,
        assembly.energy_force_loss(
            config.optim.loss,
            config.optim.energy_coefficient,
            config.optim.force_coefficient,
            config.optim.energy_per_atom,
        ),
        seed=config.seed,
        amp=config.amp,
        provenance=_provenance(data) | {"seed": config.seed},
    )


def _fit_settings(optim: OptimizationConfig) -> FitSettings:
    names = FitSettings.__dataclass_fields__.keys() - {"optimizer"}
    return FitSettings(assembly.optimizer_settings(optim), **{name: getattr(optim, name) for name in names})


# ---------------------------------------------------------------------------------------------------------- StABlE


def train_stable(
    config: TrainConfig,
    resume: bool = False,
    overwrite: bool = False,
    stop_requested: Callable[[], bool] = never,
    debug: bool = False,
) -> bool:
    """Run StABlE training; False where it was stopped before its end."""
    check_folder(config.run_path, config, resume, overwrite)
    memory.set_budget_GB(config.memory_budget_GB)
    checkpoint = assembly.starting_checkpoint(config, debug)
    with mistakes_in_the_configuration():
        trainer = _stable_training(config, checkpoint, debug)
    inputs = inputs_of(config, _datasets(config), pretrained_checkpoint=checkpoint)
    with open_folder(config.run_path, config, resume, overwrite, inputs) as run:
        trainer.provenance["run"] = run.identity
        log.info(
            "StABlE training of %s, %d replicas at %g K",
            *(checkpoint, config.dynamics.replicas, config.dynamics.temperature_K),
        )
        if resume:
            resume_training(trainer, config.run_path / "last.pt", run)
        with _writer(config.run_path, config, trainer.progress.epoch + 1) as writer:
            if not trainer.run(writer, stop_requested):
                return False
        report.draw_training(config.run_path)
    return True


def _stable_training(config: TrainConfig, checkpoint: Path, debug: bool = False) -> StableTraining:
    data = assembly.dataset(config.data)
    reference_data = assembly.dataset(config.data, config.reference_size)
    system = data.system().to(assembly.device(config.cpu))
    force_field = assembly.saved_force_field(config.model, checkpoint).to(system.masses.device)
    if force_field.why_undetermined(system):
        moved = force_field.recenter(system, data.train.positions, data.train.energy)
        log.info("the zero of energy was set from the training frames: %+.3f eV relative to the estimate", moved)
    stretch = assembly.stretch(config, system, data)
    zero_energy_eV = float(force_field.zero_energy_eV(system))
    terms = assembly.weighted_terms(config, system, data, reference_data, zero_energy_eV)
    return StableTraining(
        force_field,
        stretch,
        _start(config, stretch, force_field, data.train, meant_to_break=debug),
        terms,
        assembly.sampling(config, system, data),
        assembly.stable_settings(config, terms),
        config.run_path,
        torch.Generator(system.masses.device).manual_seed(config.seed),
        provenance=_provenance(data) | {"seed": config.seed, "pretrained": checkpoint.as_posix()},
    )


def _start(
    config: RunConfig, stretch: Stretch, force_field: ForceField, frames: Frames, meant_to_break: bool = False
) -> MDState:
    """The initial state of the replicas, at some of the frames, after a first check of their stability."""
    dynamics = config.dynamics
    positions, velocities = initial_conditions(
        stretch.system,
        frames.positions,
        dynamics.replicas,
        dynamics.temperature_K,
        torch.Generator().manual_seed(config.seed),
    )
    state = stretch.begin(force_field, positions, velocities)
    unstable = int(stretch.judge(state).unstable.sum())
    if unstable and not meant_to_break:
        log.warning("%d of %d replicas are unstable before the first step", unstable, dynamics.replicas)
    return state


def evaluate(
    config: SimulateConfig,
    resume: bool = False,
    overwrite: bool = False,
    stop_requested: Callable[[], bool] = never,
    debug: bool = False,
) -> bool:
    """Evaluate the force field that `eval_model` names; False where it was stopped before its end."""
    out_dir = config.run_path / "inference" / config.eval_model
    checkpoint = assembly.evaluated_checkpoint(config, config.eval_model, debug)
    check_folder(out_dir, config, resume, overwrite)
    memory.set_budget_GB(config.memory_budget_GB)
    data = assembly.dataset(config.data)
    with mistakes_in_the_configuration():
        evaluation = _evaluation(config, data, checkpoint, out_dir)
    inputs = inputs_of(config, _datasets(config, test=True, contiguous=bool(config.dynamical_observables)))
    with open_folder(out_dir, config, resume, overwrite, inputs) as run:
        evaluation.run_identity, evaluation.is_older_run = run.identity, run.is_older
        log.info(
            "evaluating %s: %d replicas for %g ps at %g K",
            *(checkpoint, config.dynamics.replicas, config.horizon_ps, config.dynamics.temperature_K),
        )
        if resume:
            evaluation.resume_from(out_dir / "state.pt")
        with _writer(out_dir, config, evaluation.epoch + 1) as writer:
            if not evaluation.run(writer, stop_requested):
                return False
        _write_results(evaluation, config, data, checkpoint, out_dir)
    return True


def _write_results(
    evaluation: Evaluation, config: SimulateConfig, data: Dataset, checkpoint: Path, out_dir: Path
) -> None:
    """Metrics, arrays, figures and the table of a finished evaluation."""
    errors = errors_on(evaluation.force_field, evaluation.stretch.system, data.test, batch_size=100)
    summary = metrics.final_metrics(evaluation, errors, config.eval_model, config.dynamics.temperature_K)
    metrics.write_json(out_dir / "final_metrics.json", {"checkpoint": checkpoint.as_posix(), **summary})
    metrics.save_arrays(out_dir, evaluation)
    report.draw(out_dir, {config.eval_model: read_results(out_dir)})
    log.info("%s\n%s", out_dir / "final_metrics.json", metrics.table({config.eval_model: summary}))


def _evaluation(config: SimulateConfig, data: Dataset, checkpoint: Path, out_dir: Path) -> Evaluation:
    system = data.system().to(assembly.device(config.cpu))
    force_field = assembly.saved_force_field(config.model, checkpoint).to(system.masses.device)
    if reason := force_field.why_undetermined(system):
        log.warning("energy errors are off by an unknown constant: %s", reason)
    stretch = replace(assembly.stretch(config, system, data), prior=assembly.prior(config, system, data))
    reference_data = assembly.dataset(config.data, config.reference_size)
    structural = assembly.compared_structural(config, system, reference_data)
    return Evaluation(
        force_field,
        stretch,
        _start(config, stretch, force_field, data.test),
        structural | assembly.compared_energy(config, system, reference_data, force_field),
        assembly.compared_dynamical(config, system, data),
        assembly.plan(config),
        out_dir,
        torch.Generator(system.masses.device).manual_seed(config.seed),
        _sha256(checkpoint),
    )


def compare(run_dirs: Sequence[Path], before: str, after: str) -> None:
    """Compare evaluations before and after training, in one or several run folders, as one table and set of figures."""
    log.info("%s against %s\n%s", after, before, report.compare(run_dirs, before, after))


# ----------------------------------------------------------------------------------------------------------- pieces


@contextmanager
def mistakes_in_the_configuration() -> Iterator[None]:
    """Turn errors during assembly (such as bins that do not fit the range) into errors of the configuration."""
    try:
        yield
    except (ConfigError, DatasetError, UnknownSpeciesError):
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def _a_model_that_can_be_built() -> Iterator[None]:
    """Sizes of layers that each are valid may still make no model, or one that no memory holds."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, IndexError, MemoryError, RuntimeError, ValueError) as error:
        raise ConfigError(f"model: cannot be built with these values ({one_line(error, 200)})") from error


def check_readable(data: Dataset) -> None:
    """Read every labeled split, so that a damaged file is found before a fit and not at its end."""
    log.debug("%d training, %d validation, %d test frames", len(data.train), len(data.val), len(data.test))


def _writer(folder: Path, config: PretrainConfig | RunConfig, purge_step: int) -> ScalarWriter:
    wandb = None
    if config.wandb is not None:
        wandb = {"project": config.wandb.project, "mode": config.wandb.mode, "name": folder.name}
    return ScalarWriter(folder, config.model_dump(mode="json"), wandb, purge_step)


def _provenance(data: Dataset) -> dict[str, Any]:
    """Origin of a force field, for its checkpoint."""
    return {
        "mdsim_version": mdsim.__version__,
        "data": "/".join(data.folder.parts[-3:]),
        "level_of_theory": data.metadata.level_of_theory,
        "n_train": len(data.train),
    }


def _datasets(config: RunConfig, **others: bool) -> list[tuple[Dataset, list[str]]]:
    """The data set of a run and the one of its references, each with the names of the files that are read of it."""
    read = {"train": True, "reference": config.reference_run, **others}
    sizes = dict.fromkeys((config.data.size, config.reference_size or config.data.size))
    return [(assembly.dataset(config.data, size), [name for name in read if read[name]]) for size in sizes]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
