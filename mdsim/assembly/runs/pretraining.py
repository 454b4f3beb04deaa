"""Pretraining: the fit of a force field to energies and forces, and the validation of a fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from ase.data import chemical_symbols

from mdsim import assembly
from mdsim.assembly.inputs import inputs_of
from mdsim.assembly.resume import resume_training
from mdsim.assembly.run_folder import check_folder, open_folder
from mdsim.assembly.runs.common import never, provenance, scalar_writer
from mdsim.config.schema import OptimizationConfig, PretrainConfig, PretrainDataConfig
from mdsim.datasets.folder import Dataset
from mdsim.datasets.sources.isolated_atoms import binding_energy_eV, described, doubt
from mdsim.errors import ConfigError, UserError, one_line
from mdsim.evaluation import files, report
from mdsim.evaluation.errors import errors_on
from mdsim.force_field import ForceField
from mdsim.reference_energies import by_number
from mdsim.reporting.console import format_table
from mdsim.training.pretrain import FitSettings, Pretraining

log = logging.getLogger("mdsim")


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
    trainer = build_pretraining(config, data, folder)
    inputs = inputs_of(config, [(data, ("train", "val", "test"))])
    with open_folder(folder, config, resume, overwrite, inputs) as run:
        trainer.provenance["run"] = run.identity
        if resume:
            resume_training(trainer, folder / "checkpoints" / "last.pt", run)
        begun = bool(trainer.progress.history)  # the validation at its last step was written, and is not repeated
        with scalar_writer(folder, config, trainer.progress.step + 1 if begun else 0) as writer:
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
    system = data.system().to(assembly.device(config.cpu))
    model = assembly.saved_force_field(config.model, checkpoint).to(system.masses.device, system.masses.dtype)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    errors = {
        name: {"frames": len(frames), **errors_on(model, system, frames, config.optim.eval_batch_size)}
        for name, frames in splits.items()
    }
    keys = list(errors["test"])
    rows = [[name, *(f"{errors[name][key]:.4g}" for key in keys)] for name in errors]
    log.info("errors of %s\n%s", checkpoint, format_table(["split", *keys], rows))
    if write:
        files.write_json(checkpoint.parents[1] / "metrics.json", {**provenance(data), **errors})


def build_pretraining(config: PretrainConfig, data: Dataset, folder: Path) -> Pretraining:
    torch.manual_seed(config.seed)
    system = data.system().to(assembly.device(config.cpu))
    with _a_model_that_can_be_built():
        model = assembly.force_field(config.model, sorted(set(system.atomic_numbers.tolist())))
    assembly.train_only(model, config.trainable)
    assembly.add_repulsion(model, config.model, system, data.train)
    _set_atomic_energies(model, data, config.data)
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
        pretrained=config.model.checkpoint is not None,
        provenance=provenance(data) | {"seed": config.seed},
    )


def _set_atomic_energies(model: ForceField, data: Dataset, config: PretrainDataConfig) -> None:
    """Begin with the energies of isolated atoms, where they are known. The fit to the frames keeps them."""
    given = config.atomic_energies_eV
    known = data.metadata.atomic_energies_eV if given is None else given
    present = {chemical_symbols[number] for number in data.metadata.atomic_numbers}
    atoms = {symbol: energy for symbol, energy in known.items() if symbol in present}
    if not atoms:
        return
    model.fit_energy_zero([], torch.zeros(0, dtype=torch.float64), by_number(atoms))
    log.info("energies of isolated atoms, %s: %s", "of metadata.json" if given is None else "given", described(atoms))
    binding_eV = binding_energy_eV(data.train.atomic_numbers.numpy(), data.train.energy.numpy(), atoms)
    if (warning := doubt(binding_eV)) is not None:
        log.warning("data.atomic_energies_eV: %s", warning)


def _fit_settings(optim: OptimizationConfig) -> FitSettings:
    names = FitSettings.__dataclass_fields__.keys() - {"optimizer"}
    return FitSettings(assembly.optimizer_settings(optim), **{name: getattr(optim, name) for name in names})


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
