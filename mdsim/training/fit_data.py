"""The labeled frames of a fit: of one system, or of several compositions and cells (`mdsim.training.mixed_fit`)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from mdsim.datasets.npz import Frames
from mdsim.evaluation.errors import predictions_and_labels
from mdsim.force_field import ForceField
from mdsim.losses import EnergyForceLoss, energy_force_errors
from mdsim.neighbors import neighbors
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


@runtime_checkable
class FitData(Protocol):
    """Labeled training and validation frames, with the loss of a fit to them."""

    @property
    def n_train(self) -> int:
        """Number of training frames."""

    def prepare(self, model: ForceField, pretrained: bool = False) -> ForceField:
        """Set the zero of energy and the scales of a model from the training frames, and move it to their device.

        Of a model that was fitted before, only the zero of energy is set.
        """

    def loss_of(self, model: ForceField, chosen: Int[Tensor, "sample"], amp: bool) -> Float[Tensor, ""]:
        """The loss of some training frames. With ``amp``, the model runs under bfloat16 autocast."""

    def validate(self, model: ForceField, batch_size: int) -> tuple[dict[str, float], float]:
        """Errors and loss of the validation frames, a few at a time."""

    def recenter(self, model: ForceField, batch_size: int) -> float:
        """Shift the zero of energy to that without mean error on the training frames. Returns the shift, eV."""


class OneSystem:
    """Frames of one system.

    Args:
        system: the system, on the training device and in the training precision.
        train, val: labeled frames.
        loss: loss of energies, forces and their references.
    """

    def __init__(self, system: System, train: Frames, val: Frames, loss: EnergyForceLoss) -> None:
        self.system, self.train, self.val, self.loss = system, train, val, loss
        self.positions = train.positions.to(system.masses)
        self.forces = train.labels.to(system.masses)

    @property
    def n_train(self) -> int:
        return len(self.positions)

    def prepare(self, model: ForceField, pretrained: bool = False) -> ForceField:
        device = self.system.masses.device
        if pretrained:
            model.to(device, self.system.masses.dtype).recenter(self.system, self.train.positions, self.train.energy)
        else:
            model.normalize_to(self.system, self.train.positions, self.train.energy, self.train.labels)
        model = model.to(device, self.system.masses.dtype)
        self.energy = (self.train.energy.to(device) - model.zero_energy_eV(self.system)).to(self.system.masses)
        return model

    def loss_of(self, model: ForceField, chosen: Int[Tensor, "sample"], amp: bool) -> Float[Tensor, ""]:
        chosen = chosen.to(self.positions.device)
        positions = self.positions[chosen]
        pairs = neighbors(self.system, positions, model.cutoff)
        with torch.autocast(positions.device.type, torch.bfloat16, enabled=amp):
            energy, forces = model(self.system, positions, pairs, create_graph=True)
        return self.loss(energy.to(positions), forces.to(positions), self.energy[chosen], self.forces[chosen])

    def validate(self, model: ForceField, batch_size: int) -> tuple[dict[str, float], float]:
        compared = predictions_and_labels(model, self.system, self.val, batch_size)
        return energy_force_errors(*compared), float(self.loss(*compared))

    def recenter(self, model: ForceField, batch_size: int) -> float:
        model = model.to(self.system.masses.device)
        return model.recenter(self.system, self.positions, self.train.energy, batch_size)
