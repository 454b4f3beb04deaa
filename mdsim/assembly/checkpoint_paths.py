"""Paths of the checkpoints that a configuration names."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from mdsim.config.schema import (
    DataConfig,
    ModelConfig,
    ModelReference,
    PretrainConfig,
    RunConfig,
    SimulateConfig,
    model_label,
)
from mdsim.errors import ConfigError
from mdsim.models.registry import MODELS

log = logging.getLogger("mdsim")

DEBUG = "debug"  # identifier of the fits of `--debug`


def pretraining_path(root: str | Path, model: str, data: DataConfig, identifier: str = "") -> Path:
    """Folder of one energy/force fit: `<root>/<model>/<name>-<molecule>_<size>_<model>[_<identifier>]`."""
    suffix = f"_{identifier}" if identifier else ""
    return Path(root) / model / f"{data.name}-{data.molecule}_{data.size}_{model}{suffix}"


def pretraining_run_path(config: PretrainConfig) -> Path:
    """Folder of the fit described by a configuration."""
    identifier = "_".join(filter(None, [variant(config.model), config.identifier]))
    return pretraining_path(config.run_dir, model_label(config.model), config.data, identifier)


def variant(model: ModelConfig | ModelReference) -> str:
    """The part of a fit's name that distinguishes variants of one architecture, such as lmax=1 for NequIP."""
    record = MODELS.get(model.name)
    if record is None or record.variant is None:
        return ""
    return record.variant.label.format(getattr(model, record.variant.setting))


def pretrained_checkpoint(config: RunConfig, size: str | None = None, identifier: str | None = None) -> Path:
    """The QM-pretrained checkpoint that a run starts from, or that of another data size or variant."""
    data = config.data.model_copy(update={"size": size or config.data.size})
    identifier = variant(config.model) if identifier is None else identifier
    folder = pretraining_path(config.model_dir, model_label(config.model), data, identifier)
    return folder / "checkpoints" / "best_checkpoint.pt"


def starting_file(config: ModelConfig | ModelReference) -> Path | None:
    """The file that `checkpoint` names, or the weights of that name that come with the model's package."""
    if config.checkpoint is None:
        return None
    record = MODELS.get(config.name)
    return Path(config.checkpoint) if record is None else record.located(config.checkpoint)


def starting_checkpoint(config: RunConfig, debug: bool = False) -> Path:
    """The checkpoint that a run starts from: the one that it names, or that of the fit.

    With ``debug``, a fit of `--debug` stands in for one that does not exist.
    """
    if (named := starting_file(config.model)) is not None:
        return named
    path = pretrained_checkpoint(config)
    tiny = pretrained_checkpoint(config, identifier="_".join(filter(None, [variant(config.model), DEBUG])))
    if debug and not path.exists() and tiny.exists():
        log.info("--debug: %s does not exist; taking %s, a fit of --debug", path, tiny)
        return tiny
    return path


def evaluated_checkpoint(config: SimulateConfig, eval_model: str, debug: bool = False) -> Path:
    """The checkpoint that an `eval_model` names.

    `pre`: the QM-pretrained one; `10k`, `25percent`: that of another data size; `lmax=N`: that of another l_max;
    `post`: the last of StABlE training; `post_cycle[i]`: the end of a cycle; `post_cycle[i]_epoch[j]`: an epoch of it.
    Checkpoints of StABlE training are taken from the run folder, or else from those shipped with the code
    (`stable_dir`). With ``debug``, `pre` may also be the fit of `--debug`.

    Raises:
        ConfigError: `eval_model` is none of these, or the checkpoint does not exist.
    """
    if eval_model.startswith("post"):
        return _stable_trained_checkpoint(config, eval_model)
    if eval_model == "pre":
        path = starting_checkpoint(config, debug)
    elif re.fullmatch(r"lmax=\d+", eval_model):
        path = pretrained_checkpoint(config, identifier=eval_model)
    elif re.fullmatch(r"\d+k?|\d+percent", eval_model):
        path = pretrained_checkpoint(config, size=eval_model)
    else:
        raise _no_eval_model(eval_model)
    if not path.exists():
        raise ConfigError(f"eval_model {eval_model!r}: {path} does not exist{_others_in(path.parent)}")
    return path


def _stable_trained_checkpoint(config: SimulateConfig, eval_model: str) -> Path:
    """The checkpoint of the run, or else the one shipped with the code (noted in the log)."""
    match = re.fullmatch(r"post(?:_cycle(\d+)(?:_epoch(\d+))?)?", eval_model)
    if match is None:
        raise _no_eval_model(eval_model)
    cycle, epoch = match.groups()
    name = f"cycle{cycle}_epoch{epoch}.pt" if epoch else f"end_of_cycle{cycle}.pt" if cycle else "last.pt"
    own, shipped = config.run_path / name, config.stable_path / name
    if own.exists():
        return own
    if cycle is None and not shipped.exists():  # the end of the last cycle equals `last.pt`
        ends = sorted(config.stable_path.glob("end_of_cycle*.pt"), key=lambda path: int(re.sub(r"\D", "", path.stem)))
        shipped = ends[-1] if ends else shipped
    if shipped.exists():
        log.info("eval_model %r: %s does not exist; evaluating %s, which comes with the code", eval_model, own, shipped)
        return shipped
    raise ConfigError(
        f"eval_model {eval_model!r}: {own} does not exist{_others_in(own.parent)}; "
        f"nor does {shipped}, among the checkpoints that come with the code (stable_dir)"
    )


def _no_eval_model(found: str) -> ConfigError:
    return ConfigError(
        f"eval_model: found {found!r}, expected pre, a data size (10k, 25percent), lmax=N, post, "
        "post_cycle[i] or post_cycle[i]_epoch[j]"
    )


def _others_in(folder: Path) -> str:
    found = sorted(file.name for file in folder.glob("*.pt")) if folder.is_dir() else []
    return f"; there are {', '.join(found)}" if found else "; train it first"
