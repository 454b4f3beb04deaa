"""The force field in checkpoints of a training: averaged parameters, and energies centered on the labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mdsim import checkpoints
from mdsim.datasets.npz import Frames
from mdsim.force_field import ForceField
from mdsim.models.loading import model_config
from mdsim.state import System
from mdsim.training.average import ParameterAverage

MOST_FRAMES = 100  # more would not improve the mean error of energies, which is a few meV per atom at most


@dataclass(frozen=True, eq=False)
class LabelMean:
    """Labeled frames whose mean energy error is removed. Sampled terms leave this constant undetermined.

    Args:
        system: the system of the frames, on the device and in the precision of the model.
        frames: the labeled training frames.
    """

    system: System
    frames: Frames

    @contextmanager
    def removed(self, force_field: ForceField) -> Iterator[ForceField]:
        """The force field with a zero of energy without mean error. Afterward it has its own again, bit for bit."""
        own = force_field.energy_zero_state()
        frames = self.frames[:: -(-len(self.frames) // MOST_FRAMES)]
        force_field.recenter(self.system, frames.positions, frames.energy)
        try:
            yield force_field
        finally:
            force_field.load_energy_zero_state(own)


def saved_weights(average: ParameterAverage, label_mean: LabelMean | None, facts: dict[str, Any]) -> dict[str, Any]:
    """The payload of a checkpoint.

    Args:
        average: the parameters, averaged or not.
        label_mean: removes the mean error of energies. None: the zero of energy is unchanged.
        facts: provenance.
    """
    with average.applied() as force_field:
        if label_mean is None or not all(torch.isfinite(p).all() for p in force_field.parameters()):
            return checkpoints.force_field_payload(force_field, model_config(force_field), facts)
        with label_mean.removed(force_field):
            return checkpoints.force_field_payload(force_field, model_config(force_field), facts)
