"""The force fields of this package, by their names in configurations and checkpoints.

A model's module and the packages it needs are imported when the model is first used. `from mdsim.models import NequIP`
imports e3nn; `from mdsim.models import MODELS` does not even import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mdsim.models.registry import MODELS

if TYPE_CHECKING:
    from mdsim.models.loading import load_force_field, model_config

__all__ = ["MODELS", "load_force_field", "model_config"]


def __getattr__(name: str) -> Any:
    """Import on first use the class of a model, or a function that needs torch."""
    if name in ("load_force_field", "model_config"):
        return getattr(import_module("mdsim.models.loading"), name)
    for record in MODELS.values():
        if record.class_name == name:
            return record.model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "load_force_field", "model_config", *(record.class_name for record in MODELS.values())]
