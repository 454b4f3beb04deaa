"""`stable_training.py` with `mode: simulate`: held-out evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Count, Name, Section
from mdsim.config.schema.dynamics import BondedRestraintConfig
from mdsim.config.schema.observables import DynamicalConfig, StructuralConfig
from mdsim.config.schema.runs import RunConfig


class DenseWindowConfig(Section):
    """The first stretches of an evaluation keep frames more densely, for dynamical observables."""

    epochs: Count = Field(1, description="Stretches of the window.")
    dump_every_steps: Count = Field(4, description="Steps between frames within it.")


class SimulateConfig(RunConfig):
    """`stable_training.py` with `mode: simulate`: held-out evaluation."""

    mode: Literal["simulate"] = Field(description="Held-out evaluation.")
    eval_model: Name = Field(
        "post", description="pre, a data size, lmax=N, post, post_cycle[i], post_cycle[i]_epoch[j]."
    )
    stable_dir: str = Field(
        "stable_checkpoints",
        description="Where StABlE-trained checkpoints lie that come with the code, in folders named as run folders. "
        "`post` and `post_cycle[i]` take them from there if the run folder itself has no such checkpoint.",
    )
    epochs: Count = Field(1000, description="Stretches of `steps_per_epoch` steps; with them, the horizon.")
    end_when_unstable: Annotated[float, Field(gt=0, le=1)] = Field(
        0.99, description="Stop early when this fraction of replicas has broken."
    )
    prior: BondedRestraintConfig | None = Field(None, description="Added to the force field: a control, or a crutch.")
    observables: tuple[StructuralConfig, ...] = Field(
        (), description="Structural observables, averaged over the stable frames."
    )
    dynamical_observables: tuple[DynamicalConfig, ...] = Field(
        (), description="Observables of time, from the dense window of the replicas that are stable throughout it."
    )
    dense_window: DenseWindowConfig | None = Field(
        None, description="Where dynamical observables come from; null: there are none."
    )
    save_trajectories: tuple[int, ...] = Field((0,), description="Replicas whose whole trajectory is written as GSD.")
    frames_before_break: Count = Field(50, description="Frames written before every instability.")

    @model_validator(mode="after")
    def _dense_window_serves_its_purpose(self) -> SimulateConfig:
        window, every = self.dense_window, self.dynamics.dump_every_steps
        if window is not None and every % window.dump_every_steps:
            raise ValueError(
                f"dynamics.dump_every_steps ({every}) must be a multiple of dense_window.dump_every_steps "
                f"({window.dump_every_steps})"
            )
        if window is None and self.dynamical_observables:
            raise ValueError("dynamical_observables are taken from a dense_window, which is missing")
        return self

    @property
    def stable_path(self) -> Path:
        """The folder below `stable_dir` that stands in for the run folder."""
        return Path(self.stable_dir, self.results_dir, self.run_path.name)

    @property
    def dense_epochs(self) -> int:
        """Stretches of the dense window: all there are, in a run that is shorter."""
        return 0 if self.dense_window is None else min(self.dense_window.epochs, self.epochs)

    @property
    def horizon_ps(self) -> float:
        return self.epochs * self.dynamics.epoch_ps
