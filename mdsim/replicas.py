"""Molecular dynamics of many replicas in one call, judged frame by frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from mdsim.boundaries import cell_of
from mdsim.datasets.folder import Dataset
from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.force_field import ForceField
from mdsim.interfaces import Integrator, Observable, StabilityCriterion
from mdsim.models.loading import load_force_field
from mdsim.stability.survival import Lifetimes
from mdsim.stability.verdict import Verdict
from mdsim.state import MDState, System, Trajectory
from mdsim.typing import Bool, Float, Tensor


@dataclass(frozen=True)
class Simulation:
    """The result of a simulation: frames, last state, and when and why each replica became unphysical."""

    system: System
    trajectory: Trajectory
    state: MDState
    verdict: Verdict

    @property
    def stable_ps(self) -> Float[Tensor, "replica"]:
        """Stable time of each replica, ps. It is the whole length if the replica did not break."""
        return self.verdict.first_frame.double() * self.trajectory.frame_interval_fs / 1000

    @property
    def lifetimes(self) -> Lifetimes:
        """Stable times in ps, censored if a replica did not break, for `kaplan_meier`."""
        return Lifetimes(self.stable_ps.cpu().numpy(), self.verdict.unstable.cpu().numpy())

    @property
    def stable_frames(self) -> Bool[Tensor, "frame replica"]:
        """The frames of each replica before it broke."""
        frames = torch.arange(self.trajectory.n_frames, device=self.verdict.first_frame.device)
        return frames[:, None] < self.verdict.first_frame

    def mean(self, observable: Observable) -> Float[Tensor, "bin"]:
        """An observable of the stable part of the simulation, in its own unit.

        Args:
            observable: a structural one is averaged over the stable frames of all replicas, a dynamical one over the
                replicas that are stable throughout.

        Raises:
            ValueError: there are no stable frames or replicas to average over.
        """
        values = observable(self.system, self.trajectory)
        stable = self.stable_frames if values.ndim == 3 else ~self.verdict.unstable
        if not stable.any():
            what = "frame" if values.ndim == 3 else "replica"
            raise ValueError(f"{observable.name}: no {what} of this simulation is stable throughout")
        return values[stable].double().mean(0)


def simulate(
    force_field: ForceField | str | os.PathLike,
    start: Dataset | System | Atoms | Sequence[Atoms],
    integrator: Integrator,
    *,
    length_ps: float,
    n_replicas: int = 1,
    frame_interval_fs: float = 10.0,
    criteria: Sequence[StabilityCriterion] = (),
    positions: Float[Tensor, "start atom 3"] | None = None,
    temperature_K: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    fast: bool = True,
) -> Simulation:
    """Simulate many replicas at once, with velocities from the Maxwell-Boltzmann distribution.

    A replica that breaks is recorded as it is and does not affect the others.

    Args:
        force_field: a force field or its checkpoint. Its parameters are frozen.
        start: a data set (replicas start at its test frames), structures of one composition, or a system whose
            ``positions`` are given. Replicas start at different structures if there are enough.
        integrator: the integrator, with its time step and, for a thermostat, its temperature.
        length_ps: length of each replica, a multiple of the frame interval.
        n_replicas: number of replicas that run in parallel.
        frame_interval_fs: interval between stored frames, a multiple of the time step.
        criteria: a replica is unstable as soon as one of them is met. Non-finite frames are always unstable.
        positions: initial structures, Å, instead of those of ``start``.
        temperature_K: temperature of the initial velocities. None: that of the integrator.
        seed: seed of initial conditions and noise.
        device: device of the computation. None: that of the force field (a checkpoint is loaded to the CPU).
        fast: allow a faster force evaluation that is equal within rounding.

    Returns:
        Frames, last state, and the verdict on each replica. The first frame is one interval after the start.

    Raises:
        UnknownSpeciesError: the force field was not trained for an element of the system.
        ValueError: lengths that do not divide each other, no temperature, or no structure to start from.
    """
    if not isinstance(force_field, ForceField):
        force_field = load_force_field(force_field)
    like = next(force_field.parameters(), torch.empty(()))
    device = torch.device(like.device if device is None else device)
    system, structures = _start(start, positions, like.dtype)
    n_steps, dump_every = _steps(integrator.timestep_fs, length_ps, frame_interval_fs)
    if n_replicas < 1:
        raise ValueError(f"n_replicas must be at least 1, found {n_replicas}")
    temperature_K = _temperature_K(integrator, temperature_K)
    stretch = Stretch(system.to(device, like.dtype), integrator, n_steps, dump_every, criteria, fast=fast)
    draws = torch.Generator().manual_seed(seed)
    first, velocities = initial_conditions(stretch.system, structures, n_replicas, temperature_K, draws)
    force_field = force_field.to(device)
    outcome = stretch.run(force_field, stretch.begin(force_field, first, velocities), draws)
    return Simulation(stretch.system, outcome.trajectory, outcome.state, outcome.verdict)


def _start(
    start: Dataset | System | Atoms | Sequence[Atoms], positions: Tensor | None, dtype: torch.dtype
) -> tuple[System, Float[Tensor, "start atom 3"]]:
    """The system, and the initial structures of the replicas."""
    if isinstance(start, System):
        if positions is None:
            raise ValueError("a System has no structure to start from: give positions (structure, atom, 3) in Å")
        return start, positions
    if isinstance(start, Dataset):
        return start.system(dtype), start.test.positions if positions is None else positions
    images = [start] if isinstance(start, Atoms) else list(start)
    if not images:
        raise ValueError("there is no structure to start from: the list of Atoms is empty")
    first = images[0]
    for number, image in enumerate(images):
        if not (
            np.array_equal(image.numbers, first.numbers)
            and np.array_equal(image.pbc, first.pbc)
            and np.allclose(image.cell.array, first.cell.array)
        ):
            raise ValueError(f"structure {number} has other elements, boundaries or another cell than structure 0")
    system = System.from_geometry(first.numbers, first.positions, cell_of(first), dtype)
    return system, torch.tensor(np.stack([image.positions for image in images])) if positions is None else positions


def _steps(timestep_fs: float, length_ps: float, frame_interval_fs: float) -> tuple[int, int]:
    """Total number of steps, and steps between frames."""
    dump_every = _whole("frame_interval_fs", frame_interval_fs, "the time step", timestep_fs)
    n_frames = _whole("length_ps, in fs,", 1000 * length_ps, "frame_interval_fs", frame_interval_fs)
    return n_frames * dump_every, dump_every


def _whole(name: str, length_fs: float, part_name: str, part_fs: float) -> int:
    """Number of times that a part fits into a length."""
    times = round(length_fs / part_fs) if part_fs > 0 else 0
    if times < 1 or abs(times * part_fs - length_fs) > 1e-6 * length_fs:
        raise ValueError(f"{name} must be a multiple of {part_name}, but they are {length_fs:g} and {part_fs:g} fs")
    return times


def _temperature_K(integrator: Integrator, temperature_K: float | None) -> float:
    """Temperature of the initial velocities."""
    chosen = getattr(integrator, "temperature_K", None) if temperature_K is None else temperature_K
    if chosen is None:
        raise ValueError(f"{type(integrator).__name__} has no temperature: give temperature_K for the velocities")
    return chosen
