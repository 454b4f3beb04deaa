"""The `wandb` section: logging to Weights & Biases in addition to TensorBoard."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mdsim.config.schema.base import Section


class WandbConfig(Section):
    """Weights & Biases. Needs the extra `wandb`."""

    project: str = Field("mdsim", description="Name of the W&B project.")
    mode: Literal["online", "offline"] = Field(
        "online", description="offline: the log stays in the folder `wandb` and can be uploaded later."
    )
