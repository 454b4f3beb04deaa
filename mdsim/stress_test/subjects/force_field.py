"""Force fields of mdsim, and of the packages whose files it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.force_field import ForceField
from mdsim.interfaces import Potential
from mdsim.state import System
from mdsim.typing import Float, Tensor


@dataclass(frozen=True, eq=False)
class ForceFieldSubject:
    """A force field, whose replicas are evaluated in one batch.

    Args:
        force_field: on the device of the test.
        name: as the user called it.
        model: its name in `mdsim.models.MODELS`, or that of its class.
    """

    force_field: ForceField
    name: str
    model: str

    @property
    def kind(self) -> str:
        return f"force field ({self.model})"

    @property
    def dtype(self) -> torch.dtype:
        return next(self.force_field.parameters(), torch.empty(())).dtype

    @property
    def device(self) -> torch.device:
        return next(self.force_field.parameters(), torch.empty(())).device

    def potential(self, system: System, precise: bool = False) -> Potential:
        """The force field bound to a system."""
        self.force_field.check_species(system)
        if not precise:
            return self.force_field.bind(system.to(self.device, self.dtype), fast=True)
        potential = self.force_field.frozen_copy().double().bind(system.to(self.device, torch.float64))

        def evaluate(positions: Float[Tensor, "replica atom 3"]) -> tuple[Tensor, Tensor]:
            energy, forces = potential(positions.to(self.device))
            return energy.to(positions), forces.to(positions)

        return evaluate

    def close(self) -> None:
        """Nothing to release."""
