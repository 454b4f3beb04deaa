"""Optimizers, which pretraining and StABlE training share."""

from __future__ import annotations

from pydantic import Field

from mdsim.config.schema.base import Fraction, NonNegative, Positive, Section


class OptimizerConfig(Section):
    """What the optimizers take besides the learning rate."""

    eps: Positive = Field(1e-8, description="Of Adam and AdamW: added to the root of the second moment.")
    weight_decay: NonNegative = Field(0.0, description="Of the optimizer.")
    amsgrad: bool = Field(False, description="Variant of Adam and AdamW that keeps the largest second moment.")
    momentum: Fraction = Field(0.0, description="Of SGD.")
