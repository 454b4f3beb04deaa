"""`pretraining.py`: the energy/force fit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.schema.base import Count, Fraction, Name, NonNegative, Positive, Section
from mdsim.schema.data import DataConfig
from mdsim.schema.logging import WandbConfig
from mdsim.schema.models import ModelConfig


class OptimizationConfig(Section):
    """The energy/force fit."""

    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    eps: Positive = Field(1e-8, description="Of Adam and AdamW: added to the root of the second moment.")
    weight_decay: NonNegative = 0.0
    amsgrad: bool = False
    batch_size: Count = 100
    eval_batch_size: Count = 100
    loss: Literal["mae", "mse", "huber", "l2mae"] = Field("mae", description="l2mae: per-atom L2 norm of force errors.")
    energy_coefficient: NonNegative = 0.05
    force_coefficient: NonNegative = 0.95
    energy_per_atom: bool = Field(False, description="Errors of energies are divided by the number of atoms.")
    warmup_steps: Annotated[int, Field(ge=0)] = 5000
    warmup_factor: Fraction = 0.2
    plateau_factor: Fraction = 0.8
    plateau_patience: Count = 5
    ema_decay: Fraction | None = Field(None, description="Decay of the averaged weights that are evaluated and saved.")
    clip_norm: Positive | None = None
    max_epochs: Count = 10000
    early_stopping_lr: NonNegative = Field(1e-6, description="Stop when the learning rate falls below this.")
    early_stopping_time_s: Positive = 604800.0
    checkpoint_every_epochs: Count = 10
    evaluate_every_epochs: Count = 1


class PretrainConfig(Section):
    """`pretraining.py`: fit energies and forces."""

    mode: Literal["train", "validate"] = "train"
    data: DataConfig
    model: ModelConfig
    optim: OptimizationConfig = OptimizationConfig()
    run_dir: str = Field("qm_pretrained_checkpoints", description="Root below which checkpoints are written.")
    identifier: Name = Field("", description="Appended to the name of the run.")
    seed: int = 0
    amp: bool = Field(False, description="Mixed precision (bfloat16 autocast).")
    cpu: bool = Field(False, description="Stay on the CPU even where there is a GPU.")
    print_every: Count = Field(50, description="Optimizer steps between console lines.")
    wandb: WandbConfig | None = None
