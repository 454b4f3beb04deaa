"""Loading of force fields from checkpoints, both those of this package and published ones."""

from __future__ import annotations

import os
from typing import Any

import torch

from mdsim import checkpoints
from mdsim.errors import CheckpointError
from mdsim.force_field import ForceField
from mdsim.models.custom import custom_force_field
from mdsim.models.registry import MODELS

CUSTOM = "custom"


def model_config(model: ForceField) -> dict[str, Any]:
    """The name and hyperparameters of a model, which a checkpoint stores besides the weights."""
    if model.made_by is not None:
        return {"name": CUSTOM, **model.made_by}
    factory = f"{type(model).__module__}:{type(model).__qualname__}"
    names = [name for name, record in MODELS.items() if record.factory == factory]
    if not names:
        raise ValueError(f"{type(model).__name__} is neither in mdsim.models.MODELS nor made by a factory")
    return {"name": names[0], **model.hyperparameters}


def load_force_field(path: str | os.PathLike, allow_factory: str | None = None) -> ForceField:
    """The force field in a checkpoint of this package, or in one published with the StABlE paper.

    Args:
        path: the file. Its format is recognized from its content.
        allow_factory: ``package.module:function`` that may be imported and called to make a custom model, if the file
            asks for it.

    Returns:
        The force field on the CPU in evaluation mode, with the floating-point type that it was saved with.

    Raises:
        CheckpointError: the file is missing, truncated or of another format, holds no force field, or needs a factory
            that is not allowed.
        ConfigError: the factory cannot make the model.
    """
    payload = checkpoints.read(path)
    for record in MODELS.values():
        if record.published is not None and record.published.recognizes(payload):
            return record.read_published(payload, path)
    payload = checkpoints.load(path)
    if "model" not in payload or "state_dict" not in payload:
        raise CheckpointError(f"{path} is a checkpoint of kind {payload['kind']!r} that holds no force field")
    config, state = payload["model"], payload["state_dict"]
    if config.get("name") == CUSTOM:
        _check_allowed(config.get("factory"), allow_factory, path)
    elif config.get("name") not in MODELS:
        raise CheckpointError(f"{path} holds a model {config.get('name')!r}; this release knows {sorted(MODELS)}")
    return _build(config, state, path)


def _check_allowed(needed: Any, allowed: str | None, path: str | os.PathLike) -> None:
    """Refuse factories that the user did not name. A file alone must not cause code to run."""
    if needed != allowed or allowed is None:
        instead = "" if allowed is None else f", not {allowed}"
        raise CheckpointError(
            f"{path} holds a model that {needed} made{instead}; if you trust that code, name it: "
            "`factory` in the model of a configuration, --allow-factory on the command line, allow_factory in Python"
        )


def _build(config: dict[str, Any], state: dict[str, torch.Tensor], path: str | os.PathLike) -> ForceField:
    try:
        species = state["species"].tolist()
        if config["name"] == CUSTOM:
            model = custom_force_field(config["factory"], config["options"], species, str(path))
        else:
            hyperparameters = {key: value for key, value in config.items() if key != "name"}
            model = MODELS[config["name"]].build(species, **hyperparameters)
        model.to(state[next(name for name, _ in model.named_parameters())].dtype)
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"the weights in {path} do not fit the model it describes, {config}: {error}") from error
    return model.eval()
