"""The force fields that the contract suite runs on: name and a small model with random weights.

A model is added here and nowhere else. Weights are scaled up so that energies vary by eV, not meV: tolerances then
mean something.
"""

from collections.abc import Callable

import torch

from mdsim.interfaces import ForceField
from mdsim.models import SchNet


def _schnet() -> ForceField:
    model = SchNet(hidden_channels=16, num_filters=16, num_interactions=3, num_gaussians=12, cutoff=4.0)
    torch.nn.init.normal_(model.lin2.weight, std=4.0)
    return model


FORCE_FIELDS: dict[str, Callable[[], ForceField]] = {"schnet": _schnet}


def build(name: str, seed: int = 3) -> ForceField:
    """The registered force field in float64; the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FORCE_FIELDS[name]().double().eval()
