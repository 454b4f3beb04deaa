"""Force fields built from a configuration, new or from a checkpoint, and their device."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from mdsim.config.schema import CustomModelConfig, CustomModelReference, ModelConfig, ModelReference
from mdsim.errors import ConfigError
from mdsim.force_field import ForceField
from mdsim.models.custom import custom_force_field
from mdsim.models.loading import load_force_field
from mdsim.models.registry import MODELS


def device(cpu: bool) -> torch.device:
    """The GPU if there is one and the CPU is not requested."""
    return torch.device("cpu" if cpu or not torch.cuda.is_available() else "cuda")


def force_field(config: ModelConfig, species: Sequence[int]) -> ForceField:
    """A new force field with random weights from torch's global generator."""
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
    """The force field in a checkpoint. A custom factory is called only if the configuration names it."""
    allowed = config.factory if isinstance(config, CustomModelConfig | CustomModelReference) else None
    return load_force_field(checkpoint, allowed)
