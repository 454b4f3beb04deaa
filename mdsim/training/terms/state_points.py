"""One loss at several state points: the sum of the terms of each, of which every one sees the samples of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdsim.dynamics.state_points import Conditions
from mdsim.estimator.loss_term import LossTerm, TermGradient
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField


@dataclass(frozen=True, eq=False)
class TermAt:
    """A loss term with the references of one state point, its conditions, and its weight in the sum."""

    conditions: Conditions
    term: LossTerm
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class StatePointsTerm:
    """The weighted sum of a term that uses samples over state points.

    Averages, covariances and kT are those of each state point s: the gradient of observables, for example, is
    Σ_s w_s λ_s · d<g>_s/dθ with d<g>_s/dθ = -Cov_s(g, ∂U/∂θ) / kT_s. A state point without samples in a rerun, because
    none of its replicas broke, adds nothing.

    Args:
        parts: the term at each state point. They have one name.
    """

    parts: Sequence[TermAt]

    @property
    def name(self) -> str:
        return self.parts[0].term.name

    @property
    def uses_samples(self) -> bool:
        return True

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """The sum, or None without a gradient at any state point. The losses of all are among the scalars."""
        pairs = [(part, part.term.gradient(force_field, samples.at(part.conditions))) for part in self.parts]
        found = [(part, gradient) for part, gradient in pairs if gradient is not None]
        if not found:
            return None
        scalars: dict[str, float] = {}
        for part, gradient in found:
            own = {"loss": gradient.loss, **gradient.scalars}
            scalars |= {f"{part.conditions.label}_{name}": value for name, value in own.items()}
        tensors = zip(*(gradient.gradients for _, gradient in found), strict=True)
        weights = [part.weight for part, _ in found]
        return TermGradient(
            tuple(torch.stack([w * t for w, t in zip(weights, same, strict=True)]).sum(0) for same in tensors),
            sum(part.weight * gradient.loss for part, gradient in found),
            scalars,
            sum(gradient.n_evaluated for _, gradient in found),
        )
