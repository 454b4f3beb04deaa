"""GemNet-T."""

from mdsim.models.gemnet.model import GemNetT

__all__ = ["GemNetT"]
