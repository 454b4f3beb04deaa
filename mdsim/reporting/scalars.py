"""Scalars over time: TensorBoard event files always, Weights & Biases where asked for."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mdsim.errors import ConfigError, one_line
from mdsim.reporting.event_file import EventFile

WANDB_ID_FILE = "wandb_run_id.txt"


class ScalarWriter:
    """Writes every scalar to all backends of a run.

    Values are written as they are: a loss that became NaN is to be seen as NaN. To be used as a context manager, or
    closed by hand.
    """

    def __init__(
        self,
        run_dir: Path,
        config: dict[str, Any] | None = None,
        wandb: dict[str, Any] | None = None,
        purge_step: int | None = None,
    ) -> None:
        """Open the backends.

        Args:
            run_dir: where the TensorBoard events, the offline files of W&B and its run id go.
            config: of the run, shown next to its curves.
            wandb: arguments of `wandb.init` (``project``, ``name``, ``mode``, ...); None does without W&B. A run whose
                id is found in ``run_dir`` is continued.
            purge_step: a resumed run says where it resumes: TensorBoard drops what the interrupted run wrote at this
                step or later. W&B cannot delete; there the repeated steps appear twice.

        Raises:
            ModuleNotFoundError: W&B is asked for and not installed.
        """
        self._wandb = None if wandb is None else _start_wandb(run_dir, config, wandb)
        self._tensorboard = EventFile(run_dir, purge_step)
        if config is not None:
            self._tensorboard.add_text("config", _as_markdown(config), purge_step or 0)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Write scalars at a step.

        Args:
            step: counts whatever the run counts (steps, epochs); the x axis of all curves.
            values: numbers or one-element tensors by name; a prefix such as ``learn/`` groups the curves.
        """
        scalars = {name: float(value) for name, value in values.items()}
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log({"step": step, **scalars})

    def flush(self) -> None:
        """Make everything that was written so far visible on disk. W&B sends on its own."""
        self._tensorboard.flush()

    def close(self) -> None:
        """Flush and close all backends."""
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> ScalarWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_scalars(run_dir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of every scalar in the TensorBoard events of a run, resumed stretches joined.

    Raises:
        ConfigError: they are damaged.
    """
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    try:
        events.Reload()
    except Exception as error:  # bytes of any kind make TensorBoard's reader raise errors of any kind
        raise ConfigError(f"{run_dir}: its TensorBoard events cannot be read ({one_line(error)})") from error
    return {
        tag: (np.array([event.step for event in found]), np.array([event.value for event in found]))
        for tag in events.Tags()["scalars"]
        if (found := events.Scalars(tag))
    }


def _start_wandb(run_dir: Path, config: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    try:
        module = importlib.import_module("wandb")
    except ImportError as error:
        raise ModuleNotFoundError(
            "the config asks for Weights & Biases, but the package wandb is not installed: "
            "pip install 'mdsim[wandb]', or remove the wandb section from the config"
        ) from error
    run_dir.mkdir(parents=True, exist_ok=True)
    id_file = run_dir / WANDB_ID_FILE
    run_id = id_file.read_text(encoding="utf-8").strip() if id_file.exists() else None
    run = module.init(**options, id=run_id, resume="allow", dir=str(run_dir), config=config)
    id_file.write_text(run.id + "\n", encoding="utf-8")
    # W&B's own step may only grow; a run that resumes from a checkpoint goes back, so the step is a metric of its own
    run.define_metric("*", step_metric="step")
    return run


def _as_markdown(config: dict[str, Any]) -> str:
    lines = json.dumps(config, indent=2, default=str, ensure_ascii=False).splitlines()
    return "\n".join("    " + line for line in lines)  # four blanks: a code block
