"""Force fields built from a configuration, new or from a checkpoint, and their device."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from mdsim.assembly.checkpoint_paths import starting_file
from mdsim.config.schema import CustomModelConfig, CustomModelReference, ModelConfig, ModelReference
from mdsim.datasets.npz import Frames
from mdsim.distributed.launch import local_rank
from mdsim.errors import ConfigError
from mdsim.force_field import ForceField
from mdsim.models import repelled
from mdsim.models.custom import custom_force_field
from mdsim.models.loading import load_force_field
from mdsim.models.registry import MODELS
from mdsim.repulsion.windows import zbl_from_frames
from mdsim.repulsion.zbl import ZBL, Window, parsed
from mdsim.state import System

log = logging.getLogger("mdsim")


def device(name: str | None = None) -> torch.device:
    """The device of a name such as ``cpu`` or ``cuda:1``. None: the GPU of this rank if there is one.

    Raises:
        ConfigError: there is no such GPU.
    """
    if name is None:
        return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    chosen = torch.device(name)
    if chosen.type == "cpu":
        return chosen
    index, found = chosen.index or 0, torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= found:
        there = f"cuda:0 to cuda:{found - 1}" if found else "no GPU that torch can use (see `mdsim doctor`)"
        raise ConfigError(f"device: found {name}, and this machine has {there}; choose another one or leave it out")
    return torch.device("cuda", index)


def force_field(config: ModelConfig, species: Sequence[int]) -> ForceField:
    """A force field for a fit: that of its checkpoint, or one with random weights from torch's global generator."""
    if (checkpoint := starting_file(config)) is not None:
        return saved_force_field(config, checkpoint)
    if isinstance(config, CustomModelConfig):
        return custom_force_field(config.factory, config.options, species, "model")
    return MODELS[config.name].build(species, **config.hyperparameters)


def train_only(model: ForceField, patterns: Sequence[str] | None) -> None:
    """Freeze the parameters that the configuration does not name. None: all are trained.

    Raises:
        ConfigError: a pattern matches no parameter.
    """
    if patterns is None:
        return
    try:
        model.freeze_all_but(patterns)
    except ValueError as error:
        raise ConfigError(f"trainable: {error}") from error


def saved_force_field(config: ModelConfig | ModelReference, checkpoint: str | os.PathLike) -> ForceField:
    """The force field in a checkpoint, or in a file of the package of the model.

    A custom factory is called only if the configuration names it, and a file is unpickled only if it says so.
    """
    if isinstance(config, CustomModelConfig | CustomModelReference):
        return load_force_field(checkpoint, config.factory)
    return load_force_field(checkpoint, model=config.name, options=config.options, allow_unpickling=config.may_unpickle)


def run_force_field(config: ModelReference, checkpoint: Path, system: System, labeled: Frames) -> ForceField:
    """The force field of a run, on the device and in the precision of the system, with the repulsion of the section.

    A file that the section names can be fitted to labels on another scale. Its zero of energy is then that of the
    labeled frames.
    """
    model = saved_force_field(config, checkpoint).to(system.masses.device, system.masses.dtype)
    add_repulsion(model, config, system, labeled)
    if checkpoint == starting_file(config):
        log_recentering(model.recenter(system, labeled.positions, labeled.energy))
    return model


def log_recentering(moved_eV: float) -> None:
    """Log a shift of the zero of energy."""
    log.info("the zero of energy was set from the training frames: it moved by %+.3f eV", moved_eV)


def add_repulsion(model: ForceField, config: ModelConfig | ModelReference, system: System, frames: Frames) -> None:
    """Add to a force field the repulsion that its section asks for, with windows from the frames where none are given.

    A repulsion that a checkpoint brings along stays as it is, because the parameters belong to it.

    Raises:
        ConfigError: the section does not fit the system, the cutoff, or the repulsion that is there already.
    """
    add_repulsion_with_windows(model, config, lambda *rule: zbl_from_frames(system, frames.positions, *rule))


def add_repulsion_with_windows(
    model: ForceField, config: ModelConfig | ModelReference, from_data: Callable[..., ZBL]
) -> None:
    """The same, with windows from any data.

    Args:
        model: the force field.
        config: its section.
        from_data: makes the repulsion, from the cutoff (Å), the selection of pairs, the elements and the given windows.

    Raises:
        ConfigError: see `add_repulsion`.
    """
    wanted = config.repulsion
    if wanted is None:
        return
    try:
        given = parsed(wanted.windows_A)
        if model.repulsion is not None:
            _check_kept(model.repulsion, wanted.pairs, given)
            return
        repulsion = from_data(model.cutoff, wanted.pairs, model.species.tolist(), given)
        repelled.add_repulsion(model, repulsion)
    except ValueError as error:
        raise ConfigError(f"model.repulsion: {error}") from error
    log.info("repulsion of nuclei (ZBL), pairs: %s, %s", wanted.pairs, repulsion)


def _check_kept(saved: ZBL, selection: str, given: dict[tuple[int, int], Window]) -> None:
    """Raise an error if the repulsion of a checkpoint is not the one that a section asks for."""
    differing = [pair for pair, window in given.items() if dict(saved.windows).get(pair) != window]
    if saved.selection != selection or differing:
        raise ValueError(f"the checkpoint was trained with another one, {saved.settings}; leave the key out to keep it")
