"""Export to the package that a model comes from: a file of MACE, SevenNet or nequip."""

from __future__ import annotations

from pathlib import Path

from mdsim.export.registry import Order
from mdsim.models.loading import load_force_field
from mdsim.models.saving import save_native


def write(order: Order) -> list[Path]:
    """Write the file.

    Raises:
        CheckpointError: the checkpoint holds no force field.
        ConfigError: the model is of this package, or has a repulsion.
    """
    save_native(load_force_field(order.checkpoint, order.allow_factory), order.output)
    return [order.output]
