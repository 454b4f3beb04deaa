"""Checkpoint files: written atomically, read without pickle, and verified bit for bit.

Every file is a dictionary that `torch.load(weights_only=True)` can read:

    format    "mdsim"
    version   1
    kind      one of `KINDS`
    digest    sha256 of everything else (`mdsim.payloads.digest`); files of earlier releases have none
    ...       what the kind needs; a force field has `model` (name and hyperparameters), `state_dict` and `provenance`
"""

from __future__ import annotations

import io
import logging
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mdsim import payloads
from mdsim.errors import CheckpointError, one_line
from mdsim.force_field import ForceField

FORMAT = "mdsim"
VERSION = 1
LARGEST_CUTOFF_A = 50.0
HEAVIEST = 118
ZIP_START = b"PK\x03\x04"  # of every file that torch has written since version 1.6
KINDS = ("force_field", "pretraining", "stable_training", "evaluation", "frames")

log = logging.getLogger("mdsim")


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
    torch.save({**payload, "digest": payloads.digest(_without_digest(payload))}, buffer)
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


def _without_digest(payload: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != "digest"}


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The dictionary in a file written by `torch.save`, of this or another program, with tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, holds objects other than tensors and plain data, or is
            nothing that `torch.save` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {one_line(path)}: check the path")
    try:
        with path.open("rb") as file:
            verified = _verified(file)
            payload = torch.load(file if verified is None else verified, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of any kind make the unpickler raise errors of any kind
        raise CheckpointError(
            f"{path} is truncated, or no checkpoint of tensors and plain data: copy it again or use another one "
            f"({one_line(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)})"
        ) from error
    if verified is None:
        log.warning("%s is in the format of torch before 1.6, without checksums: a changed bit cannot be noticed", path)
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path} holds a {type(payload).__name__}, not a dictionary: it is no checkpoint")
    return payload


def is_own(payload: dict[str, Any]) -> bool:
    """Whether the content of a file was written by this package, whole or not."""
    return payload.get("format") == FORMAT


def _verified(file: BinaryIO) -> io.BytesIO | None:
    """The archive with checked records under new headers: `torch.load` checks no checksum and trusts every header.

    Returns:
        The archive in memory; None for files older than torch 1.6, which are no archives and have no checksums.

    Raises:
        zipfile.BadZipFile: a record has changed.
    """
    is_archive = file.read(len(ZIP_START)) == ZIP_START
    file.seek(0)
    if not is_archive:
        return None
    anew = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(anew, "w", zipfile.ZIP_STORED) as copy:
        records = archive.infolist()
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                raise zipfile.BadZipFile(f"the record {record.filename!r} is not as torch writes it")
        if len({record.filename for record in records}) < len(records):
            raise zipfile.BadZipFile("a record stands there twice")
        for record in records:
            copy.writestr(record.filename, archive.read(record))  # reading compares names and checksums
    anew.seek(0)
    return anew


def load(path: str | os.PathLike, kind: str | None = None) -> dict[str, Any]:
    """Read a checkpoint of this package, with tensors on the CPU; of the given kind, where there is one.

    Raises:
        CheckpointError: as `read`, or the file is of another program or of another version of the format.
    """
    return checked(read(path), path, kind)


def checked(payload: dict[str, Any], path: str | os.PathLike, kind: str | None = None) -> dict[str, Any]:
    """What was read from a file, once it is clear that this package wrote it; see `load`."""
    if not is_own(payload):
        raise CheckpointError(
            f"{path} was not written by mdsim (it has the keys {one_line(sorted(map(str, payload))[:8])})"
        )
    if type(payload.get("version")) is not int or payload["version"] != VERSION or payload.get("kind") not in KINDS:
        found = [one_line(repr(payload.get(key)), 60) for key in ("version", "kind")]
        raise CheckpointError(
            f"{path} has version {found[0]} and kind {found[1]}; this release reads "
            f"version {VERSION} and the kinds {', '.join(KINDS)}: use the release that wrote it"
        )
    if "digest" in payload and not _is_as_written(payload):
        raise CheckpointError(f"{path}: its content is not what was written; {payloads.REMEDY}")
    if kind is not None and payload["kind"] != kind:
        raise CheckpointError(f"{path} is a checkpoint of kind {payload['kind']!r}, and {kind!r} is needed")
    return payload


def _is_as_written(payload: dict[str, Any]) -> bool:
    try:
        return bool(payload["digest"] == payloads.digest(_without_digest(payload)))
    except payloads.Mismatch:  # tensors of a kind that is never written
        return False


def load_state(path: str | os.PathLike, kind: str, key: str, form: payloads.Form) -> Any:
    """The saved state in a checkpoint of a kind, once it is clear that it has the form that its reader expects.

    Args:
        path: the file.
        kind: of the checkpoint.
        key: under which the state stands.
        form: of the state (`mdsim.payloads`).

    Raises:
        CheckpointError: as `load`, or the state is missing or has another form.
    """
    return state_in(load(path, kind), path, key, form)


def state_in(payload: dict[str, Any], path: str | os.PathLike, key: str, form: payloads.Form) -> Any:
    """The saved state in the content of a checkpoint; see `load_state`."""
    if key not in payload:
        raise CheckpointError(f"{path}: misses {key}; {payloads.REMEDY}")
    payloads.expect(path, payload[key], form, key)
    return payload[key]


def check_run(saved: Any, path: str | os.PathLike, identity: str, may_lack_it: bool = False) -> None:
    """Refuse a state that was saved by a run of other settings or inputs.

    Args:
        saved: a dictionary that says under ``run`` which run wrote it.
        path: of the file, for the message.
        identity: of the run that is to be continued.
        may_lack_it: the run is older than identities are.

    Raises:
        CheckpointError: it is another run's.
    """
    known = saved.get("run") if isinstance(saved, dict) else None
    if known is None and may_lack_it:
        log.warning("%s does not say which run wrote it (an older run)", path)
    elif not isinstance(known, str) or known != identity:
        raise CheckpointError(f"{path}: was written by another run, of other settings or data; {payloads.REMEDY}")


def check_force_field(payload: dict[str, Any], path: str | os.PathLike) -> None:
    """Refuse the content of a force field's checkpoint unless it has a description of the model and finite weights.

    Raises:
        CheckpointError: naming the first thing that is wrong.
    """
    if "model" not in payload or "state_dict" not in payload:
        raise CheckpointError(f"{path} is a checkpoint of kind {payload['kind']!r} that holds no force field")
    weights = payloads.Check(_check_weight)
    form = {"model": payloads.mapping_of(payloads.ANYTHING), "state_dict": payloads.mapping_of(weights)}
    payloads.expect(path, {key: payload[key] for key in form}, form)


def _check_weight(value: Any, place: str) -> None:
    shape = value.shape if isinstance(value, torch.Tensor) else (None,)
    payloads.check(value, payloads.tensor(*shape, dtype=getattr(value, "dtype", None)), place)


def check_model(model: ForceField, path: str | os.PathLike) -> None:
    """Refuse a force field that cannot compute: numbers that are not finite, or a cutoff that no neighbor list has.

    Raises:
        CheckpointError: naming the first thing that is wrong.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity: use another copy, or an earlier checkpoint")
    if not 0 < model.cutoff <= LARGEST_CUTOFF_A:
        raise CheckpointError(
            f"{path}: the cutoff is {model.cutoff:g} Å, expected up to {LARGEST_CUTOFF_A:g} Å: use another copy"
        )
    species = model.species.tolist()
    if species != sorted(set(species)) or not all(1 <= number <= HEAVIEST for number in species):
        raise CheckpointError(f"{path}: {one_line(species, 80)} are no atomic numbers: use another copy")
