"""Force fields, by the name they have in configs and checkpoints."""

from mdsim.models.gemnet import GemNetT
from mdsim.models.loading import MODELS, load_force_field, model_config
from mdsim.models.nequip.model import NequIP
from mdsim.models.schnet.model import SchNet

__all__ = ["MODELS", "GemNetT", "NequIP", "SchNet", "load_force_field", "model_config"]
