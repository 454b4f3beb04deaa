"""The joint gradient: the weighted sum of the gradients of all loss terms, with bounds on their ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from mdsim.errors import TrainingError, one_line
from mdsim.estimator.loss_term import LossTerm, TermGradient
from mdsim.estimator.parameter_gradient import Gradients, flat
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.typing import Tensor

SMOOTHED_STEPS = 6  # about one rerun


@dataclass(frozen=True, eq=False)
class WeightedTerm:
    """A loss term with its weight and bounds in the joint gradient.

    The norm of an estimate from samples varies by orders of magnitude within one learning phase. A few broken frames
    can make it far larger than the gradient of the labels, and an adaptive optimizer remembers such a spike for
    hundreds of steps. When few reruns still break, it becomes too small to matter. Bounds prevent both. They limit the
    norm of the weighted gradient relative to that of the *anchor*: the sum of the weighted gradients of unbounded
    terms.

    Args:
        term: the loss term.
        weight: factor on its gradient.
        min_ratio: smaller gradients are scaled up to this times the norm of the anchor. None: never.
        max_ratio: larger gradients are scaled down to this times the norm of the anchor. None: never.
        max_increase: for a term of the anchor: the relative increase of its loss at which bounded terms have faded to
            nothing. They fade in proportion to the increase. None: they do not fade.
    """

    term: LossTerm
    weight: float = 1.0
    min_ratio: float | None = None
    max_ratio: float | None = None
    max_increase: float | None = None

    @property
    def bounded(self) -> bool:
        return self.min_ratio is not None or self.max_ratio is not None

    def scale(self, norm: float, anchor_norm: float) -> float:
        """Factor that brings the norm of the weighted gradient within its bounds; 1 without an anchor."""
        if not (self.bounded and norm > 0 and anchor_norm > 0):
            return 1.0
        ratio = norm / anchor_norm
        return min(max(ratio, self.min_ratio or 0.0), self.max_ratio or math.inf) / ratio

    def fade(self, increase: float) -> float:
        """Factor on bounded terms, given the relative increase of the loss of this term."""
        return 1.0 if self.max_increase is None else min(1.0, max(0.0, 1.0 - increase / self.max_increase))


@dataclass(frozen=True)
class JointGradient:
    """The sum of all weighted gradients, with scalars of its parts for the log."""

    gradients: Gradients
    losses: dict[str, float]  # by term
    scalars: dict[str, float]
    n_evaluated: int


@dataclass
class LossIncreases:
    """Relative increases of losses since the start of a training, smoothed over minibatches.

    Attributes:
        first: loss at the first step, by term.
        latest: running mean over about `SMOOTHED_STEPS` steps, by term.
    """

    first: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)

    def after(self, name: str, loss: float) -> float:
        """Include the loss of another step, if it is finite, and return the relative increase."""
        if not math.isfinite(loss):
            return 0.0
        first = self.first.setdefault(name, loss)
        latest = self.latest.setdefault(name, loss)
        self.latest[name] = latest + (loss - latest) / SMOOTHED_STEPS
        return self.latest[name] / first - 1 if first > 0 else 0.0


def joint_gradient(
    terms: Sequence[WeightedTerm], force_field: ForceField, samples: Samples, increases: LossIncreases | None = None
) -> JointGradient | None:
    """Weight, bound and add the gradients of all terms. None if no term gives a gradient.

    Args:
        terms: the terms in order of evaluation.
        force_field: the force field with its current parameters.
        samples: samples of one rerun.
        increases: the losses so far, by which bounded terms fade. None: they do not fade.
    """
    pairs = [(weighted, _checked(weighted.term, force_field, samples)) for weighted in terms]
    found = [(weighted, gradient) for weighted, gradient in pairs if gradient is not None]
    if not found:
        return None
    vectors = [weighted.weight * flat(gradient.gradients) for weighted, gradient in found]
    anchor = sum((v for (w, _), v in zip(found, vectors, strict=True) if not w.bounded), torch.zeros_like(vectors[0]))
    norms, anchor_norm = [float(vector.norm()) for vector in vectors], float(anchor.norm())
    scalars: dict[str, float] = {}
    fade = 1.0
    if increases is not None:
        fade = math.prod(w.fade(increases.after(w.term.name, g.loss)) for w, g in found if w.max_increase is not None)
        scalars |= {"learn/fade": fade} if any(w.max_increase is not None for w, _ in found) else {}
    factors = []
    for (weighted, gradient), vector, norm in zip(found, vectors, norms, strict=True):
        factors.append(weighted.weight * weighted.scale(norm, anchor_norm) * (fade if weighted.bounded else 1.0))
        scalars |= _described(weighted, gradient, norm)
        if weighted.term.uses_samples and len(found) > 1:
            scalars |= _against_others(weighted.term.name, vector, sum(vectors, -vector))
    return JointGradient(
        _sum(factors, [gradient.gradients for _, gradient in found]),
        {weighted.term.name: gradient.loss for weighted, gradient in found},
        scalars,
        sum(gradient.n_evaluated for _, gradient in found),
    )


def _checked(term: LossTerm, force_field: ForceField, samples: Samples) -> TermGradient | None:
    """The gradient of a term, which may be custom, once it is clear that it fits the parameters.

    Raises:
        TrainingError: the term fails, or returns something else than a gradient of these parameters.
    """
    try:
        found = term.gradient(force_field, samples)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"loss term {term.name!r}: {type(error).__name__}: {one_line(error)}") from error
    if found is None:
        return None
    if not isinstance(found, TermGradient):
        raise TrainingError(f"loss term {term.name!r}: found a {type(found).__name__}, expected a TermGradient or None")
    shapes = [tuple(parameter.shape) for parameter in force_field.trainable_parameters]
    if [tuple(getattr(tensor, "shape", ())) for tensor in found.gradients] != shapes:
        raise TrainingError(
            f"loss term {term.name!r}: needs one gradient per trainable parameter ({len(shapes)}), of its shape"
        )
    numbers = {"loss": found.loss, **found.scalars}
    if wrong := [name for name, value in numbers.items() if not isinstance(value, float | int)]:
        raise TrainingError(f"loss term {term.name!r}: {', '.join(wrong)} must be numbers")
    return found


def _sum(factors: Sequence[float], gradients: Sequence[Gradients]) -> Gradients:
    parts = [[factor * tensor for tensor in tensors] for factor, tensors in zip(factors, gradients, strict=True)]
    return tuple(torch.stack(same).sum(0) for same in zip(*parts, strict=True))


def _described(weighted: WeightedTerm, gradient: TermGradient, norm: float) -> dict[str, float]:
    name = weighted.term.name
    own = {"loss": gradient.loss, "gradient_norm": norm / weighted.weight if weighted.weight else 0.0}
    return {f"learn/{name}_{key}": value for key, value in {**own, **gradient.scalars}.items()}


def _against_others(name: str, vector: Tensor, others: Tensor) -> dict[str, float]:
    """Norm ratio and cosine of a weighted gradient, before scaling, with respect to the sum of the others."""
    norm, of_others = float(vector.norm()), float(others.norm())
    return {
        f"learn/{name}_ratio": norm / max(of_others, 1e-30),
        f"learn/{name}_cosine": float(vector @ others) / max(norm * of_others, 1e-30),
    }
