"""Dynamics of many replicas until they break: stable times, what leaves its range first, and why replicas break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.stretch import initial_conditions
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.nve import VelocityVerlet
from mdsim.interfaces import Integrator, Potential, StabilityCriterion
from mdsim.reporting.live import Bar
from mdsim.reporting.pace import Pace
from mdsim.stability.departures import Departures, sustained_frames
from mdsim.stability.stable_times import restricted_mean_interval
from mdsim.stability.support import Support
from mdsim.stability.survival import Lifetimes, kaplan_meier, median_survival
from mdsim.stability.verdict import first_unstable
from mdsim.state import MDState, System, Trajectory
from mdsim.stress_test.score import StabilityScore
from mdsim.typing import Bool, Float, Tensor

Ensemble = Literal["nvt", "nve", "ramp"]
FRICTION_PER_PS = 1.0
FRAME_FS = 10.0
FRAMES_PER_STRETCH = 25
SUSTAINED_PS = 0.05  # outside its range, until a departure counts
EQUILIBRATION_PS = 0.1  # at constant temperature, before constant energy
EQUILIBRATION_FRICTION_PER_PS = 20.0


@dataclass(frozen=True)
class Condition:
    """One set of replicas: ensemble, temperature (of a ramp: at its end), time step, and compression of the cell."""

    ensemble: Ensemble
    temperature_K: float
    timestep_fs: float
    start_K: float | None = None  # of a ramp
    compression_percent: float = 0.0

    @property
    def title(self) -> str:
        """Such as "NVT 500 K, 0.5 fs"."""
        ramp = f"{self.start_K:g} to " if self.start_K is not None else ""
        squeezed = f", compressed by {self.compression_percent:g}%" if self.compression_percent else ""
        return f"{self.ensemble.upper()} {ramp}{self.temperature_K:g} K, {self.timestep_fs:g} fs{squeezed}"

    def bath_K(self, progress: float) -> float:
        """Temperature of the bath after a fraction of the length."""
        start = self.temperature_K if self.start_K is None else self.start_K
        return start + progress * (self.temperature_K - start)

    def integrator(self, progress: float) -> Integrator:
        """Integrator after a fraction of the length."""
        if self.ensemble == "nve":
            return VelocityVerlet(self.timestep_fs)
        return LangevinBAOAB(self.timestep_fs, self.bath_K(progress), FRICTION_PER_PS)


@dataclass(frozen=True)
class Outcome:
    """The fate of the replicas of one condition."""

    condition: Condition
    length_ps: float
    lifetimes: Lifetimes  # ps, censored at the end
    reasons: tuple[str | None, ...]
    left_first: tuple[str | None, ...]  # coordinate that left its range first, of each replica
    left_ps: tuple[float | None, ...]
    broke_at_K: tuple[float | None, ...]  # temperature of the bath
    scores: Float[np.ndarray, "replica"]

    @property
    def n_broken(self) -> int:
        return int(self.lifetimes.broken.sum())

    def first_coordinates(self) -> list[tuple[str, int]]:
        """Coordinates that left first, of the replicas that broke or else of all, with their counts."""
        pairs = zip(self.left_first, self.lifetimes.broken, strict=True)
        counted = [name for name, broke in pairs if name is not None and (broke or not self.n_broken)]
        return Counter(counted).most_common()

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        curve = kaplan_meier(self.lifetimes)
        mean = restricted_mean_interval(self.lifetimes, self.length_ps, rng=np.random.default_rng(0))
        return {
            "title": self.condition.title,
            "ensemble": self.condition.ensemble,
            "temperature_K": self.condition.temperature_K,
            "start_temperature_K": self.condition.start_K,
            "timestep_fs": self.condition.timestep_fs,
            "compression_percent": self.condition.compression_percent,
            "length_ps": self.length_ps,
            "n_replicas": len(self.lifetimes.times),
            "n_broken": self.n_broken,
            "mean_stable_ps": mean.estimate,
            "mean_stable_ps_95": [mean.low, mean.high],
            "median_stable_ps": median_survival(self.lifetimes),
            "shortest_stable_ps": float(self.lifetimes.times.min()),
            "survival": {"times_ps": curve.times.tolist(), "survival": curve.survival.tolist()},
            "mlipaudit_score": float(self.scores.mean()),
            "left_range_first": [{"coordinate": name, "replicas": count} for name, count in self.first_coordinates()],
            "replicas": [
                {
                    "stable_ps": float(time),
                    "broke": bool(broke),
                    "reason": reason,
                    "left_range_first": coordinate,
                    "left_range_ps": left,
                    "bath_K_when_broken": bath,
                    "mlipaudit_score": float(score),
                }
                for time, broke, reason, coordinate, left, bath, score in zip(
                    self.lifetimes.times,
                    self.lifetimes.broken,
                    self.reasons,
                    self.left_first,
                    self.left_ps,
                    self.broke_at_K,
                    self.scores,
                    strict=True,
                )
            ],
        }


@dataclass(frozen=True)
class Setting:
    """What all conditions share."""

    system: System  # on the device and in the precision of the dynamics
    topology: System  # on the CPU, with the bonds that must hold
    structures: Float[Tensor, "structure atom 3"]
    support: Support
    criteria: Callable[[float, int], Sequence[StabilityCriterion]]  # of highest temperature and degrees of freedom
    n_replicas: int
    seed: int


def run(setting: Setting, potential: Potential, condition: Condition, length_ps: float) -> Outcome:
    """Simulate one condition. Replicas that exploded are left out of the rest; other broken ones are followed.

    Args:
        setting: what all conditions share.
        potential: of `setting.system`.
        condition: ensemble, temperature and time step.
        length_ps: length of each replica.
    """
    noise = torch.Generator().manual_seed(setting.seed)
    state = begin(setting, potential, condition, noise)
    dump = max(1, round(FRAME_FS / condition.timestep_fs))
    interval_ps = dump * condition.timestep_fs / 1000
    n_frames = max(1, round(length_ps / interval_ps))
    follow = _Follower(setting, condition, n_frames, interval_ps)
    done = 0
    pace, evaluations = Pace(n_frames * interval_ps), 0
    with Bar(total=pace.total, desc=condition.title, unit="ps", pace=pace) as bar:
        while done < n_frames and len(follow.moving):
            frames = min(FRAMES_PER_STRETCH, n_frames - done)
            integrator = condition.integrator(done / n_frames)
            evaluations += frames * dump * len(follow.moving)
            state, trajectory = simulate(setting.system, potential, integrator, state, frames * dump, dump, noise)
            going = follow.judge(trajectory.to("cpu"), condition.bath_K(done / n_frames))
            if not bool(going.all()):
                state = state[going.to(state.energy.device)]
            done += frames
            pace.measure(done * interval_ps, evaluations, simulated_ps=done * interval_ps)
            bar.show(f"{len(follow.moving)} of {setting.n_replicas} replicas go on")
    return follow.outcome()


def begin(setting: Setting, potential: Potential, condition: Condition, noise: torch.Generator) -> MDState:
    """The first state of the replicas, with velocities at the temperature. Constant energy starts equilibrated."""
    start_K = condition.bath_K(0.0)
    draws = torch.Generator().manual_seed(setting.seed)
    first, velocities = initial_conditions(setting.system, setting.structures, setting.n_replicas, start_K, draws)
    if condition.ensemble != "nve":
        return condition.integrator(0.0).init(setting.system, potential, first, velocities)
    return equilibrated(setting.system, potential, first, velocities, start_K, condition.timestep_fs, noise)


def equilibrated(
    system: System,
    potential: Potential,
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    temperature_K: float,
    timestep_fs: float,
    noise: torch.Generator,
    length_ps: float = EQUILIBRATION_PS,
) -> MDState:
    """The state after a short time at constant temperature with high friction."""
    bath = LangevinBAOAB(timestep_fs, temperature_K, EQUILIBRATION_FRICTION_PER_PS)
    n_steps = max(1, round(1000 * length_ps / timestep_fs))
    state = bath.init(system, potential, positions, velocities)
    return simulate(system, potential, bath, state, n_steps, n_steps, noise)[0]


class _Follower:
    """Judges the frames of all replicas of a condition, stretch by stretch."""

    def __init__(self, setting: Setting, condition: Condition, n_frames: int, interval_ps: float) -> None:
        n = setting.n_replicas
        free = (
            3 * setting.system.n_atoms if condition.ensemble != "nve" else (setting.system.internal_degrees_of_freedom)
        )
        hottest_K = max(condition.temperature_K, condition.start_K or 0.0)
        self.setting, self.condition, self.n_frames, self.interval_ps = setting, condition, n_frames, interval_ps
        self.criteria = setting.criteria(hottest_K, max(1, free))
        self.departures = Departures(setting.support, n, sustained_frames(SUSTAINED_PS, 1000 * interval_ps))
        self.score = StabilityScore(setting.topology, n, max(1, free))
        self.moving = torch.arange(n)
        self.first_unstable = torch.full((n,), -1)
        self.reasons: list[str | None] = [None] * n
        self.done = 0

    def judge(self, trajectory: Trajectory, bath_K: float) -> Bool[Tensor, "moving"]:
        """Follow the next frames; the mask of the replicas that go on."""
        moving = self.moving
        verdict = first_unstable(self.criteria, self.setting.topology, trajectory)
        new = verdict.unstable & (self.first_unstable[moving] < 0)
        intact = torch.nonzero(self.first_unstable[moving] < 0)[:, 0]
        if len(intact):
            self.departures.follow(moving[intact], trajectory.replicas(intact), verdict.first_frame[intact])
        self.score.follow(moving, trajectory, bath_K)
        for place in torch.nonzero(new)[:, 0].tolist():
            replica = int(moving[place])
            self.first_unstable[replica] = self.done + int(verdict.first_frame[place])
            self.reasons[replica] = verdict.reason[place]
        self.done += trajectory.n_frames
        going = self.score.intact[moving]
        self.moving = moving[going]
        return going

    def outcome(self) -> Outcome:
        """The outcome after the last frame."""
        broken = self.first_unstable >= 0
        times = torch.where(broken, self.first_unstable, self.n_frames).double() * self.interval_ps
        self.score.n_frames = self.n_frames  # also where all replicas exploded earlier
        left = [None if frame < 0 else frame * self.interval_ps for frame in self.departures.frames_before.tolist()]
        fractions = (self.first_unstable.double() / self.n_frames).tolist()
        baths = [self.condition.bath_K(f) if b else None for f, b in zip(fractions, broken.tolist(), strict=True)]
        return Outcome(
            self.condition,
            self.n_frames * self.interval_ps,
            Lifetimes(times.numpy(), broken.numpy()),
            tuple(self.reasons),
            tuple(self.departures.coordinates),
            tuple(left),
            tuple(baths),
            self.score.scores().numpy(),
        )
