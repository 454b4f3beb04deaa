"""Where scalars go besides TensorBoard."""

from __future__ import annotations

from typing import Literal

from mdsim.schema.base import Section


class WandbConfig(Section):
    """Weights & Biases; needs the extra `wandb`."""

    project: str = "mdsim"
    mode: Literal["online", "offline"] = "online"
