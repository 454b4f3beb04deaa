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
    """Length of a gradient against its statistical error, both over all parameters."""

    norm: float
    standard_error: float

    @property
    def ratio(self) -> float:
        """Signal-to-noise ratio; a gradient of pure noise has about 1."""
        return self.norm / self.standard_error if self.standard_error else math.inf


def signal_to_noise(
    term: LossTerm, force_field: ForceField, samples: Samples, n_blocks: int = N_BLOCKS
) -> GradientSignal | None:
    """Signal of the gradient of a term that uses samples; None where it gives no gradient.

    Args:
        term: costs one gradient per block.
        force_field: with the current parameters.
        samples: of one rerun. Those of one replica are correlated and stay in one block.
        n_blocks: replicas are dealt to so many.
    """

    def gradient(kept: Tensor) -> Gradients | None:
        found = term.gradient(force_field, samples.subset(kept))
        return None if found is None else found.gradients

    return jackknife(gradient, samples.replica % n_blocks)


def jackknife(gradient: Callable[[Tensor], Gradients | None], blocks: Int[Tensor, "sample"]) -> GradientSignal | None:
    """Norm and standard error of a gradient by leaving out one block of samples at a time.

    Unlike an error at a fixed derivative of the loss it includes the error of that derivative, which dominates where a
    mean observable is close to its reference.

    Args:
        gradient: of the samples with these indices.
        blocks: label of each sample; correlated ones share a label. Blocks should be about equal in size.

    Raises:
        ValueError: there is one block alone.
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
