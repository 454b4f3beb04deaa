"""The configuration of `pretraining.py`, the energy/force fit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.config.schema.base import Count, Device, FolderName, Fraction, NonNegative, Positive, Section
from mdsim.config.schema.data import PretrainDataConfig
from mdsim.config.schema.logging import WandbConfig
from mdsim.config.schema.models import ModelConfig
from mdsim.config.schema.optimizer import OptimizerConfig


class OptimizationConfig(OptimizerConfig):
    """Loss, optimizer and schedule of the energy/force fit."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="Optimizer of the parameter steps.")
    learning_rate: Positive = Field(1e-3, description="Learning rate after the warm-up.")
    batch_size: Count = Field(100, description="Frames per parameter step.")
    eval_batch_size: Count = Field(100, description="Frames per batch in validation and test.")
    max_test_frames: Count | None = Field(
        1000,
        description="Frames of each split in the errors after the fit, evenly spaced if there are more; null: all.",
    )
    loss: Literal["mae", "mse", "huber", "l2mae"] = Field(
        "mae", description="Loss; l2mae is the per-atom L2 norm of force errors."
    )
    energy_coefficient: NonNegative = Field(0.05, description="Weight of the energy loss (eV).")
    force_coefficient: NonNegative = Field(0.95, description="Weight of the force loss (eV/Å).")
    stress_coefficient: NonNegative = Field(
        0.0, description="Weight of the stress loss (eV/Å³), for periodic frames with a stress label; 0: no stresses."
    )
    energy_per_atom: bool = Field(
        False, description="Divide energy errors by the number of atoms. Always so if frames differ in composition."
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        5000, description="Steps over which the learning rate grows linearly."
    )
    warmup_factor: Fraction = Field(0.2, description="Fraction of the learning rate at the first step.")
    plateau_factor: Fraction = Field(
        0.8, description="Factor on the learning rate when the validation loss stops falling."
    )
    plateau_patience: Count = Field(
        5, description="Validations without improvement before the learning rate is reduced."
    )
    ema_decay: Fraction | None = Field(None, description="Decay of the averaged weights that are evaluated and saved.")
    clip_norm: Positive | None = Field(None, description="Largest norm of the gradient; null: no clipping.")
    max_epochs: Count = Field(10000, description="Largest number of passes over the training frames.")
    early_stopping_lr: NonNegative = Field(1e-6, description="Stop when the learning rate falls below this.")
    early_stopping_time_s: Positive = Field(604800.0, description="Stop after this wall-clock time.")
    checkpoint_every_epochs: Count = Field(10, description="Epochs between saved states.")
    evaluate_every_epochs: Count = Field(1, description="Epochs between validations.")


class PretrainConfig(Section):
    """`pretraining.py`: fit energies and forces."""

    mode: Literal["train", "validate"] = Field(
        "train", description="train: run a fit; validate: print the errors of a fit."
    )
    data: PretrainDataConfig = Field(description="The labeled frames.")
    model: ModelConfig = Field(description="The architecture, chosen by `name`.")
    optim: OptimizationConfig = Field(OptimizationConfig(), description="Loss, optimizer and schedule.")
    run_dir: str = Field("qm_pretrained_checkpoints", description="Root folder of the checkpoints.")
    identifier: FolderName = Field("", description="Appended to the name of the run.")
    seed: int = Field(0, description="Seed of the initial weights and of the order of frames.")
    trainable: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Names of the parameters to train, as shell patterns such as `interactions.2.*`; all others are "
        "frozen. null: all.",
    )
    amp: bool = Field(False, description="Mixed precision (bfloat16 autocast).")
    cpu: bool = Field(False, description="Use the CPU even if there is a GPU.")
    device: Device | None = Field(
        None, description="cpu, cuda or, with several GPUs, cuda:1; null: a GPU for each process if there is one."
    )
    print_every: Count = Field(50, description="Optimizer steps between console lines.")
    wandb: WandbConfig | None = Field(None, description="Also log to Weights & Biases; null: no.")

    @property
    def device_name(self) -> str | None:
        return "cpu" if self.cpu else self.device
