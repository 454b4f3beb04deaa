"""A stretch of dynamics, judged frame by frame: the unit of exploring, learning and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mdsim import distributed
from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.force_field import FAST_TOLERANCE, ForceField, Together
from mdsim.integrators.barostat import Barostat
from mdsim.interfaces import CellPotential, Integrator, Potential, StabilityCriterion
from mdsim.moving_cells import bind_in_cells
from mdsim.stability.verdict import Verdict, first_unstable
from mdsim.state import MDState, System, Trajectory
from mdsim.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Outcome:
    """The result of a stretch: last state, frames, and the first unstable frame of each replica."""

    state: MDState
    trajectory: Trajectory
    verdict: Verdict

    @property
    def frame(self) -> Int[Tensor, "frame 1"]:
        """The index of each frame, to compare with the verdict."""
        return torch.arange(self.trajectory.n_frames, device=self.trajectory.positions.device)[:, None]

    @property
    def after_break(self) -> Bool[Tensor, "frame replica"]:
        """Mask of the first unstable frame of each replica and of all later ones."""
        return self.frame >= self.verdict.first_frame.to(self.frame.device)

    def of_all_ranks(self, n_replicas: int) -> Outcome:
        """The outcome of all replicas, from the shares of all ranks."""
        gathered, verdict = distributed.gathered, self.verdict
        return Outcome(
            MDState(**{name: gathered(value, n_replicas) for name, value in self.state.tensors().items()}),
            self.trajectory.map(lambda frames: gathered(frames, n_replicas, dim=1)),
            Verdict(
                gathered(verdict.first_frame, n_replicas),
                gathered(verdict.unstable, n_replicas),
                tuple(distributed.gathered_objects(verdict.reason, n_replicas)),
            ),
        )

    @property
    def stable_ps(self) -> Float[Tensor, "replica"]:
        """Time before the first unstable frame of each replica, or of all frames, ps."""
        return self.verdict.first_frame.double() * self.trajectory.frame_interval_fs / 1000


@dataclass(frozen=True)
class Stretch:
    """The dynamics of one epoch: ``n_steps`` steps, a frame every ``dump_every`` steps, and the stability criteria."""

    system: System
    integrator: Integrator
    n_steps: int
    dump_every: int
    criteria: Sequence[StabilityCriterion]
    fast: bool = True  # allow a faster force evaluation that is equal within rounding
    fast_tolerance: float = FAST_TOLERANCE  # largest relative interpolation error of the fast path
    prior: Potential | None = None  # added to the force field

    def run(
        self,
        force_field: ForceField,
        state: MDState,
        generator: torch.Generator,
        keep_every: int | None = None,
    ) -> Outcome:
        """Simulate from ``state``. The neighbor list is new, so that the result depends on the arguments alone.

        With several ranks each simulates and judges its share of the replicas. All have the outcome of all.

        Args:
            force_field: its parameters are frozen for the stretch.
            state: initial state of all replicas.
            generator: generator of the thermostat's noise.
            keep_every: smaller interval between frames, in steps. It must divide ``dump_every``.
        """
        mine = distributed.share_of_equals(state.n_replicas, state.energy.device)
        end, trajectory = simulate(
            self.system,
            self.potential(force_field),
            self.integrator,
            state[mine],
            self.n_steps,
            keep_every or self.dump_every,
            generator,
            mine,
        )
        own = Outcome(end, trajectory, first_unstable(self.criteria, self.system, trajectory))
        return own if distributed.n_ranks() == 1 else own.of_all_ranks(state.n_replicas)

    def begin(
        self,
        force_field: ForceField,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
        kT: Float[Tensor, "replica"] | None = None,
        pressure: Float[Tensor, "replica"] | None = None,
        cells: Float[Tensor, "replica 3 3"] | None = None,
    ) -> MDState:
        """The state at the given positions (Å) and velocities (ASE units), with the thermostat at rest.

        With ``kT`` (eV) each replica has its own bath, with ``pressure`` (eV/Å³) its own pressure, and with ``cells``
        (Å) its own cell. Those need a barostat.
        """
        moves = self.integrator
        if isinstance(moves, Barostat):
            state = moves.init(self.system, self.potential_in_cells(force_field), positions, velocities, cells)
        elif pressure is None and cells is None:
            state = moves.init(self.system, self.potential(force_field), positions, velocities)
        else:
            raise ValueError(f"{type(moves).__name__} is at constant volume: pressures and cells need a barostat")
        own = {"kT": kT, "pressure": pressure}
        return replace(state, **{name: value.to(state.energy) for name, value in own.items() if value is not None})

    def potential(self, force_field: ForceField) -> Potential | CellPotential:
        """The potential of the dynamics: the force field, with the prior if there is one."""
        bind = self.potential_in_cells if self.moves_cells else self.potential_at_constant_volume
        return bind(force_field)

    def potential_in_cells(self, force_field: ForceField) -> CellPotential:
        """That of structures in any cells, with their stress."""
        tolerance, prior = self.fast_tolerance, self.prior
        return bind_in_cells(force_field, self.system, fast=self.fast, tolerance=tolerance, prior=prior)

    def potential_at_constant_volume(self, force_field: ForceField) -> Potential:
        """That of structures in the cell of the system, whether or not the dynamics moves it."""
        potential = force_field.bind(self.system, fast=self.fast, tolerance=self.fast_tolerance)
        return potential if self.prior is None else Together(potential, self.prior)

    def judge(self, state: MDState) -> Verdict:
        """Verdict on the replicas in a single state."""
        interval_fs = self.dump_every * self.integrator.timestep_fs
        cell = None if state.cell is None else state.cell[None]
        frame = Trajectory(state.positions[None], state.velocities[None], state.energy[None], interval_fs, cell)
        return first_unstable(self.criteria, self.system, frame)

    @property
    def moves_cells(self) -> bool:
        """Whether the dynamics is at constant pressure."""
        return isinstance(self.integrator, Barostat)

    @property
    def length_ps(self) -> float:
        return self.n_steps * self.integrator.timestep_fs / 1000


def initial_conditions(
    system: System,
    frames: Float[Tensor, "frame atom 3"],
    n_replicas: int,
    temperature_K: float | Float[Tensor, "replica"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"]]:
    """Positions drawn from the frames (each at most once while they last) and Maxwell-Boltzmann velocities.

    The temperature is that of all replicas, or of each.
    """
    rounds = -(-n_replicas // len(frames))
    order = [torch.randperm(len(frames), generator=generator, device=generator.device) for _ in range(rounds)]
    positions = frames[torch.cat(order)[:n_replicas].to(frames.device)].to(system.masses)
    velocities = maxwell_boltzmann(system, n_replicas, temperature_K, generator, positions=positions)
    return positions, velocities
