"""Reader for GemNet-T checkpoints of OCP's ``gemnet_t``, including those of the StABlE paper.

A checkpoint holds the parameters, its configuration (the model's part under ``config.model_attributes``,
``config.model`` or ``config`` itself) and, where labels were normalized, by which total energy = std · network + mean.
The published cap on neighbors is not applied. If an atom has more neighbors, energies differ from the published ones.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from mdsim.checkpoints import read
from mdsim.errors import CheckpointError
from mdsim.models.gemnet.model import GemNetT
from mdsim.models.gemnet.record import PUBLISHED_WEIGHT, is_published_gemnet
from mdsim.typing import Tensor

_SIZES = (
    "num_spherical",
    "num_radial",
    "num_blocks",
    "emb_size_atom",
    "emb_size_edge",
    "emb_size_trip",
    "emb_size_rbf",
    "emb_size_cbf",
    "emb_size_bil_trip",
    "num_before_skip",
    "num_after_skip",
    "num_concat",
    "num_atom",
    "cutoff",
)
_DEFAULTS: dict[str, Any] = {
    "rbf": {"name": "gaussian"},
    "envelope": {"name": "polynomial", "exponent": 5},
    "cbf": {"name": "spherical_harmonics"},
}
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "activation": ("silu", "swish"),
    "cbf": ({"name": "spherical_harmonics"},),
    "direct_forces": (False,),
    "extensive": (True,),
    "num_targets": (1,),
}


def read_published_gemnet(path: str | os.PathLike) -> GemNetT:
    """A published GemNet-T checkpoint.

    Args:
        path: the file.

    Returns:
        The model in evaluation mode, with the mean energy of its training set as the zero of energy. The file does not
        say which system that energy belongs to.

    Raises:
        CheckpointError: the file is missing, truncated, of another format, or of a variant that `GemNetT` lacks.
    """
    payload = read(path)
    if not is_published_gemnet(payload):
        raise CheckpointError(
            f"{path} is not a published GemNet-T checkpoint: it has the keys {sorted(map(str, payload))}"
        )
    return published_gemnet(payload, path)


def published_gemnet(payload: dict[str, Any], path: str | os.PathLike) -> GemNetT:
    """The model in the content of a published checkpoint; ``path`` is for error messages."""
    settings = _settings(payload["config"], path)
    mean, std = _normalization(payload)
    weights = _weights(payload["state_dict"], path)
    try:
        model = GemNetT(**settings, energy_shift_eV=mean, energy_scale=std)
        model.to(weights["atom_emb.embeddings.weight"].dtype)
        own = {name: model.get_buffer(name) for name in ("species", "energy_shift_eV", "energy_scale")}
        model.load_state_dict({**weights, **own})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the weights in {path} do not fit the GemNet-T it describes: {error}") from error
    return model.eval()


def _settings(config: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
    """Arguments of `GemNetT`."""
    config = config.get("model_attributes", config.get("model", config))
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} names the model {config!r}, but not its settings")
    if missing := [name for name in _SIZES if name not in config]:
        raise CheckpointError(f"{path} does not state the model's {', '.join(missing)}")
    config = {**_DEFAULTS, **config}
    for key, supported in _SUPPORTED.items():
        if config.get(key, supported[0]) not in supported:
            raise CheckpointError(f"{path}: {key} is {config[key]!r}, and GemNetT here has {supported[0]!r} only")
    settings = {name: config[name] for name in _SIZES}
    settings |= {"rbf": config["rbf"].get("name"), "envelope": config["envelope"].get("name")}
    if "exponent" in config["envelope"]:
        settings["envelope_exponent"] = config["envelope"]["exponent"]
    return settings


def _weights(state: dict[str, Tensor], path: str | os.PathLike) -> dict[str, Tensor]:
    """Parameters by name, without duplicates and constants of the published state.

    Output blocks list the layers of the energy under two names. The centers of the Gaussians are not parameters here.
    """
    prefix = next(name for name in state if name.endswith(PUBLISHED_WEIGHT)).removesuffix(PUBLISHED_WEIGHT)
    weights = {name.removeprefix(prefix): value for name, value in state.items()}
    for name in [name for name in weights if name.startswith("out_blocks.") and ".layers." in name]:
        twin = weights.get(name.replace(".layers.", ".seq_energy."))
        if twin is None or not torch.equal(twin, weights.pop(name)):
            raise CheckpointError(f"{path}: {name} is not the same as the layers of the energy, which it repeats")
    for name in [name for name in weights if name.endswith(".rbf.offset")]:
        centers = weights.pop(name)
        if not torch.allclose(centers, torch.linspace(0.0, 1.0, len(centers), dtype=centers.dtype)):
            raise CheckpointError(f"{path}: the Gaussians of {name} are not evenly spaced from 0 to the cutoff")
    return weights


def _normalization(payload: dict[str, Any]) -> tuple[float, float]:
    """Mean (eV) and standard deviation of the energy labels. They are 0 and 1 if labels were not normalized.

    The mean is read from the data set's configuration if possible. The checkpoint has it in float32 only.
    """
    target = (payload.get("normalizers") or {}).get("target")
    if target is None:
        return 0.0, 1.0
    datasets = payload["config"].get("dataset") or {}
    dataset = datasets[0] if isinstance(datasets, list) else datasets
    return float(dataset.get("target_mean", target["mean"])), float(target["std"])
