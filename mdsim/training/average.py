"""Running average of parameters over the steps of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mdsim.force_field import ForceField
from mdsim.typing import Tensor


class ParameterAverage:
    """Exponential moving average of the trainable parameters, by name. It begins with those after the first step.

    Args:
        force_field: the force field in training. Its other parameters and its buffers are not averaged.
        decay: weight of the earlier steps at each step. None: no average.
    """

    def __init__(self, force_field: ForceField, decay: float | None) -> None:
        self.force_field = force_field
        self.decay = decay
        self.steps = 0
        self.parameters = {} if decay is None else _copied(force_field)

    def update(self) -> None:
        """Include the parameters after another step."""
        if self.decay is None:
            return
        new_weight = 1.0 - self.decay if self.steps else 1.0
        current = dict(self.force_field.named_parameters())
        with torch.no_grad():
            for name, average in self.parameters.items():
                average.lerp_(current[name], new_weight)
        self.steps += 1

    @contextmanager
    def applied(self) -> Iterator[ForceField]:
        """The force field with the averaged parameters, if any. Afterward it has its own again, bit for bit."""
        if not self.steps:
            yield self.force_field
            return
        own = _copied(self.force_field)
        _assign(self.force_field, self.parameters)
        try:
            yield self.force_field
        finally:
            _assign(self.force_field, own)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later averages depend on."""
        return {"parameters": {name: value.clone() for name, value in self.parameters.items()}, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        for name, average in self.parameters.items():
            average.copy_(state["parameters"][name])
        self.steps = state["steps"]


def _copied(force_field: ForceField) -> dict[str, Tensor]:
    named = force_field.named_parameters()
    return {name: parameter.detach().clone() for name, parameter in named if parameter.requires_grad}


def _assign(force_field: ForceField, values: dict[str, Tensor]) -> None:
    current = dict(force_field.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            current[name].copy_(value)
