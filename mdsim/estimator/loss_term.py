"""The loss term: one summand of the loss that StABlE training minimizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mdsim.estimator.parameter_gradient import Gradients
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField


@dataclass(frozen=True)
class TermGradient:
    """The gradient of a term, and what to log of it."""

    gradients: Gradients
    loss: float
    scalars: Mapping[str, float] = field(default_factory=dict)  # further ones, by name
    n_evaluated: int = 0  # structures evaluated for it


@runtime_checkable
class LossTerm(Protocol):
    """One summand of the loss. Terms do not know each other; their gradients are weighed and added elsewhere."""

    @property
    def name(self) -> str:
        """Unique among the terms of a training; prefix of what is logged."""
        ...

    @property
    def uses_samples(self) -> bool:
        """Whether the gradient depends on the frames of the rerun, which are reweighted after the first step."""
        ...

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """Gradient with respect to the parameters that require one; None where the samples say nothing.

        Args:
            force_field: with the current parameters.
            samples: of one rerun, with the weights that carry them to these parameters.
        """
        ...
