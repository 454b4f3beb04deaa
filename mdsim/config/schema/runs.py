"""Settings shared by StABlE training and its evaluation."""

from __future__ import annotations

from itertools import pairwise
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

SMALLEST_DIFFERENCE = 1e-3  # of two temperatures, relative


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
        description="Temperatures among which the replicas are divided evenly, with a reference each. "
        "`dynamics.temperature_K`, at which the main `data` are, must be one of them; null: it is the only one.",
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
        temperatures, n_replicas = [point.temperature_K for point in self.points], self.dynamics.replicas
        for warmer, other in pairwise(sorted(temperatures)):
            if other - warmer < SMALLEST_DIFFERENCE * other:
                raise ValueError(f"state_points: {warmer:g} and {other:g} K are the same temperature; leave one out")
        if self.dynamics.temperature_K not in temperatures:
            shown = ", ".join(f"{one:g}" for one in temperatures)
            raise ValueError(
                f"state_points: dynamics.temperature_K ({self.dynamics.temperature_K:g}) must be one of them ({shown})"
            )
        if n_replicas % len(temperatures):
            raise ValueError(
                f"dynamics.replicas ({n_replicas}) must be a multiple of the number of state points "
                f"({len(temperatures)})"
            )
        return self

    @property
    def points(self) -> tuple[StatePointConfig, ...]:
        """The state points: those listed, or the temperature of the dynamics."""
        return self.state_points or (StatePointConfig(temperature_K=self.dynamics.temperature_K),)

    @property
    def device_name(self) -> str | None:
        return "cpu" if self.cpu else self.device

    @property
    def run_path(self) -> Path:
        parts = model_label(self.model), self.data.molecule, self.data.composition, self.exp_name
        return Path(self.log_dir, self.results_dir, "_".join(part for part in parts if part is not None))
