"""Saving of force fields: self-contained checkpoints, and files of the package that a model comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.errors import ConfigError
from mdsim.force_field import ForceField
from mdsim.models.loading import model_config
from mdsim.models.registry import MODELS
from mdsim.plugins import resolve


def save_force_field(
    force_field: ForceField, path: str | os.PathLike, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a force field so that `load_force_field` builds it again.

    Args:
        force_field: one of `mdsim.models.MODELS`, or made by a factory.
        path: path of the checkpoint.
        provenance: numbers and text that document the origin of the weights.

    Raises:
        CheckpointError: the file could not be written. An earlier file is unchanged.
        ValueError: the model has no name by which it could be rebuilt.
    """
    save_atomically(path, force_field_payload(force_field, model_config(force_field), dict(provenance or {})))


def save_native(force_field: ForceField, path: str | os.PathLike) -> None:
    """Write a force field of another package as a file of that package, with which its own programs run it.

    Args:
        force_field: a model of `mdsim.models.adapters`.
        path: path of the file. An earlier one is replaced once the new one is complete.

    Raises:
        ConfigError: the model is of this package, or has a repulsion, which the other package does not know.
    """
    record = MODELS.get(model_config(force_field)["name"])
    if record is None or record.foreign is None or not record.is_foreign:
        raise ConfigError(f"{type(force_field).__name__} is not a model of another package: its format is mdsim's own")
    if force_field.repulsion is not None:
        raise ConfigError(f"{record.foreign.package} does not know the repulsion that was added to the model")
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        resolve(record.foreign.writer, f"model {record.name!r}")(force_field, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
