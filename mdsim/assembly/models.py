"""Force fields with new weights, and where they are computed."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from mdsim.config.schema import (
    CustomModelConfig,
    CustomModelReference,
    GemNetTConfig,
    ModelConfig,
    ModelReference,
    NequIPConfig,
    SchNetConfig,
)
from mdsim.errors import ConfigError
from mdsim.force_field import ForceField
from mdsim.models.custom import custom_force_field
from mdsim.models.gemnet import GemNetT
from mdsim.models.loading import load_force_field
from mdsim.models.nequip.model import NequIP
from mdsim.models.schnet.model import SchNet


def device(cpu: bool) -> torch.device:
    """The GPU where there is one, unless the CPU is asked for."""
    return torch.device("cpu" if cpu or not torch.cuda.is_available() else "cuda")


def force_field(config: ModelConfig, species: Sequence[int]) -> ForceField:
    """A new force field with random weights from torch's global generator."""
    match config:
        case SchNetConfig():
            return SchNet(
                hidden_channels=config.hidden_channels,
                num_filters=config.num_filters,
                num_interactions=config.num_interactions,
                num_gaussians=config.num_gaussians,
                cutoff=config.cutoff_A,
                species=tuple(species),
            )
        case NequIPConfig():
            settings = config.model_dump(exclude={"name", "cutoff_A"})
            return NequIP(tuple(species), cutoff=config.cutoff_A, **settings)
        case GemNetTConfig():
            settings = config.model_dump(exclude={"name", "cutoff_A"})
            return GemNetT(species=tuple(species), cutoff=config.cutoff_A, **settings)
        case CustomModelConfig():
            return custom_force_field(config.factory, config.options, species, "model")
    raise ConfigError(f"model.name: {config.name!r} has no force field")


def saved_force_field(config: ModelConfig | ModelReference, checkpoint: str | os.PathLike) -> ForceField:
    """The force field in a checkpoint; a factory outside this package is called if the configuration names it."""
    allowed = config.factory if isinstance(config, CustomModelConfig | CustomModelReference) else None
    return load_force_field(checkpoint, allowed)
