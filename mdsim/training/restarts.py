"""Replicas that begin again from reference structures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.force_field import ForceField
from mdsim.state import MDState
from mdsim.training.explore import Replicas
from mdsim.typing import Float, Tensor


@dataclass(frozen=True, eq=False)
class Restarts:
    """The initial conditions of replicas that begin again: one of the structures (Å), and thermal velocities."""

    positions: Float[Tensor, "structure atom 3"]
    temperature_K: float

    def begin(self, n: int, force_field: ForceField, stretch: Stretch, generator: torch.Generator) -> MDState:
        """The states of `n` replicas that begin again."""
        again = initial_conditions(stretch.system, self.positions, n, self.temperature_K, generator)
        return stretch.begin(force_field, *again)

    def of_some(
        self,
        replicas: Replicas,
        probability: float,
        force_field: ForceField,
        stretch: Stretch,
        generator: torch.Generator,
    ) -> Replicas:
        """The replicas, each of which begins again with the given probability."""
        draw = torch.rand(len(replicas.parked), generator=generator, device=generator.device)
        chosen = (draw < probability).to(replicas.parked.device)
        if not (n := int(chosen.sum())):
            return replicas
        state = replicas.state.assign(chosen, self.begin(n, force_field, stretch, generator))
        return replace(replicas, state=state)
