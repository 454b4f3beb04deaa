"""What StABlE training and its evaluation share."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from mdsim.schema.base import Name, Positive, Section
from mdsim.schema.data import DataConfig
from mdsim.schema.dynamics import DynamicsConfig
from mdsim.schema.logging import WandbConfig
from mdsim.schema.models import ModelReference
from mdsim.schema.stability import CriterionConfig


class RunConfig(Section):
    """What StABlE training and its evaluation share."""

    seed: int = 123
    data: DataConfig
    reference_size: Name | None = Field(
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
    model: ModelReference
    model_dir: str = Field("qm_pretrained_checkpoints", description="Where the QM-pretrained checkpoints lie.")
    log_dir: str = "runs"
    results_dir: str = "stable_training"
    exp_name: Name = "default"
    cpu: bool = False
    dynamics: DynamicsConfig
    stability: tuple[CriterionConfig, ...] = Field(min_length=1)
    max_temperature_K: Positive = Field(10000.0, description="A replica hotter than this has exploded.")
    wandb: WandbConfig | None = None

    @model_validator(mode="after")
    def _a_run_has_one_temperature(self) -> RunConfig:
        if self.reference_run and self.reweight_reference:
            raise ValueError("reference_run has no frames to reweight: set it or reweight_reference to false")
        return self

    @property
    def run_path(self) -> Path:
        return Path(self.log_dir, self.results_dir, f"{self.model.name}_{self.data.molecule}_{self.exp_name}")
