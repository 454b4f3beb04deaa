"""Where the checkpoints lie that a configuration names."""

from __future__ import annotations

import re
from pathlib import Path

from mdsim.config.schema import (
    DataConfig,
    ModelConfig,
    ModelReference,
    PretrainConfig,
    RunConfig,
    model_label,
)
from mdsim.errors import ConfigError
from mdsim.models.registry import MODELS


def pretraining_path(root: str | Path, model: str, data: DataConfig, identifier: str = "") -> Path:
    """Folder of one energy/force fit: `<root>/<model>/<name>-<molecule>_<size>_<model>[_<identifier>]`."""
    suffix = f"_{identifier}" if identifier else ""
    return Path(root) / model / f"{data.name}-{data.molecule}_{data.size}_{model}{suffix}"


def pretraining_run_path(config: PretrainConfig) -> Path:
    """Folder of the fit that a configuration describes."""
    identifier = "_".join(filter(None, [variant(config.model), config.identifier]))
    return pretraining_path(config.run_dir, model_label(config.model), config.data, identifier)


def variant(model: ModelConfig | ModelReference) -> str:
    """What the name of a fit says besides the architecture, so that several can lie side by side: lmax=1 of NequIP."""
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


def evaluated_checkpoint(config: RunConfig, eval_model: str) -> Path:
    """The checkpoint that an `eval_model` names.

    `pre`: the QM-pretrained one; `10k`, `25percent`: that of another data size; `lmax=N`: that of another l_max;
    `post`: the last of StABlE training; `post_cycle[i]`: the end of a cycle; `post_cycle[i]_epoch[j]`: one step in it.
    """
    if eval_model == "pre":
        path = pretrained_checkpoint(config)
    elif eval_model == "post":
        path = config.run_path / "last.pt"
    elif match := re.fullmatch(r"post_cycle(\d+)(?:_epoch(\d+))?", eval_model):
        cycle, epoch = match.groups()
        path = config.run_path / (f"cycle{cycle}_epoch{epoch}.pt" if epoch else f"end_of_cycle{cycle}.pt")
    elif re.fullmatch(r"lmax=\d+", eval_model):
        path = pretrained_checkpoint(config, identifier=eval_model)
    elif re.fullmatch(r"\d+k?|\d+percent", eval_model):
        path = pretrained_checkpoint(config, size=eval_model)
    else:
        raise ConfigError(
            f"eval_model: found {eval_model!r}, expected pre, a data size (10k, 25percent), lmax=N, post, "
            "post_cycle[i] or post_cycle[i]_epoch[j]"
        )
    if not path.exists():
        raise ConfigError(f"eval_model {eval_model!r}: {path} does not exist{_neighbours_of(path)}")
    return path


def _neighbours_of(path: Path) -> str:
    found = sorted(file.name for file in path.parent.glob("*.pt")) if path.parent.is_dir() else []
    return f"; there are {', '.join(found)}" if found else "; train it first"
