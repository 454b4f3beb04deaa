"""Loading of force fields: checkpoints of this package, published ones, and the files of other packages."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints, payloads
from mdsim.errors import CheckpointError, ConfigError, one_line
from mdsim.force_field import ForceField
from mdsim.models.custom import custom_force_field
from mdsim.models.record import ModelRecord
from mdsim.models.registry import MODELS
from mdsim.models.repelled import add_repulsion
from mdsim.reference_energies import N_ELEMENTS
from mdsim.repulsion.zbl import ZBL

CUSTOM = "custom"
OWN_SUFFIX = ".pt"  # of checkpoints
REPULSION = "repulsion"
ANY_COMPOSITIONS = {"reference_compositions": payloads.tensor(None, N_ELEMENTS, dtype=torch.long)}
CONSTANTS = ("distance_expansion.offset",)  # saved, but set by the hyperparameters


def model_config(model: ForceField) -> dict[str, Any]:
    """The name and hyperparameters of a model, and its repulsion, which a checkpoint stores besides the weights."""
    config = _architecture(model)
    return config if model.repulsion is None else {**config, REPULSION: model.repulsion.settings}


def _architecture(model: ForceField) -> dict[str, Any]:
    if model.made_by is not None:
        return {"name": CUSTOM, **model.made_by}
    factory = f"{type(model).__module__}:{type(model).__qualname__}"
    names = [name for name, record in MODELS.items() if record.factory == factory]
    if not names:
        raise ValueError(f"{type(model).__name__} is neither in mdsim.models.MODELS nor made by a factory")
    return {"name": names[0], **model.hyperparameters}


def load_force_field(
    path: str | os.PathLike,
    allow_factory: str | None = None,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    allow_unpickling: bool = False,
) -> ForceField:
    """The force field in a checkpoint of this package, in one published with the StABlE paper, or of another package.

    Args:
        path: the file. Whether it is a checkpoint of this package is recognized from its content.
        allow_factory: ``package.module:function`` that may be imported and called to make a custom model, if the file
            asks for it.
        model: a name in `MODELS` whose package reads the file, unless it is a checkpoint of this one.
        options: keyword arguments of that reader; see ``foreign`` of the record.
        allow_unpickling: that package may unpickle the file, which can run any code that its author put there.

    Returns:
        The force field on the CPU in evaluation mode, with the floating-point type that it was saved with.

    Raises:
        CheckpointError: the file is missing, truncated or of another format, holds no force field, or needs a factory
            or an unpickling that is not allowed.
        ConfigError: the factory or the other package cannot make the model.
    """
    record = MODELS.get(model or "")
    foreign = record if record is not None and record.foreign is not None else None
    with _hint_at_other_packages(path, model):
        try:
            payload = checkpoints.read(path)
        except CheckpointError:
            if foreign is None:
                raise
            payload = {}
        with payloads.restoring(path, "is no checkpoint of a force field"):
            published = _published(payload, path)
        if published is None and foreign is not None and not checkpoints.is_own(payload):
            return _foreign(foreign, Path(path), options or {}, allow_unpickling)
        found = _own(payload, path, allow_factory) if published is None else published
    checkpoints.check_model(found, path)
    return found


@contextmanager
def _hint_at_other_packages(path: str | os.PathLike, model: str | None) -> Iterator[None]:
    """Add to an error how a file that has the name of one of another package is read, unless a model is named."""
    try:
        yield
    except CheckpointError as error:
        suffixes = {r.foreign.suffix: r.name for r in MODELS.values() if r.foreign is not None and r.is_foreign}
        name = suffixes.get(Path(path).suffix)
        if model is not None or name is None or (Path(path).suffix == OWN_SUFFIX and not _is_program(Path(path))):
            raise
        raise CheckpointError(f"{error}; if it is a file of another package, name its model, such as {name}") from error


def _is_program(path: Path) -> bool:
    """Whether a file is a program of TorchScript, and not only weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):  # a ValueError: names that are no text
        return False


def _foreign(record: ModelRecord, path: Path, options: Mapping[str, Any], allow_unpickling: bool) -> ForceField:
    """The model in a file of another package."""
    assert record.foreign is not None
    path = record.located(str(path))
    if not path.is_file():
        raise CheckpointError(f"there is no file {one_line(path)}: {record.title} is read from {record.foreign.files}")
    if record.foreign.unpickles and not allow_unpickling and not record.foreign.comes_with_the_package(path):
        raise CheckpointError(
            f"{path} is no checkpoint of mdsim, and {record.foreign.package} reads such files by unpickling, which can "
            "run any code that their author put there; if you trust the file, allow it: `allow_unpickling: true` in "
            "the model of a configuration, --allow-unpickling on the command line, allow_unpickling in Python"
        )
    model = record.read_foreign(path, options)
    model.to(next(model.parameters()).dtype)  # some packages keep single buffers in double precision
    checkpoints.check_model(model, path)
    return model.eval()


def _published(payload: dict[str, Any], path: str | os.PathLike) -> ForceField | None:
    """The model in a checkpoint that another program wrote; None where this one did."""
    for record in MODELS.values():
        if record.published is not None and record.published.recognizes(payload):
            return record.read_published(payload, path)
    return None


def _own(payload: dict[str, Any], path: str | os.PathLike, allow_factory: str | None) -> ForceField:
    payload = checkpoints.checked(payload, path)
    checkpoints.check_force_field(payload, path)
    config, state = payload["model"], payload["state_dict"]
    if config.get("name") == CUSTOM:
        _check_allowed(config.get("factory"), allow_factory, path)
    elif config.get("name") not in list(MODELS):  # a list compares what cannot be hashed
        raise CheckpointError(
            f"{path} holds a model {one_line(repr(config.get('name')), 60)}; this release knows {sorted(MODELS)}"
        )
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
    described = one_line(config, 200)
    try:
        repulsion = ZBL.from_settings(config[REPULSION]) if REPULSION in config else None
        config = {key: value for key, value in config.items() if key != REPULSION}
        species = state["species"].tolist()
        if config["name"] == CUSTOM:
            model = custom_force_field(config["factory"], config["options"], species, str(path))
        else:
            hyperparameters = {key: value for key, value in config.items() if key != "name"}
            _check_sizes(hyperparameters, state)
            model = MODELS[config["name"]].build(species, **hyperparameters)
            if missing := sorted(model.hyperparameters.keys() - hyperparameters.keys()):
                raise ValueError(f"it misses {', '.join(missing)}")
        model.to(state[next(name for name, _ in model.named_parameters())].dtype)
        state = model.upgraded(state)
        payloads.check(state, {**payloads.module_state(model), **ANY_COMPOSITIONS}, "state_dict")
        constants = {name: value.clone() for name, value in model.state_dict().items() if name in CONSTANTS}
        model.load_state_dict(state)
        for name, value in constants.items():
            if not torch.allclose(value, state[name]):
                raise ValueError(f"{name} is not what the hyperparameters say")
        if repulsion is not None:
            add_repulsion(model, repulsion)
    except ConfigError:
        raise
    except Exception as error:  # hyperparameters of any kind make constructors raise errors of any kind
        raise CheckpointError(
            f"the weights in {path} do not fit the model it describes, {described}: {one_line(error, 200)}"
        ) from error
    return model.eval()


def _check_sizes(hyperparameters: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """No layer is built that is larger than all weights in the file: a damaged number must not take all memory."""
    most = sum(value.numel() for value in state.values())
    for key, value in hyperparameters.items():
        if isinstance(value, int) and abs(value) > most:
            raise ValueError(f"{key} is {one_line(value, 40)}, and the file holds {most} numbers")
