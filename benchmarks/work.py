"""Minimum work of one evaluation of energies and forces: floating-point operations and memory traffic."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import Case
from mdsim.models import SchNet
from mdsim.neighbors import neighbors
from mdsim.typing import Float, Tensor

SPLINE_KNOTS = 512
FLOPS_PER_CHANNEL = 36  # per pair. Forward: spline 8, messages 4. Backward: spline and slope 16, messages 4, distance 4
FLOPS_PER_ACTIVATION = 40  # softplus forward, sigmoid backward


@dataclass(frozen=True)
class Work:
    """Work of one evaluation. Bytes are those of weights, tables and state, each moved once, without caches."""

    flops: float
    n_bytes: float


def evaluation_work(case: Case, positions: Float[Tensor, "replica atom 3"]) -> Work:
    """Required operations of an evaluation, counted by hand for SchNet with tabulated filters.

    For other models, they are the matrix products of the plain path, by torch's counter.
    """
    state = 4.0 * 2 * positions.numel()
    parameters = 4.0 * sum(parameter.numel() for parameter in case.force_field.parameters())
    if isinstance(case.force_field, SchNet):
        return _schnet_work(case, positions, parameters + state)
    potential = case.force_field.bind(case.system)
    with FlopCounterMode(display=False) as counter:
        potential(positions)
    return Work(float(counter.get_total_flops()), parameters + state)


def _schnet_work(case: Case, positions: Float[Tensor, "replica atom 3"], n_bytes: float) -> Work:
    settings = case.force_field.hyperparameters
    hidden, filters, layers = (settings[f"{key}"] for key in ("hidden_channels", "num_filters", "num_interactions"))
    n_pairs = neighbors(case.system, positions, case.force_field.cutoff).n_pairs
    n_atoms = positions.shape[0] * positions.shape[1]
    products = 2 * 2 * (2 * hidden * filters + hidden * hidden)  # per atom and layer, forward and backward
    of_pairs = n_pairs * layers * filters * FLOPS_PER_CHANNEL
    of_atoms = n_atoms * (layers * (products + FLOPS_PER_ACTIVATION * hidden) + 2 * hidden * hidden)
    return Work(float(of_pairs + of_atoms), n_bytes + 4.0 * SPLINE_KNOTS * layers * 2 * filters)
