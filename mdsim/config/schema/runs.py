"""Settings shared by StABlE training and its evaluation."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from pydantic import Field, model_validator

from mdsim.config.schema.base import Device, FolderBelow, FolderName, Positive, Section
from mdsim.config.schema.data import DataConfig
from mdsim.config.schema.dynamics import DynamicsConfig
from mdsim.config.schema.logging import WandbConfig
from mdsim.config.schema.models import ModelReference, model_label
from mdsim.config.schema.stability import CriterionConfig
from mdsim.config.schema.state_points import StatePointConfig
from mdsim.config.schema.trajectories import TrajectoryConfig

SMALLEST_DIFFERENCE = 1e-3  # of two temperatures or pressures, relative; that of pressures below 1 bar in bar


class RunConfig(Section):
    """Settings shared by StABlE training and its evaluation."""

    seed: int = Field(123, description="Seed of all random numbers: initial conditions, noise, resets, minibatches.")
    data: DataConfig = Field(description="Initial positions, reference observables and labels of the QM gradient.")
    reference_size: FolderName | None = Field(
        None, description="Size of the data set whose training frames give reference observables; null: `data.size`."
    )
    reference_run: bool = Field(
        False,
        description="Take reference observables, with their errors, from the data set's whole run (reference.npz) "
        "where it has them. All others come from its frames.",
    )
    reweight_reference: bool = Field(
        False, description="Reweight reference observables from the temperature of the data to that of the dynamics."
    )
    model: ModelReference = Field(description="The pretrained force field, chosen by `name`.")
    model_dir: str = Field("qm_pretrained_checkpoints", description="Folder of the QM-pretrained checkpoints.")
    log_dir: str = Field("runs", description="Root of the run folders.")
    results_dir: FolderBelow = Field("stable_training", description="Folder below `log_dir`.")
    exp_name: FolderName = Field("default", description="Last part of the run folder's name.")
    cpu: bool = Field(False, description="Use the CPU even if there is a GPU.")
    device: Device | None = Field(
        None, description="cpu, cuda or, with several GPUs, cuda:1; null: a GPU for each process if there is one."
    )
    dynamics: DynamicsConfig = Field(description="Integrator, time step, temperature, replicas.")
    state_points: tuple[StatePointConfig, ...] | None = Field(
        None,
        min_length=1,
        description="Temperatures and pressures among which the replicas are divided evenly, with a reference each. "
        "Those of `dynamics`, at which the main `data` are, must be one of them; null: they are the only ones.",
    )
    stability: tuple[CriterionConfig, ...] = Field(
        min_length=1,
        description="Criteria, each chosen by `name`. A replica is unstable as soon as one of them is met. Non-finite "
        "numbers and `max_temperature_K` always count.",
    )
    max_temperature_K: Positive = Field(10000.0, description="A replica with a higher temperature is unstable.")
    memory_budget_GB: Positive | None = Field(
        None,
        description="Memory for one batch of force evaluations, of the estimator or of the QM gradient. Larger batches "
        "are divided, which changes results only by rounding. Forces on a CPU never use more than 1 GB at once, which "
        "is fastest. null: half of the machine's (or the GPU's) memory.",
    )
    trajectory: TrajectoryConfig = Field(TrajectoryConfig(), description="Trajectory files.")
    wandb: WandbConfig | None = Field(None, description="Also log to Weights & Biases; null: no.")

    @model_validator(mode="after")
    def _a_run_has_one_temperature(self) -> RunConfig:
        if self.reference_run and self.reweight_reference:
            raise ValueError("reference_run has no frames to reweight: set it or reweight_reference to false")
        return self

    @model_validator(mode="after")
    def _replicas_are_divided_among_state_points(self) -> RunConfig:
        points, n_replicas = self.points, self.dynamics.replicas
        if self.dynamics.barostat is None and any(point.pressure_bar is not None for point in points):
            raise ValueError(
                "state_points: pressure_bar needs a dynamics.barostat, without which the volume is constant; add one, "
                "or leave pressure_bar out"
            )
        for one, other in combinations(points, 2):
            if _hardly_differ(one, other):
                what = "temperature" if one.pressure_bar is None else "state point"
                raise ValueError(f"state_points: {one.shown} and {other.shown} are the same {what}; leave one out")
        main = self._main_point
        if not any(main.temperature_K == p.temperature_K and main.pressure_bar == p.pressure_bar for p in points):
            more = "" if main.pressure_bar is None else " and dynamics.barostat.pressure_bar"
            shown = "; ".join(point.shown for point in points)
            raise ValueError(f"state_points: dynamics.temperature_K{more} ({main.shown}) must be one of them ({shown})")
        if n_replicas % len(points):
            raise ValueError(
                f"dynamics.replicas ({n_replicas}) must be a multiple of the number of state points ({len(points)})"
            )
        return self

    @property
    def points(self) -> tuple[StatePointConfig, ...]:
        """The state points: those listed, or the temperature of the dynamics. If one has a pressure, all have."""
        points, barostat = self.state_points, self.dynamics.barostat
        if points is None:
            return (StatePointConfig(temperature_K=self.dynamics.temperature_K),)
        if barostat is None or all(point.pressure_bar is None for point in points):
            return points
        same = {"pressure_bar": barostat.pressure_bar}
        return tuple(point.model_copy(update=same) if point.pressure_bar is None else point for point in points)

    @property
    def _main_point(self) -> StatePointConfig:
        """The conditions of the dynamics, with a pressure if state points have one."""
        dynamics = self.dynamics
        if dynamics.barostat is None or self.points[0].pressure_bar is None:
            return StatePointConfig(temperature_K=dynamics.temperature_K)
        return StatePointConfig(temperature_K=dynamics.temperature_K, pressure_bar=dynamics.barostat.pressure_bar)

    @property
    def device_name(self) -> str | None:
        return "cpu" if self.cpu else self.device

    @property
    def run_path(self) -> Path:
        parts = model_label(self.model), self.data.molecule, self.data.composition, self.exp_name
        return Path(self.log_dir, self.results_dir, "_".join(part for part in parts if part is not None))


def _hardly_differ(one: StatePointConfig, other: StatePointConfig) -> bool:
    """Whether results could not tell two state points apart."""
    warmer = max(one.temperature_K, other.temperature_K)
    if abs(one.temperature_K - other.temperature_K) >= SMALLEST_DIFFERENCE * warmer:
        return False
    if one.pressure_bar is None or other.pressure_bar is None:
        return True
    higher = max(abs(one.pressure_bar), abs(other.pressure_bar), 1.0)
    return abs(one.pressure_bar - other.pressure_bar) < SMALLEST_DIFFERENCE * higher
