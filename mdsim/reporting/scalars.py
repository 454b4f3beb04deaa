"""Scalars of a run over time, written to TensorBoard event files and optionally to Weights & Biases."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mdsim.errors import ConfigError, one_line
from mdsim.reporting.event_file import EventFile

WANDB_ID_FILE = "wandb_run_id.txt"
#: Scalars by which runs are compared on TensorBoard's page HParams.
OUTCOMES = (
    "val/force_mae_meV_per_A",
    "val/energy_mae_meV",
    "explore/mean_stable_time_ps",
    "learn/fraction_unstable",
    "evaluate/mean_stable_time_ps",
)


class ScalarWriter:
    """Writes every scalar to all backends of a run.

    Values are written unchanged, so that a loss of NaN shows as NaN. Use the writer as a context manager, or close it
    explicitly.
    """

    def __init__(
        self,
        run_dir: str | Path,
        config: dict[str, Any] | None = None,
        wandb: dict[str, Any] | None = None,
        purge_step: int | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the backends.

        Args:
            run_dir: folder for the TensorBoard events, the offline files of W&B and its run id.
            config: configuration of the run, shown next to its curves.
            wandb: arguments of `wandb.init` (``project``, ``name``, ``mode``, ...). None: no W&B. A run whose id is
                found in ``run_dir`` is continued.
            purge_step: first step of a resumed run. TensorBoard drops what the interrupted run wrote from this step on.
                W&B cannot delete, so repeated steps appear there twice.
            hyperparameters: settings by name, for TensorBoard's page HParams.

        Raises:
            ModuleNotFoundError: W&B is requested and not installed.
        """
        run_dir = Path(run_dir)
        self._wandb = None if wandb is None else _start_wandb(run_dir, config, wandb)
        self._tensorboard = EventFile(run_dir, purge_step)
        if config is not None:
            self._tensorboard.add_text("config", _as_markdown(config), purge_step or 0)
        if hyperparameters is not None:
            plain = {
                name: v if isinstance(v, bool | int | float | str) else str(v) for name, v in hyperparameters.items()
            }
            self._tensorboard.add_hyperparameters(plain, OUTCOMES)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Write scalars at a step.

        Args:
            step: step or epoch of the run, the x axis of all curves.
            values: numbers or one-element tensors by name. A prefix such as ``learn/`` groups the curves.
        """
        scalars = {name: float(value) for name, value in values.items()}
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log({"step": step, **scalars})

    def lay_out(self, title: str, charts: Mapping[str, Sequence[str]]) -> None:
        """Put scalars that belong together into charts of TensorBoard. W&B has its own ways to do this."""
        self._tensorboard.add_layout(title, charts)

    def log_figures(self, step: int, paths: Iterable[Path]) -> None:
        """Write figures, PNG files, at a step. Their names are those of the files."""
        named = {f"figures/{path.stem}": path for path in paths}
        for name, path in named.items():
            self._tensorboard.add_png(name, path.read_bytes(), step)
        if self._wandb is not None and named:
            image = importlib.import_module("wandb").Image
            self._wandb.log({"step": step, **{name: image(str(path)) for name, path in named.items()}})

    def flush(self) -> None:
        """Write everything to disk. W&B sends its data by itself."""
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
    """Steps and values of every scalar in the TensorBoard events of a run, with resumed parts joined.

    Raises:
        ConfigError: the events are damaged.
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
    # W&B's step may only increase, but a resumed run goes back. The step is therefore a separate metric.
    run.define_metric("*", step_metric="step")
    return run


def _as_markdown(config: dict[str, Any]) -> str:
    lines = json.dumps(config, indent=2, default=str, ensure_ascii=False).splitlines()
    return "\n".join("    " + line for line in lines)  # four blanks: a code block
