"""One stretch of dynamics of many replicas, judged frame by frame: what exploring, learning and evaluation all run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.force_field import FAST_TOLERANCE, ForceField
from mdsim.interfaces import Integrator, Potential, StabilityCriterion
from mdsim.stability.verdict import Verdict, first_unstable
from mdsim.state import MDState, System, Trajectory
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class Outcome:
    """Where the replicas ended, the frames on the way, and the first unstable frame of each."""

    state: MDState
    trajectory: Trajectory
    verdict: Verdict


@dataclass(frozen=True)
class Stretch:
    """The dynamics of one epoch: ``n_steps`` steps, a frame after each ``dump_every`` of them, and the criteria."""

    system: System
    integrator: Integrator
    n_steps: int
    dump_every: int
    criteria: Sequence[StabilityCriterion]
    fast: bool = True  # let the force field choose a quicker path that is equal within rounding
    fast_tolerance: float = FAST_TOLERANCE  # of what that path interpolates, relative
    prior: Potential | None = None  # added to the force field

    def run(
        self,
        force_field: ForceField,
        state: MDState,
        generator: torch.Generator,
        keep_every: int | None = None,
    ) -> Outcome:
        """Simulate from ``state``. A fresh neighbor list makes the result a function of the arguments alone.

        Args:
            force_field: its parameters are frozen for the stretch.
            state: where every replica starts.
            generator: of the thermostat's noise.
            keep_every: keep frames more densely than ``dump_every``; must divide it.
        """
        state, trajectory = simulate(
            self.system,
            self._potential(force_field),
            self.integrator,
            state,
            self.n_steps,
            keep_every or self.dump_every,
            generator,
        )
        return Outcome(state, trajectory, first_unstable(self.criteria, self.system, trajectory))

    def begin(self, force_field: ForceField, positions: Float[Tensor, "replica atom 3"], velocities: Tensor) -> MDState:
        """The state at the given positions (Å) and velocities (ASE units), with the thermostat at rest."""
        return self.integrator.init(self.system, self._potential(force_field), positions, velocities)

    def _potential(self, force_field: ForceField) -> Potential:
        potential = force_field.bind(self.system, fast=self.fast, tolerance=self.fast_tolerance)
        prior = self.prior
        if prior is None:
            return potential

        def total(positions: Tensor) -> tuple[Tensor, Tensor]:
            energy, forces = potential(positions)
            held, pull = prior(positions)
            return energy + held, forces + pull

        return total

    def judge(self, state: MDState) -> Verdict:
        """Which replicas the criteria call unstable where they stand."""
        interval_fs = self.dump_every * self.integrator.timestep_fs
        frame = Trajectory(state.positions[None], state.velocities[None], state.energy[None], interval_fs)
        return first_unstable(self.criteria, self.system, frame)

    @property
    def length_ps(self) -> float:
        return self.n_steps * self.integrator.timestep_fs / 1000


def initial_conditions(
    system: System,
    frames: Float[Tensor, "frame atom 3"],
    n_replicas: int,
    temperature_K: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"]]:
    """Positions drawn from the frames (each at most once while they last) and Maxwell-Boltzmann velocities."""
    rounds = -(-n_replicas // len(frames))
    order = torch.cat([torch.randperm(len(frames), generator=generator) for _ in range(rounds)])
    positions = frames[order[:n_replicas]].to(system.masses)
    velocities = maxwell_boltzmann(system, n_replicas, temperature_K, generator, positions=positions)
    return positions, velocities
