"""Optimizer settings shared by pretraining and StABlE training."""

from __future__ import annotations

from pydantic import Field

from mdsim.config.schema.base import Fraction, NonNegative, Positive, Section


class OptimizerConfig(Section):
    """Settings of the optimizers besides the learning rate."""

    eps: Positive = Field(1e-8, description="Adam and AdamW: constant added to the root of the second moment.")
    weight_decay: NonNegative = Field(0.0, description="Weight decay.")
    amsgrad: bool = Field(False, description="Adam and AdamW: variant that keeps the largest second moment.")
    momentum: Fraction = Field(0.0, description="SGD: momentum.")
