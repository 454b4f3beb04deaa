"""Held-out evaluation: how long is each replica stable, and how far are the observables of its stable part off.

Initial positions come from the test frames and velocities from the Maxwell-Boltzmann distribution, both by the seed
alone, so that two force fields evaluated with one configuration start from the same conditions. A replica that breaks
leaves the simulation; its frames before the break count, and nothing after. State is saved after every stretch, frames
that are kept to the end in files of their own: what a stretch writes does not grow with the time simulated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints, payloads
from mdsim.dynamics.stretch import Outcome, Stretch
from mdsim.errors import CheckpointError
from mdsim.evaluation import saved
from mdsim.force_field import ForceField
from mdsim.interfaces import Observable
from mdsim.reporting.scalars import ScalarWriter
from mdsim.reporting.trajectories import LARGEST_COORDINATE_A, write_gsd
from mdsim.stability.verdict import first_unstable
from mdsim.state import MDState, Trajectory
from mdsim.typing import Bool, Float, Int, Tensor

log = logging.getLogger("mdsim")

STABLE = "stable"
DENSE, FOLLOWED = "frames/dense{:06d}.pt", "frames/followed{:06d}.pt"  # one file for each stretch


@dataclass(frozen=True)
class Compared:
    """An observable with its reference, the axis to draw it on, and the reference's error where it is known."""

    observable: Observable
    reference: Float[Tensor, "bin"]
    axis: Float[Tensor, "bin"]
    standard_error: Float[Tensor, "bin"] | None = None


@dataclass(frozen=True)
class DenseWindow:
    """The first stretches of an evaluation keep frames more densely, for dynamical observables."""

    epochs: int
    dump_every_steps: int


@dataclass(frozen=True)
class Plan:
    """The length of an evaluation, and what is kept of it."""

    epochs: int  # stretches; with them, the horizon
    end_when_unstable: float = 1.0  # it stops early when this fraction of the replicas has broken
    dense_window: DenseWindow | None = None
    save_trajectories: tuple[int, ...] = ()  # replicas whose whole trajectory is written
    frames_before_break: int = 50  # written before every instability

    @property
    def dense_epochs(self) -> int:
        """Stretches of the dense window: all there are, in a run that is shorter."""
        return 0 if self.dense_window is None else min(self.dense_window.epochs, self.epochs)


class Evaluation:
    """One evaluation run.

    Args:
        force_field: what is evaluated.
        stretch: the dynamics of one epoch.
        start: initial conditions of all replicas.
        structural: observables by name, averaged over stable frames.
        dynamical: observables by name, from the dense window of the replicas that are stable throughout it.
        plan: horizon, thresholds and what is written.
        out_dir: where state and trajectories go.
        generator: of the thermostat's noise.
        checkpoint_sha256: of the evaluated file; a saved state of another one is refused.
    """

    def __init__(
        self,
        force_field: ForceField,
        stretch: Stretch,
        start: MDState,
        structural: Mapping[str, Compared],
        dynamical: Mapping[str, Compared],
        plan: Plan,
        out_dir: Path,
        generator: torch.Generator,
        checkpoint_sha256: str = "",
    ) -> None:
        self.force_field = force_field
        self.checkpoint_sha256 = checkpoint_sha256
        self.run_identity, self.is_older_run = "", False  # a saved state of another run is refused
        self.stretch = stretch
        self.structural = dict(structural)
        self.dynamical = dict(dynamical)
        self.plan = plan
        self.out_dir = out_dir
        self.generator = generator
        n_replicas = start.n_replicas
        self.state = start
        self.epoch = 0
        self.stable_frames = torch.zeros(n_replicas, dtype=torch.long)
        self.reasons = [STABLE] * n_replicas
        self.sums = {
            name: torch.zeros(n_replicas, len(c.reference), dtype=torch.float64) for name, c in self.structural.items()
        }
        self.dense: list[Trajectory] = []
        self.recent: Trajectory | None = None
        self.saved: list[Trajectory] = []

    @property
    def horizon_ps(self) -> float:
        return self.plan.epochs * self.stretch.length_ps

    @property
    def frame_interval_fs(self) -> float:
        return self.stretch.integrator.timestep_fs * self.stretch.dump_every

    @property
    def broken(self) -> Bool[Tensor, "replica"]:
        return torch.tensor([reason != STABLE for reason in self.reasons])

    @property
    def stable_ps(self) -> Float[Tensor, "replica"]:
        """Time of the last stable frame of each replica."""
        return self.stable_frames.double() * self.frame_interval_fs / 1000

    def resume_from(self, path: Path) -> None:
        """Continue from a saved state; begin at the beginning where none was written yet.

        Raises:
            CheckpointError: the state is that of another force field.
        """
        if not path.exists():
            return
        payload = checkpoints.load(path, "evaluation")
        state = checkpoints.state_in(payload, path, "evaluation", self._form)
        if state["checkpoint_sha256"] != self.checkpoint_sha256:
            raise CheckpointError(
                f"{path} evaluates another force field than the checkpoint holds now; start anew with --overwrite"
            )
        checkpoints.check_run(payload, path, self.run_identity, self.is_older_run)
        with payloads.restoring(path):
            self.load_state_dict(state)
        log.info("resumed after %.2f ps (%s)", self.epoch * self.stretch.length_ps, path)

    def run(self, writer: ScalarWriter, stop_requested: Callable[[], bool] = lambda: False) -> bool:
        """Simulate to the horizon, or until the given fraction of the replicas has broken.

        Returns:
            True at the end; False where it was asked to stop before, in a state that can be resumed.
        """
        while not self._done():
            if stop_requested():
                return False
            self._advance()
            self._report(writer)
            writer.flush()  # what is saved is not repeated, so its scalars must not be lost either
            self._save()
        self._write_saved_trajectories()
        return True

    def _done(self) -> bool:
        broken = float(self.broken.double().mean())
        return self.epoch >= self.plan.epochs or broken >= self.plan.end_when_unstable

    def _advance(self) -> None:
        """One stretch of the replicas that are still stable."""
        alive = torch.nonzero(~self.broken).squeeze(-1)
        window = self.plan.dense_window
        keep_every = window.dump_every_steps if window is not None and self.epoch < window.epochs else None
        outcome = self.stretch.run(self.force_field, self.state[alive], self.generator, keep_every)
        if keep_every is not None:
            self.dense.append(_scatter(outcome.trajectory, alive, len(self.reasons)))
            outcome = self._at_dump_interval(outcome, self.stretch.dump_every // keep_every)
        self.state = self.state.assign(alive, outcome.state)
        self._count(alive, outcome)
        self._keep_frames(alive, outcome)
        self.epoch += 1

    def _at_dump_interval(self, outcome: Outcome, stride: int) -> Outcome:
        """The frames at the dump interval alone, judged again: stability does not depend on the dense window."""
        frames = outcome.trajectory[stride - 1 :: stride]
        return Outcome(outcome.state, frames, first_unstable(self.stretch.criteria, self.stretch.system, frames))

    def _count(self, alive: Int[Tensor, "moving"], outcome: Outcome) -> None:
        """Add stable time, the reasons of breaks, and the observables of the stable frames."""
        first = outcome.verdict.first_frame.cpu()
        frame = torch.arange(outcome.trajectory.n_frames)[:, None]
        stable = frame < first
        self.stable_frames[alive] += first
        for replica, reason in zip(alive.tolist(), outcome.verdict.reason, strict=True):
            if reason is not None:
                self.reasons[replica] = reason
        for name, compared in self.structural.items():
            values = compared.observable(self.stretch.system, outcome.trajectory).double().cpu()
            counted = torch.where(stable[..., None], values, torch.zeros_like(values)).sum(0)
            self.sums[name][alive] += counted

    def _keep_frames(self, alive: Int[Tensor, "moving"], outcome: Outcome) -> None:
        """Write the frames before each break, and remember those of the replicas that are followed."""
        n_frames = self.plan.frames_before_break
        everyone = _scatter(outcome.trajectory, alive, len(self.reasons))
        history = everyone if self.recent is None else Trajectory.cat([self.recent, everyone])
        new = everyone.n_frames
        for replica, first in zip(alive.tolist(), outcome.verdict.first_frame.tolist(), strict=True):
            if first < new:
                end = history.n_frames - new + first + 1
                frames = _drawable(history[max(0, end - n_frames) : end], replica)
                if frames.n_frames:
                    path = self.out_dir / "trajectories" / f"break_replica{replica:04d}.gsd"
                    write_gsd(path, self.stretch.system, frames, replica)
        self.recent = history[max(0, history.n_frames - n_frames) :]
        if self._followed:
            self.saved.append(everyone.replicas(torch.tensor(self._followed, dtype=torch.long)))

    @property
    def _followed(self) -> list[int]:
        """Replicas whose whole trajectories are written."""
        return [replica for replica in self.plan.save_trajectories if replica < len(self.reasons)]

    @property
    def _dense_epochs(self) -> int:
        """Stretches so far whose frames the dense window keeps."""
        window = self.plan.dense_window
        return 0 if window is None else min(self.epoch, window.epochs)

    def _save(self) -> None:
        """The kept frames of the stretch that has just ended, and then the state, which counts on them."""
        if self._dense_epochs == self.epoch:
            saved.write_frames(self.out_dir / DENSE.format(self.epoch), self.dense[-1])
        if self._followed:
            saved.write_frames(self.out_dir / FOLLOWED.format(self.epoch), self.saved[-1])
        payload = checkpoints.new_payload("evaluation", evaluation=self.state_dict(), run=self.run_identity)
        checkpoints.save_atomically(self.out_dir / "state.pt", payload)

    def _write_saved_trajectories(self) -> None:
        if not self.saved:
            return
        whole = Trajectory.cat(self.saved)
        for column, replica in enumerate(self._followed):
            stable = int(self.stable_frames[replica])
            if stable:
                path = self.out_dir / "trajectories" / f"replica{replica:04d}.gsd"
                write_gsd(path, self.stretch.system, _drawable(whole[:stable], column), column)

    def _report(self, writer: ScalarWriter) -> None:
        time_ps = self.epoch * self.stretch.length_ps
        stable = 1.0 - float(self.broken.double().mean())
        mean_ps = float(self.stable_ps.mean())
        writer.log(self.epoch, {"evaluate/fraction_stable": stable, "evaluate/mean_stable_time_ps": mean_ps})
        log.info("%6.2f of %g ps  stable %3.0f %%", time_ps, self.horizon_ps, 100 * stable)

    def structural_means(self) -> dict[str, Float[Tensor, "replica bin"]]:
        """Mean over each replica's stable frames; NaN for a replica that broke at once."""
        return {name: total / self.stable_frames[:, None].double() for name, total in self.sums.items()}

    def dynamical_values(self) -> dict[str, Float[Tensor, "replica bin"]]:
        """Dynamical observables of each replica; NaN for those that broke within the dense window."""
        if not self.dense or self.epoch < self.plan.dense_epochs:  # the run ended within the window: all had broken
            return {
                name: torch.full((len(self.reasons), len(c.reference)), torch.nan) for name, c in self.dynamical.items()
            }
        trajectory = Trajectory.cat(self.dense)
        length_ps = trajectory.n_frames * trajectory.frame_interval_fs / 1000
        whole = (self.stable_ps >= length_ps - 1e-9)[:, None]
        values = {name: c.observable(self.stretch.system, trajectory) for name, c in self.dynamical.items()}
        return {name: torch.where(whole, value.double().cpu(), torch.nan) for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, but for the frames that `_save` has written."""
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "state": self.state.tensors(),
            "epoch": self.epoch,
            "stable_frames": self.stable_frames,
            "reasons": list(self.reasons),
            "sums": self.sums,
            "recent": None if self.recent is None else dict(vars(self.recent)),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        device = self.state.energy.device
        self.state = MDState(**state["state"]).to(self.stretch.system.masses.device).to(device)
        self.epoch = state["epoch"]
        self.stable_frames = state["stable_frames"]
        self.reasons = state["reasons"]
        self.sums = state["sums"]
        self.recent = None if state["recent"] is None else Trajectory(**state["recent"]).to(device)
        dense, followed = range(1, self._dense_epochs + 1), range(1, self.epoch + 1) if self._followed else ()
        window, every, n_followed = self.plan.dense_window, self.stretch.dump_every, len(self._followed)
        dense_every = every if window is None else window.dump_every_steps
        self.dense = [self._read(DENSE.format(i), dense_every, len(self.reasons)).to(device) for i in dense]
        self.saved = [self._read(FOLLOWED.format(i), every, n_followed).to(device) for i in followed]
        self.generator.set_state(state["generator"])

    @property
    def _form(self) -> payloads.Form:
        return saved.evaluation_state(self.state_dict(), self.stretch.dump_every * self.stretch.integrator.timestep_fs)

    def _read(self, name: str, every: int, n_replicas: int) -> Trajectory:
        """The kept frames of one stretch, which were taken after each ``every`` steps."""
        n_frames, n_atoms = self.stretch.n_steps // every, self.stretch.system.n_atoms
        form = saved.frames(n_frames, n_replicas, n_atoms, every * self.stretch.integrator.timestep_fs)
        return Trajectory(**checkpoints.load_state(self.out_dir / name, "frames", "frames", form))


def _scatter(trajectory: Trajectory, index: Int[Tensor, "moving"], n_replicas: int) -> Trajectory:
    """The frames of some replicas among those of all; NaN where a replica no longer moves."""

    def spread(values: Tensor) -> Tensor:
        everyone = values.new_full((values.shape[0], n_replicas, *values.shape[2:]), torch.nan)
        everyone[:, index.to(values.device)] = values
        return everyone

    return Trajectory(
        spread(trajectory.positions),
        None if trajectory.velocities is None else spread(trajectory.velocities),
        None if trajectory.energy is None else spread(trajectory.energy),
        trajectory.frame_interval_fs,
    )


def _drawable(trajectory: Trajectory, replica: int) -> Trajectory:
    """The frames in which a replica has positions that a file can hold: finite, and not flown apart."""
    drawable = (trajectory.positions[:, replica].abs() <= LARGEST_COORDINATE_A).all(-1).all(-1)
    return trajectory[torch.nonzero(drawable).squeeze(-1)]
