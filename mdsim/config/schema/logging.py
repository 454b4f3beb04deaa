"""Where scalars go besides TensorBoard."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mdsim.config.schema.base import Section


class WandbConfig(Section):
    """Weights & Biases; needs the extra `wandb`."""

    project: str = Field("mdsim", description="Name of the project there.")
    mode: Literal["online", "offline"] = Field(
        "online", description="offline keeps the log in the folder `wandb`, to be sent later."
    )
