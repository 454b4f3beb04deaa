"""Run folders: protection against accidental changes, checks before a run is continued, and replacement."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mdsim.config.loading import read_yaml, save_config
from mdsim.config.schema import Section
from mdsim.errors import ConfigError
from mdsim.reporting.console import setup_logging

#: Keys that may differ between a stopped run and its continuation. They concern only its length and its display.
MAY_CHANGE = {
    "epochs",
    "max_cycles",
    "max_force_evaluations",
    "optim.max_epochs",
    "optim.early_stopping_time_s",
    "print_every",
    "stable_dir",  # an evaluation checks itself that it continues with the same force field
    "wandb",
}
OUTPUTS = (  # evaluations of the initial force field remain, because they are valid for the next training
    *("*.pt", "checkpoints/*.pt", "events.out.tfevents.*", "log.txt", "metrics.json", "inference/post*"),
    *("frames", "trajectories", "final_metrics.json", "*.npy", "*.png"),
)


def check_folder(folder: Path, config: Section, resume: bool, overwrite: bool) -> None:
    """Refuse an existing run unless it is continued with unchanged settings or replaced."""
    file = folder / "config.yml"
    if file.exists() and not (resume or overwrite):
        raise ConfigError(
            f"{folder}: holds a run; continue it with --resume, replace it with --overwrite, or choose another name"
        )
    if file.exists() and resume:
        _check_unchanged(file, config)


def open_folder(folder: Path, config: Section, overwrite: bool) -> None:
    """Create the run folder and its log. Called after all input has been read, so that errors leave no trace."""
    if overwrite:
        _remove_outputs(folder)
    folder.mkdir(parents=True, exist_ok=True)
    setup_logging(folder)
    save_config(config, folder / "config.yml")


def _check_unchanged(file: Path, config: Section) -> None:
    old, new = _flat(read_yaml(file)), _flat(config.model_dump(mode="json"))
    differing = [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not any(key == free or key.startswith(free + ".") for free in MAY_CHANGE)
    ]
    if differing:
        raise ConfigError(
            f"{file}: the run was started with other settings ({'; '.join(differing)}); "
            "resume with the old ones, or choose another name"
        )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        return {k: v for key, value in values.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): values}


def _remove_outputs(folder: Path) -> None:
    for pattern in OUTPUTS:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
