"""Replicas that begin again from reference structures, each at its state point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mdsim.dynamics.state_points import StatePoint, begin_again
from mdsim.dynamics.stretch import Stretch
from mdsim.force_field import ForceField
from mdsim.state import MDState
from mdsim.training.explore import Replicas


@dataclass(frozen=True, eq=False)
class Restarts:
    """The initial conditions of replicas that begin again: a structure of their state point, and thermal velocities."""

    points: Sequence[StatePoint]

    def begin(
        self, replicas: MDState, force_field: ForceField, stretch: Stretch, generator: torch.Generator
    ) -> MDState:
        """The new states of replicas that begin again."""
        return begin_again(self.points, replicas, force_field, stretch, generator)

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
        if not bool(chosen.any()):
            return replicas
        again = self.begin(replicas.state[chosen], force_field, stretch, generator)
        return replace(replicas, state=replicas.state.assign(chosen, again))
