"""The loss term interface: one summand of the loss that StABlE training minimizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mdsim.estimator.parameter_gradient import Gradients
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField


@dataclass(frozen=True)
class TermGradient:
    """The gradient of a term, and the scalars to log."""

    gradients: Gradients
    loss: float  # a step whose loss is not finite is skipped, like one whose gradient is not
    scalars: Mapping[str, float] = field(default_factory=dict)  # further scalars, by name
    n_evaluated: int = 0  # structures evaluated for the gradient


@runtime_checkable
class LossTerm(Protocol):
    """One summand of the loss. Terms are independent, and `joint_gradient` weights and adds their gradients."""

    @property
    def name(self) -> str:
        """Name of the term, unique within a training. It is the prefix of the logged scalars."""
        ...

    @property
    def uses_samples(self) -> bool:
        """Whether the gradient uses the frames of the rerun, which are reweighted after the first step."""
        ...

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """Gradient with respect to the trainable parameters, or None if the samples give no gradient.

        Args:
            force_field: the force field with its current parameters.
            samples: samples of one rerun, with the weights that reweight them to these parameters.
        """
        ...
