"""Saving of force fields to self-contained checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.force_field import ForceField
from mdsim.models.loading import model_config


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
