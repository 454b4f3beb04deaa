"""Loss of mean observables against their references, with gradients by the Boltzmann estimator.

Source: Raja et al., TMLR 2025, arXiv 2402.13984, global and local estimators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mdsim.estimator.boltzmann import boltzmann_gradient
from mdsim.estimator.loss_term import TermGradient
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.interfaces import BinnedObservable, Observable
from mdsim.observables.densities import UNVISITED, is_density, unvisited
from mdsim.typing import Float, Tensor

FEWEST_SAMPLES = 2  # for a covariance


@dataclass(frozen=True)
class Target:
    """An observable, its reference, the loss between them, and the weight of that loss.

    Raises:
        ValueError: an observable that depends on the parameters of the force field.
    """

    observable: Observable
    reference: Float[Tensor, "bin"]
    loss: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if getattr(self.observable, "depends_on_parameters", False):
            raise ValueError(
                f"{self.observable.name} depends on the parameters of the force field and is no target, because the "
                "estimator has no gradient of the observable itself"
            )


@dataclass(frozen=True, eq=False)
class ObservableTerm:
    """The weighted sum of the losses of mean observables, with one backward pass per minibatch for all of them.

    Args:
        targets: one or more targets.
        paper_estimator: the scaling of the published code, see `boltzmann_gradient`.
    """

    targets: Sequence[Target]
    paper_estimator: bool = False
    name: str = "observables"
    uses_samples: bool = True

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """Boltzmann estimate of the gradient, or None with fewer than two samples."""
        if len(samples) < FEWEST_SAMPLES:
            return None
        estimate = boltzmann_gradient(
            samples.energies(force_field),
            force_field.trainable_parameters,
            torch.cat([samples.values(target.observable) for target in self.targets], dim=-1),
            self.loss,
            samples.kT,
            minibatch_size=samples.minibatch_size(force_field),
            weights=samples.weights,
            paper_estimator=self.paper_estimator,
            generator=samples.generator,
        )
        shares = self._unvisited(estimate.mean)
        loss, *known = torch.stack([estimate.loss, *shares.values()]).tolist()  # one wait for a device
        scalars = dict(zip(shares, known, strict=True))
        return TermGradient(estimate.gradients, loss, scalars, n_evaluated=len(samples.positions))

    def _unvisited(self, mean: Float[Tensor, "bin"]) -> dict[str, Tensor]:
        """Share of each reference density in bins that no sample visits, by the name of a scalar."""
        parts = mean.split([len(target.reference) for target in self.targets])
        return {
            f"{target.observable.name}{UNVISITED}": unvisited(target.reference, part)
            for part, target in zip(parts, self.targets, strict=True)
            if isinstance(target.observable, BinnedObservable) and is_density(target.observable)
        }

    def loss(self, mean: Float[Tensor, "bin"]) -> Float[Tensor, ""]:
        """The weighted sum of losses, given the concatenated mean observables."""
        return weighted_loss(self.targets, mean)


def weighted_loss(targets: Sequence[Target], mean: Float[Tensor, "bin"]) -> Float[Tensor, ""]:
    """The weighted sum of the losses of targets, given their concatenated mean observables."""
    pairs = zip(mean.split([len(target.reference) for target in targets]), targets, strict=True)
    return torch.stack([t.weight * t.loss(part, t.reference.to(part)) for part, t in pairs]).sum()
