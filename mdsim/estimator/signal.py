"""Signal-to-noise ratio of a gradient, by a jackknife over blocks of reruns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mdsim.estimator.loss_term import LossTerm
from mdsim.estimator.parameter_gradient import Gradients, flat
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.typing import Int, Tensor

N_BLOCKS = 8


@dataclass(frozen=True)
class GradientSignal:
    """Norm of a gradient and its standard error, both over all parameters."""

    norm: float
    standard_error: float

    @property
    def ratio(self) -> float:
        """Signal-to-noise ratio. It is about 1 for pure noise."""
        return self.norm / self.standard_error if self.standard_error else math.inf


def signal_to_noise(
    term: LossTerm, force_field: ForceField, samples: Samples, n_blocks: int = N_BLOCKS
) -> GradientSignal | None:
    """Signal of the gradient of a term that uses samples, or None without a gradient. Costs one gradient per block.

    Args:
        term: the loss term.
        force_field: the force field with its current parameters.
        samples: samples of one rerun. Those of one replica are correlated and stay in one block.
        n_blocks: number of blocks, over which the replicas are distributed.
    """

    def gradient(kept: Tensor) -> Gradients | None:
        found = term.gradient(force_field, samples.subset(kept))
        return None if found is None else found.gradients

    return jackknife(gradient, samples.replica % n_blocks)


def jackknife(gradient: Callable[[Tensor], Gradients | None], blocks: Int[Tensor, "sample"]) -> GradientSignal | None:
    """Norm and standard error of a gradient by leaving out one block of samples at a time.

    The error includes that of the derivative of the loss, which dominates when a mean observable is close to its
    reference.

    Args:
        gradient: gradient of the samples with the given indices.
        blocks: label of each sample. Correlated samples share a label. Blocks should have about equal sizes.

    Raises:
        ValueError: there is only one block.
    """
    labels = blocks.unique()
    if len(labels) < 2:
        raise ValueError(f"a jackknife needs at least two blocks of samples, found {len(labels)}")
    found = [gradient(torch.nonzero(blocks != label).squeeze(-1)) for label in labels]
    if any(part is None for part in found):
        return None
    replicates = torch.stack([flat(part) for part in found if part is not None])
    center = replicates.mean(0)
    variance = (len(labels) - 1) / len(labels) * (replicates - center).square().sum()
    return GradientSignal(norm=float(center.norm()), standard_error=float(variance.sqrt()))
