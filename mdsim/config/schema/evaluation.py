"""Held-out evaluation: `stable_training.py` with `mode: simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Count, Name, Positive, Section
from mdsim.config.schema.dynamics import BondedRestraintConfig
from mdsim.config.schema.observables import DynamicalConfig, StructuralConfig
from mdsim.config.schema.runs import RunConfig
from mdsim.config.schema.state_points import ReferenceFileConfig


class DenseWindowConfig(Section):
    """The first stretches of an evaluation, with more frequent frames for dynamical observables."""

    epochs: Count = Field(1, description="Number of stretches in the window.")
    dump_every_steps: Count = Field(4, description="Time steps between frames within the window.")


class DeparturesConfig(Section):
    """Departures of replicas from the support of the reference frames."""

    sustained_ps: Positive = Field(
        0.5, description="Time that a replica must stay outside the support. Shorter excursions are ignored."
    )


class SimulateConfig(RunConfig):
    """Held-out evaluation: `stable_training.py` with `mode: simulate`."""

    mode: Literal["simulate"] = Field(description="Held-out evaluation.")
    eval_model: Name = Field(
        "post", description="Checkpoint: pre, a data size, lmax=N, post, post_cycle[i] or post_cycle[i]_epoch[j]."
    )
    stable_dir: str = Field(
        "stable_checkpoints",
        description="Folder of the StABlE-trained checkpoints shipped with the code, named like run folders. "
        "`post` and `post_cycle[i]` use them if the run folder has no such checkpoint.",
    )
    epochs: Count = Field(1000, description="Stretches of `steps_per_epoch` steps, which set the horizon.")
    end_when_unstable: Annotated[float, Field(gt=0, le=1)] = Field(
        0.99, description="Fraction of broken replicas at which the evaluation stops early."
    )
    departures: DeparturesConfig | None = Field(
        DeparturesConfig(),
        description="Also measure the time to the first sustained departure from the range of the reference frames, "
        "of bonds, angles, dihedrals, contacts and energy; null: no.",
    )
    prior: BondedRestraintConfig | None = Field(
        None, description="Restraint added to the force field, as a control or a stopgap."
    )
    observables: tuple[StructuralConfig, ...] = Field(
        (), description="Structural observables, averaged over the stable frames."
    )
    dynamical_observables: tuple[DynamicalConfig, ...] = Field(
        (), description="Dynamical observables, from the replicas that are stable throughout the dense window."
    )
    reference_files: tuple[ReferenceFileConfig, ...] = Field(
        (), description="References from files, in place of the data, for some of these observables."
    )
    dense_window: DenseWindowConfig | None = Field(None, description="Frames for dynamical observables; null: none.")
    save_trajectories: tuple[int, ...] = Field(
        (0,), description="Replicas whose whole trajectories are written, in the format `trajectory.format`."
    )
    frames_before_break: Count = Field(50, description="Frames written before each instability.")

    @model_validator(mode="after")
    def _dense_window_serves_its_purpose(self) -> SimulateConfig:
        window, every = self.dense_window, self.dynamics.dump_every_steps
        if window is not None and every % window.dump_every_steps:
            raise ValueError(
                f"dynamics.dump_every_steps ({every}) must be a multiple of dense_window.dump_every_steps "
                f"({window.dump_every_steps})"
            )
        if window is None and self.dynamical_observables:
            raise ValueError("dynamical_observables need a dense_window, which is missing")
        return self

    @property
    def stable_path(self) -> Path:
        """The folder below `stable_dir` that stands in for the run folder."""
        return Path(self.stable_dir, self.results_dir, self.run_path.name)

    @property
    def dense_epochs(self) -> int:
        """Stretches of the dense window, at most those of the run."""
        return 0 if self.dense_window is None else min(self.dense_window.epochs, self.epochs)

    @property
    def horizon_ps(self) -> float:
        return self.epochs * self.dynamics.epoch_ps
