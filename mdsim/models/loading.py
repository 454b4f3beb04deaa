"""From a checkpoint file to a force field, whoever wrote it."""

from __future__ import annotations

import os
from typing import Any

import torch

from mdsim import checkpoints
from mdsim.checkpoints import CheckpointError
from mdsim.interfaces import ForceField
from mdsim.models.gemnet.model import GemNetT
from mdsim.models.gemnet.published import is_published_gemnet, published_gemnet
from mdsim.models.nequip import NequIP
from mdsim.models.nequip_published import is_published_nequip, published_nequip
from mdsim.models.published import is_published_schnet, published_schnet
from mdsim.models.schnet import SchNet

MODELS: dict[str, type[ForceField]] = {"gemnet_t": GemNetT, "nequip": NequIP, "schnet": SchNet}


def model_config(model: ForceField) -> dict[str, Any]:
    """The name of a model and its hyperparameters: what a checkpoint keeps besides the weights."""
    names = [name for name, cls in MODELS.items() if type(model) is cls]
    if not names:
        raise ValueError(f"{type(model).__name__} is not registered in mdsim.models.MODELS")
    return {"name": names[0], **model.hyperparameters}


def load_force_field(path: str | os.PathLike) -> ForceField:
    """The force field in a checkpoint of this package, or in one published with the StABlE paper.

    Args:
        path: the file; which of the two it is shows in its content.

    Returns:
        The force field on the CPU in evaluation mode, with the floating-point type that it was saved with.

    Raises:
        CheckpointError: the file is missing, truncated or foreign, or holds no force field.
    """
    payload = checkpoints.read(path)
    if is_published_schnet(payload):
        return published_schnet(payload, path)
    if is_published_nequip(payload):
        return published_nequip(payload, path)
    if is_published_gemnet(payload):
        return published_gemnet(payload, path)
    payload = checkpoints.load(path)
    if "model" not in payload or "state_dict" not in payload:
        raise CheckpointError(f"{path} is a checkpoint of kind {payload['kind']!r} that holds no force field")
    return _build(payload["model"], payload["state_dict"], path)


def _build(config: dict[str, Any], state: dict[str, torch.Tensor], path: str | os.PathLike) -> ForceField:
    hyperparameters = {key: value for key, value in config.items() if key != "name"}
    if config.get("name") not in MODELS:
        raise CheckpointError(f"{path} holds a model {config.get('name')!r}; this release knows {sorted(MODELS)}")
    try:
        model = MODELS[config["name"]](**hyperparameters, species=state["species"].tolist())
        model.to(state[next(name for name, _ in model.named_parameters())].dtype)
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"the weights in {path} do not fit the model it describes, {config}: {error}") from error
    return model.eval()
