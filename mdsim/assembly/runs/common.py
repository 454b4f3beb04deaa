"""Shared by all runs: their scalars, the provenance of their checkpoints, the start of their replicas, errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import mdsim
from mdsim import assembly, distributed
from mdsim.assembly.inputs import flat
from mdsim.config.schema import DataConfig, PretrainConfig, RunConfig, StatePointConfig
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.dynamics.state_points import StatePoint, begin
from mdsim.dynamics.stretch import Stretch
from mdsim.errors import ConfigError, DatasetError, UnknownSpeciesError
from mdsim.evaluation.provenance import commit
from mdsim.force_field import ForceField
from mdsim.reporting.live import COMPILES, waiting
from mdsim.reporting.scalars import ScalarWriter
from mdsim.state import MDState

log = logging.getLogger("mdsim")


def never() -> bool:
    """No request to stop."""
    return False


@contextmanager
def mistakes_in_the_configuration() -> Iterator[None]:
    """Turn errors during assembly (such as bins that do not fit the range) into errors of the configuration."""
    try:
        yield
    except (ConfigError, DatasetError, UnknownSpeciesError):
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def scalar_writer(folder: Path, config: PretrainConfig | RunConfig, purge_step: int) -> ScalarWriter:
    """The scalars of a run, without those that an earlier process wrote from ``purge_step`` on."""
    wandb = None
    if config.wandb is not None and distributed.rank() == 0:
        wandb = {"project": config.wandb.project, "mode": config.wandb.mode, "name": folder.name}
    values = config.model_dump(mode="json")
    return ScalarWriter(folder, values, wandb, purge_step, flat(values))


def provenance(data: Dataset | MixedDataset) -> dict[str, Any]:
    """Origin of a force field, for its checkpoint."""
    return {
        "mdsim_version": mdsim.__version__,
        "commit": commit(),
        "data": "/".join(data.folder.parts[-3:]),
        "level_of_theory": data.metadata.level_of_theory,
        "n_train": len(data.train),
    }


def datasets_of(config: RunConfig, **others: bool) -> list[tuple[Dataset, list[str]]]:
    """The data sets of a run and those of its references, each with the names of the files that are read of it."""
    read = {"train": True, "reference": config.reference_run, **others}
    found: dict[Path, Dataset] = {}
    for section, size in [(config.data, None), *(pair for p in config.points for pair in _sections(config, p))]:
        data = assembly.dataset(section, size)
        found.setdefault(data.folder, data)
    return [(data, [name for name in read if read[name]]) for data in found.values()]


def _sections(config: RunConfig, point: StatePointConfig) -> list[tuple[DataConfig, str | None]]:
    """The data sections of a state point with their sizes: of its initial positions, and of its references."""
    section, size = assembly.reference_of(config, point)
    return [(section, None), (section, size)]


def starting_state(
    config: RunConfig,
    stretch: Stretch,
    force_field: ForceField,
    points: Sequence[StatePoint],
    meant_to_break: bool = False,
) -> MDState:
    """The initial state of the replicas, at structures of their state points, after a first check of stability."""
    dynamics, generator = config.dynamics, torch.Generator().manual_seed(config.seed)
    with waiting(f"first forces; {COMPILES}"):
        state = begin(points, dynamics.replicas, force_field, stretch, generator)
    unstable = int(stretch.judge(state).unstable.sum())
    if unstable and not meant_to_break:
        log.warning("%d of %d replicas are unstable before the first step", unstable, dynamics.replicas)
    return state
