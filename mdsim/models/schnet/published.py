"""Reader for SchNet checkpoints published with the StABlE paper (Raja et al., arXiv 2402.13984).

The checkpoints hold PyTorch Geometric's parameter names with the prefix ``module.``, the hyperparameters (under
``config.model_attributes`` in pretrained ones, ``config.model`` in StABlE-trained ones) and the normalization of the
labels: total energy = std · network + mean. The species seen in training are not recorded. The name of the molecule is,
and the mean belongs to its atoms.
"""

from __future__ import annotations

import os
from typing import Any

from mdsim.checkpoints import read
from mdsim.errors import CheckpointError
from mdsim.models.published_molecules import numbers_of
from mdsim.models.schnet.model import SchNet
from mdsim.models.schnet.record import PREFIX, is_published_schnet

_HYPERPARAMETERS = ("hidden_channels", "num_filters", "num_interactions", "num_gaussians", "cutoff")
_NOT_WEIGHTS = {"atomic_mass"}  # a table that PyTorch Geometric uses for dipole moments only


def read_published_schnet(path: str | os.PathLike) -> SchNet:
    """A published SchNet checkpoint, before or after StABlE training.

    Args:
        path: ``best_checkpoint.pt`` or ``ckpt.pt``.

    Returns:
        The model, float32, in evaluation mode, with the mean energy of its training set as the zero of energy.

    Raises:
        CheckpointError: the file is missing, truncated, or of another format.
    """
    payload = read(path)
    if not is_published_schnet(payload):
        raise CheckpointError(
            f"{path} is not a published SchNet checkpoint: it has the keys {sorted(map(str, payload))}"
        )
    return published_schnet(payload, path)


def published_schnet(payload: dict[str, Any], path: str | os.PathLike) -> SchNet:
    """The model in the content of a published checkpoint; ``path`` is for error messages."""
    config = payload["config"]
    settings = config["model_attributes"] if "model_attributes" in config else config["model"]
    missing = [name for name in _HYPERPARAMETERS if name not in settings]
    if missing:
        raise CheckpointError(f"{path} does not state the model's {', '.join(missing)}")
    mean, std = _normalization(payload)
    model = SchNet(**{name: settings[name] for name in _HYPERPARAMETERS}, energy_shift_eV=mean, energy_scale=std)

    weights = {name.removeprefix(PREFIX): value for name, value in payload["state_dict"].items()}
    weights = {name: value for name, value in weights.items() if name not in _NOT_WEIGHTS}
    own = {name: model.get_buffer(name) for name in ("species", "energy_shift_eV", "energy_scale")}
    try:
        model.load_state_dict({**weights, **own})
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit the SchNet it describes: {error}") from error
    if (numbers := numbers_of(_dataset(payload).get("molecule"))) is not None:
        model.record_composition(numbers)
    return model.eval()


def _normalization(payload: dict[str, Any]) -> tuple[float, float]:
    """Mean (eV) and standard deviation of the energy labels.

    The mean is read from the config if possible. The float32 tensor in the checkpoint is 0.8 meV off at -17,638 eV.
    """
    target = payload["normalizers"]["target"]
    return float(_dataset(payload).get("target_mean", target["mean"])), float(target["std"])


def _dataset(payload: dict[str, Any]) -> dict[str, Any]:
    """The settings of the training set."""
    datasets = payload["config"]["dataset"]
    return datasets[0] if isinstance(datasets, list) else datasets
