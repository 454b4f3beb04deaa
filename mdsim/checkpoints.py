"""Checkpoint files: written whole or not at all, read without pickle, refused when they are not what they should be.

Every file is a dictionary that `torch.load(weights_only=True)` can read:

    format    "mdsim"
    version   1
    kind      one of `KINDS`
    ...       what the kind needs; a force field has `model` (name and hyperparameters), `state_dict` and `provenance`
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from mdsim.errors import CheckpointError
from mdsim.force_field import ForceField

FORMAT = "mdsim"
VERSION = 1
KINDS = ("force_field", "pretraining", "stable_training", "evaluation", "frames")


def new_payload(kind: str, **content: Any) -> dict[str, Any]:
    """The content of a checkpoint under the header of this format.

    Args:
        kind: one of `KINDS`.
        content: tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of checkpoint {kind!r}: use one of {', '.join(KINDS)}")
    return {"format": FORMAT, "version": VERSION, "kind": kind, **content}


def force_field_payload(model: ForceField, model_config: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """A force field that `mdsim.models.load_force_field` builds again without further files.

    Args:
        model: the weights to keep.
        model_config: ``name`` in `mdsim.models.MODELS`, and the hyperparameters (`mdsim.models.model_config`).
        provenance: where the weights come from, for people: data set, seed, metrics, version.
    """
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return new_payload("force_field", model=dict(model_config), state_dict=state, provenance=dict(provenance))


def save_atomically(path: str | os.PathLike, payload: dict[str, Any]) -> None:
    """Write a checkpoint so that after a crash at any moment ``path`` holds the old file or the new one, whole.

    Raises:
        CheckpointError: the file could not be written (a full disk, no permission); the old one is untouched.
    """
    path = Path(path)
    # To memory first: a disk that fills up in the middle of `torch.save` can abort the process from its destructor.
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} was not written ({error.strerror}); an earlier file of that name is unchanged. "
            f"Free {len(buffer.getbuffer()) / 1e6:.1f} MB there or choose another folder, then resume."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The dictionary in a file written by `torch.save`, of this or another program, with tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, holds objects other than tensors and plain data, or is
            nothing that `torch.save` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: check the path")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of any kind make the unpickler raise errors of any kind
        raise CheckpointError(
            f"{path} is truncated, or no checkpoint of tensors and plain data: copy it again or use another one "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}, not a dictionary: it is no checkpoint")
    return payload


def load(path: str | os.PathLike, kind: str | None = None) -> dict[str, Any]:
    """Read a checkpoint of this package, with tensors on the CPU; of the given kind, where there is one.

    Raises:
        CheckpointError: as `read`, or the file is of another program or of another version of the format.
    """
    payload = read(path)
    if payload.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by mdsim (it has the keys {sorted(map(str, payload))[:8]})")
    if payload.get("version") != VERSION or payload.get("kind") not in KINDS:
        raise CheckpointError(
            f"{path} has version {payload.get('version')!r} and kind {payload.get('kind')!r}; this release reads "
            f"version {VERSION} and the kinds {', '.join(KINDS)}: use the release that wrote it"
        )
    if kind is not None and payload["kind"] != kind:
        raise CheckpointError(f"{path} is a checkpoint of kind {payload['kind']!r}, and {kind!r} is needed")
    return payload


def generator_state(generator: torch.Generator) -> dict[str, Any]:
    """What a checkpoint keeps of a random number generator."""
    return {"device": str(generator.device), "state": generator.get_state()}


def restore_generator(saved: dict[str, Any]) -> torch.Generator:
    """A generator that continues the stream saved by `generator_state`."""
    generator = torch.Generator(saved["device"])
    generator.set_state(saved["state"])
    return generator
