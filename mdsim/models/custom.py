"""Custom force fields, made by a factory that a configuration or a caller names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdsim.errors import ConfigError
from mdsim.force_field import ForceField
from mdsim.plugins import make


def custom_force_field(factory: str, options: Mapping[str, Any], species: Sequence[int], key: str) -> ForceField:
    """A force field made by its factory. It records the factory and the options, so that checkpoints can name them.

    Args:
        factory: ``package.module:function``.
        options: keyword arguments of the factory.
        species: atomic numbers that the model is trained for.
        key: the configuration key that names the factory, for error messages.

    Raises:
        ConfigError: see `mdsim.plugins.make`, or the model has no trainable parameters.
    """
    model = make(ForceField, factory, options, key, species=tuple(species))
    if not model.trainable_parameters:
        raise ConfigError(f"{key}: {factory} returned a {type(model).__name__} without trainable parameters")
    model.made_by = {"factory": factory, "options": dict(options)}
    return model
