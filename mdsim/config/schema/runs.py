"""What StABlE training and its evaluation share."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from mdsim.config.schema.base import FolderBelow, FolderName, Positive, Section
from mdsim.config.schema.data import DataConfig
from mdsim.config.schema.dynamics import DynamicsConfig
from mdsim.config.schema.logging import WandbConfig
from mdsim.config.schema.models import ModelReference, model_label
from mdsim.config.schema.stability import CriterionConfig


class RunConfig(Section):
    """What StABlE training and its evaluation share."""

    seed: int = Field(123, description="Of all random numbers: initial conditions, noise, resets, minibatches.")
    data: DataConfig = Field(description="Initial positions, reference observables and labels of the QM gradient.")
    reference_size: FolderName | None = Field(
        None, description="Size of the data set whose training frames give reference observables; null: `data.size`."
    )
    reference_run: bool = Field(
        False,
        description="Reference observables that the data set has from its whole run (reference.npz) are taken from "
        "there, with their errors; the others, as without this, from its frames.",
    )
    reweight_reference: bool = Field(
        False, description="Carry reference observables from the data's temperature to that of the dynamics."
    )
    model: ModelReference = Field(description="Which pretrained force field, by `name`.")
    model_dir: str = Field("qm_pretrained_checkpoints", description="Where the QM-pretrained checkpoints lie.")
    log_dir: str = Field("runs", description="Root of the run folders.")
    results_dir: FolderBelow = Field("stable_training", description="Folder below `log_dir`.")
    exp_name: FolderName = Field("default", description="Last part of the run folder's name.")
    cpu: bool = Field(False, description="Stay on the CPU even where there is a GPU.")
    dynamics: DynamicsConfig = Field(description="Integrator, time step, temperature, replicas.")
    stability: tuple[CriterionConfig, ...] = Field(
        min_length=1,
        description="Criteria, each chosen by `name`: a replica is unstable as soon as one of them says so. Numbers "
        "that are not finite and `max_temperature_K` count always.",
    )
    max_temperature_K: Positive = Field(10000.0, description="A replica hotter than this has exploded.")
    memory_budget_GB: Positive | None = Field(
        None,
        description="What one batch of force evaluations, of the estimator or of the QM gradient may take; larger ones "
        "are divided, which changes results by rounding alone. Forces on a CPU never take more than 1 GB at once, "
        "which is quickest. null: half of the machine's (or the GPU's) memory.",
    )
    wandb: WandbConfig | None = Field(None, description="Also log to Weights & Biases; null: no.")

    @model_validator(mode="after")
    def _a_run_has_one_temperature(self) -> RunConfig:
        if self.reference_run and self.reweight_reference:
            raise ValueError("reference_run has no frames to reweight: set it or reweight_reference to false")
        return self

    @property
    def run_path(self) -> Path:
        return Path(self.log_dir, self.results_dir, f"{model_label(self.model)}_{self.data.molecule}_{self.exp_name}")
