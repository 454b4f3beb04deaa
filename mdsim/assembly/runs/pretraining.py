"""Pretraining: the fit of a force field to energies and forces, and the validation of a fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from ase.data import chemical_symbols

from mdsim import assembly, distributed
from mdsim.assembly.inputs import inputs_of
from mdsim.assembly.resume import resume_training
from mdsim.assembly.run_folder import check_folder, open_folder
from mdsim.assembly.runs.common import never, provenance, scalar_writer
from mdsim.assembly.runs.fit_reports import as_table, errors_of_fit, left_out
from mdsim.config.schema import OptimizationConfig, PretrainConfig, PretrainDataConfig
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.datasets.sources.isolated_atoms import binding_energy_eV, described, doubt
from mdsim.errors import ConfigError, DatasetError, UserError, one_line
from mdsim.evaluation import files, report
from mdsim.force_field import ForceField
from mdsim.reference_energies import by_number
from mdsim.reporting.console import finished
from mdsim.reporting.live import waiting
from mdsim.training.fit_data import FitData, OneSystem
from mdsim.training.mixed_fit import MixedFit
from mdsim.training.pretrain import FitSettings, Pretraining

log = logging.getLogger("mdsim")

METRICS = "metrics.json"


def pretrain(
    config: PretrainConfig,
    resume: bool = False,
    overwrite: bool = False,
    stop_requested: Callable[[], bool] = never,
) -> bool:
    """Fit a force field, then report its errors; False where it was stopped before its end."""
    if distributed.n_ranks() > 1:
        raise ConfigError("a fit runs in one process: start it without torchrun, and then its StABlE training with it")
    folder = assembly.pretraining_run_path(config)
    check_folder(folder, config, resume, overwrite)
    with waiting("reading the data"):
        data = fitted_data(config)
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
        with waiting("drawing the curves"):
            report.draw_training(folder)
        best = folder / "checkpoints" / "best_checkpoint.pt"
        report_fit(config, data, best)
        finished(
            f"fitted: {trainer.progress.epoch} epochs",
            {
                best: "the force field with the lowest validation loss",
                folder / METRICS: "its errors",
                folder / report.TRAINING: "curves of the fit",
            },
        )
    return True


def validate(config: PretrainConfig, checkpoint: Path | None = None) -> None:
    """Report the errors of an existing fit."""
    folder = assembly.pretraining_run_path(config)
    report_fit(config, fitted_data(config), checkpoint or folder / "checkpoints" / "best_checkpoint.pt", False)


def fitted_data(config: PretrainConfig) -> Dataset | MixedDataset:
    """The frames of one composition, if the configuration names one, otherwise all of the data set."""
    return assembly.labeled_data(config.data) if config.data.composition is None else assembly.dataset(config.data)


def report_fit(config: PretrainConfig, data: Dataset | MixedDataset, checkpoint: Path, write: bool = True) -> None:
    """Errors on every split as a table, and in the run's `metrics.json`."""
    model = assembly.saved_force_field(config.model, checkpoint)
    optim = config.optim
    with waiting("errors of the fit"):
        errors = errors_of_fit(model, data, optim.eval_batch_size, config.device_name, optim.max_test_frames)
    log.info("errors of %s%s\n%s", checkpoint, left_out(errors), as_table(errors))
    if write:
        files.write_json(checkpoint.parents[1] / METRICS, {**provenance(data), **errors})


def build_pretraining(config: PretrainConfig, data: Dataset | MixedDataset, folder: Path) -> Pretraining:
    torch.manual_seed(config.seed)
    device = assembly.device(config.device_name)
    with _a_model_that_can_be_built():
        model = assembly.force_field(config.model, sorted(set(data.train.atomic_numbers.tolist())))
    assembly.train_only(model, config.trainable)
    if isinstance(data, MixedDataset):
        assembly.add_repulsion_of_several(model, config.model, data.train)
    else:
        assembly.add_repulsion(model, config.model, data.system().to(device), data.train)
    has_atoms = _set_atomic_energies(model, data, config.data)
    return Pretraining(
        model,
        _fit_data(config, data, device, has_atoms),
        _fit_settings(config.optim),
        folder,
        seed=config.seed,
        amp=config.amp,
        pretrained=config.model.checkpoint is not None,
        provenance=provenance(data) | {"seed": config.seed},
    )


def _fit_data(config: PretrainConfig, data: Dataset | MixedDataset, device: torch.device, has_atoms: bool) -> FitData:
    """The labeled frames with their loss: of one system, or of several compositions or with stresses."""
    optim = config.optim
    weights = optim.energy_coefficient, optim.force_coefficient
    if isinstance(data, Dataset) and not optim.stress_coefficient:
        loss = assembly.energy_force_loss(optim.loss, *weights, optim.energy_per_atom)
        return OneSystem(data.system().to(device), data.train, data.val, loss)
    train, val = (assembly.mixed_split(data, name) for name in ("train", "val"))
    if optim.stress_coefficient and not train.has_stress.any():
        raise ConfigError(f"optim.stress_coefficient: no training frame of {data.folder} has a stress; set it to 0")
    per_atom = optim.energy_per_atom or len(train.compositions) > 1
    mixed_loss = assembly.mixed_loss(optim.loss, *weights, optim.stress_coefficient, per_atom)
    return MixedFit(train, val, mixed_loss, torch.zeros(0, device=device), has_atoms)


def _set_atomic_energies(model: ForceField, data: Dataset | MixedDataset, config: PretrainDataConfig) -> bool:
    """Begin with the energies of isolated atoms, where they are known. The fit to the frames keeps them.

    Returns:
        Whether any are known.
    """
    given = config.atomic_energies_eV
    known = data.metadata.atomic_energies_eV if given is None else given
    present = {chemical_symbols[number] for number in data.metadata.atomic_numbers}
    atoms = {symbol: energy for symbol, energy in known.items() if symbol in present}
    if not atoms:
        return False
    model.fit_energy_zero([], torch.zeros(0, dtype=torch.float64), by_number(atoms))
    log.info("energies of isolated atoms, %s: %s", "of metadata.json" if given is None else "given", described(atoms))
    if (warning := doubt(_binding_energy_eV(assembly.mixed_split(data, "train"), atoms))) is not None:
        log.warning("data.atomic_energies_eV: %s", warning)
    return True


def _binding_energy_eV(frames: MixedFrames, atoms: Mapping[str, float]) -> float | None:
    """Mean binding energy per atom over frames of all compositions of known atoms."""
    bound = zip(frames.numbers_of_frames, frames.energy[:, None], strict=True)
    of_frames = [binding_energy_eV(numbers.numpy(), energy.numpy(), atoms) for numbers, energy in bound]
    known = [binding for binding in of_frames if binding is not None]
    return sum(known) / len(known) if known else None


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


def check_readable(data: Dataset | MixedDataset) -> None:
    """Read every labeled split, so that a fault is found before a fit and not at its end.

    Raises:
        DatasetError: a file is damaged, or has elements that no training frame has.
    """
    known = set(data.train.atomic_numbers.tolist())
    for name, frames in {"val": data.val, "test": data.test}.items():
        if new := sorted(set(frames.atomic_numbers.tolist()) - known):
            symbols = ", ".join(chemical_symbols[number] for number in new)
            raise DatasetError(
                f"{data.folder}: {name} has frames of {symbols}, and no training frame has; convert with another --seed"
                " or a larger --size, or leave these frames out"
            )
    log.debug("%d training, %d validation, %d test frames", len(data.train), len(data.val), len(data.test))
