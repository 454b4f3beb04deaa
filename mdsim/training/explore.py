"""The exploring phase: replicas move until enough have broken. Broken ones are parked at the start of the stretch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from mdsim.dynamics.stretch import Outcome, Stretch
from mdsim.force_field import ForceField
from mdsim.state import MDState
from mdsim.typing import Bool, Float, Tensor

REMEMBERED_STRETCHES = 20  # stretches that a replica can rewind


@dataclass(frozen=True)
class ExploreSettings:
    """The exploring phase of a cycle.

    Attributes:
        start_learning_at: fraction of parked replicas that ends the phase.
        max_epochs: epochs after which learning starts with the replicas parked so far. None: no limit.
        reset_probability: probability per epoch that a moving replica rewinds.
        restart_probability: probability per cycle that a replica begins again from a reference structure.
        learn_while_exploring: also step the parameters after exploring epochs in which a replica broke.
        persistent: replicas are chains that never park, and every epoch steps the parameters. A cycle has `max_epochs`.
    """

    start_learning_at: float = 0.75
    max_epochs: int | None = None
    reset_probability: float = 0.05
    restart_probability: float = 0.0
    learn_while_exploring: bool = False
    persistent: bool = False

    def ends(self, fraction_parked: float, epochs: int) -> bool:
        """Whether the phase ends. It never ends before a replica has broken."""
        long_enough = self.max_epochs is not None and epochs >= self.max_epochs
        return fraction_parked > 0 and (fraction_parked >= self.start_learning_at or long_enough)


@dataclass(frozen=True)
class Replicas:
    """All replicas between two stretches.

    Attributes:
        state: state of each replica. A parked one is at the start of the stretch in which it broke.
        parked: mask of the replicas that wait for the learning phase.
        stable_ps: time simulated without breaking since the start or the last release, ps.
        past: states at the starts of earlier stretches, to rewind to, oldest first.
    """

    state: MDState
    parked: Bool[Tensor, "replica"]
    stable_ps: Float[Tensor, "replica"]
    past: tuple[MDState, ...] = ()

    @classmethod
    def at(cls, state: MDState) -> Replicas:
        """Replicas that have not moved yet."""
        none = torch.zeros(state.n_replicas, dtype=torch.bool, device=state.energy.device)
        return cls(state, none, torch.zeros(state.n_replicas, dtype=torch.float64, device=none.device))

    @property
    def fraction_parked(self) -> float:
        return float(self.parked.double().mean())

    def released(self) -> Replicas:
        """The replicas with none parked, so that all move again from their current states."""
        return replace(self, parked=torch.zeros_like(self.parked), stable_ps=torch.zeros_like(self.stable_ps))

    def state_dict(self) -> dict:
        """The tensors, for checkpoints."""
        return {
            "state": self.state.tensors(),
            "parked": self.parked,
            "stable_ps": self.stable_ps,
            "past": [state.tensors() for state in self.past],
        }

    @classmethod
    def from_state_dict(cls, saved: dict, device: torch.device | str = "cpu") -> Replicas:
        return cls(
            MDState(**saved["state"]).to(device),
            saved["parked"].to(device),
            saved["stable_ps"].to(device),
            tuple(MDState(**tensors).to(device) for tensors in saved["past"]),
        )


def explore(
    replicas: Replicas, force_field: ForceField, stretch: Stretch, generator: torch.Generator
) -> tuple[Replicas, Outcome]:
    """Run the unparked replicas for one stretch, and park those that break.

    Returns:
        The replicas afterward, and the outcome for those that moved.
    """
    moving = torch.nonzero(~replicas.parked).squeeze(-1)
    start = replicas.state[moving]
    outcome = stretch.run(force_field, start, generator)
    broke = outcome.verdict.unstable
    end = outcome.state.assign(broke, start[broke])
    stable_ps = replicas.stable_ps.index_add(0, moving, outcome.stable_ps.to(replicas.stable_ps))
    parked = replicas.parked.index_put((moving,), broke)
    past = (*replicas.past, replicas.state)[-REMEMBERED_STRETCHES:]
    return Replicas(replicas.state.assign(moving, end), parked, stable_ps, past), outcome


def rewind(replicas: Replicas, probability: float, generator: torch.Generator) -> tuple[Replicas, int]:
    """Send each moving replica back, with the given probability, to one of its earlier stretch starts.

    Rewinding branches trajectories into other, equally likely continuations. The explored set is then larger than one
    trajectory per replica.

    Returns:
        The replicas and the number that were rewound.
    """
    n_replicas, device = len(replicas.parked), generator.device
    draw = torch.rand(n_replicas, generator=generator, device=device)
    which = torch.randint(max(len(replicas.past), 1), (n_replicas,), generator=generator, device=device)
    chosen = (draw < probability).to(replicas.parked.device) & ~replicas.parked
    if not replicas.past or not bool(chosen.any()):
        return replicas, 0
    state = replicas.state
    for age, earlier in enumerate(replicas.past):
        here = chosen & (which == age).to(chosen.device)
        state = state.assign(here, earlier[here])
    return replace(replicas, state=state), int(chosen.sum())
