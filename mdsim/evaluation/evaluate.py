"""Held-out evaluation: the stable time of each replica, and the observables of its stable frames.

Initial positions come from the test frames and velocities from the Maxwell-Boltzmann distribution. Both depend only on
the seed, so that two force fields with the same configuration start from the same conditions. A replica that breaks
leaves the simulation. Only its frames before the break count. The state is saved after every stretch. Kept frames are
in separate files, so that the size of the state does not grow with the simulated time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mdsim import checkpoints, payloads
from mdsim.dynamics.by_rank import by_rank
from mdsim.dynamics.stretch import Outcome, Stretch
from mdsim.errors import CheckpointError
from mdsim.evaluation import kept_frames, saved
from mdsim.evaluation.plan import Compared, Plan
from mdsim.force_field import ForceField
from mdsim.interfaces import Observable
from mdsim.memory import budget_bytes
from mdsim.reporting.live import COMPILES, Bar
from mdsim.reporting.pace import Pace
from mdsim.reporting.scalars import ScalarWriter
from mdsim.stability.departures import Departures
from mdsim.stability.verdict import first_unstable
from mdsim.state import MDState, Trajectory
from mdsim.typing import Bool, Float, Int, Tensor

log = logging.getLogger("mdsim")

STABLE = "stable"
LINES = 20  # of the log over the whole horizon, and one for every stretch in which a replica breaks
HOST = torch.device("cpu")  # holds the frames: a GPU would soon be full of them
SHARE_OF_FRAMES = 1 / 16  # of the memory budget, for the frames of which a dynamical observable is computed at once
DENSE, FOLLOWED = "frames/dense{:06d}.pt", "frames/followed{:06d}.pt"  # one file per stretch


class Evaluation:
    """One evaluation run.

    Args:
        force_field: the force field to evaluate.
        stretch: the dynamics of one epoch.
        start: initial conditions of all replicas.
        structural: observables by name, averaged over stable frames.
        dynamical: observables by name, from the dense window of the replicas that are stable throughout it.
        plan: horizon, thresholds and output.
        out_dir: folder of state and trajectories.
        generator: random numbers of the thermostat.
        checkpoint_sha256: sha256 of the evaluated file. A saved state of another file is an error.
        departures: of the replicas from the support of the reference; None to leave them out.
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
        departures: Departures | None = None,
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
        self.departures = departures
        self.recent: Trajectory | None = None
        self.followed: Trajectory | None = None  # the last stretch of the replicas with saved trajectories

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

    @property
    def departure_ps(self) -> Float[Tensor, "replica"] | None:
        """Time of the last frame of each replica before it left the support, or of its last frame if it did not."""
        if self.departures is None:
            return None
        frames = torch.where(self.departures.departed, self.departures.frames_before, self.stable_frames)
        return frames.double() * self.frame_interval_fs / 1000

    def resume_from(self, path: Path) -> None:
        """Continue from a saved state, or start from the beginning if there is none.

        Raises:
            CheckpointError: the state is that of another force field.
        """
        if not path.exists():
            return
        payload = checkpoints.load(path, "evaluation")
        self._leave_out_unknown_departures(payload, path)
        state = checkpoints.state_in(payload, path, "evaluation", self._form)
        if state["checkpoint_sha256"] != self.checkpoint_sha256:
            raise CheckpointError(
                f"{path} belongs to another force field than the checkpoint; start from the beginning with --overwrite"
            )
        checkpoints.check_run(payload, path, self.run_identity, self.is_older_run)
        with payloads.restoring(path):
            self.load_state_dict(state)
        log.info("resumed after %.2f ps (%s)", self.epoch * self.stretch.length_ps, path)

    def _leave_out_unknown_departures(self, payload: dict[str, Any], path: Path) -> None:
        """The departures of a run are known from its beginning, or not at all."""
        state = payload.get("evaluation")
        if not isinstance(state, dict):
            return
        if state.setdefault("departures", None) is None and self.departures is not None:
            log.warning("%s was saved without departures from the support: they are left out", path)
            self.departures = None

    def run(self, writer: ScalarWriter, stop_requested: Callable[[], bool] = lambda: False) -> bool:
        """Simulate to the horizon, or until the given fraction of the replicas has broken.

        Returns:
            True at the end; False where it was asked to stop before, in a state that can be resumed.
        """
        pace, evaluations = Pace(self.horizon_ps), 0
        with Bar(
            total=self.horizon_ps,
            desc="simulate",
            unit="ps",
            log_interval_s=None,
            pace=pace,
            note=f"first stretch, {COMPILES}",
        ) as bar:
            while not self._done():
                if stop_requested():
                    return False
                stable_before = int((~self.broken).sum())
                self._advance()
                evaluations += stable_before * self.stretch.n_steps
                time_ps, stable = self.epoch * self.stretch.length_ps, int((~self.broken).sum())
                pace.measure(time_ps, evaluations, simulated_ps=time_ps)
                bar.show(f"{stable} of {len(self.reasons)} replicas stable")
                self._report(writer, pace, stable < stable_before)
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
            self.dense.append(_scatter(outcome.trajectory.to(HOST), alive, len(self.reasons)))
            outcome = self._at_dump_interval(outcome, self.stretch.dump_every // keep_every)
        self.state = self.state.assign(alive, outcome.state)
        self._count(alive, outcome)
        self._keep_frames(alive, outcome)
        self.epoch += 1

    def _at_dump_interval(self, outcome: Outcome, stride: int) -> Outcome:
        """Only the frames at the dump interval, judged again, so that stability does not depend on the dense window."""
        frames = outcome.trajectory[stride - 1 :: stride]
        return Outcome(outcome.state, frames, first_unstable(self.stretch.criteria, self.stretch.system, frames))

    def _count(self, alive: Int[Tensor, "moving"], outcome: Outcome) -> None:
        """Add stable time, the reasons of breaks, and the observables of the stable frames."""
        first = outcome.verdict.first_frame.cpu()
        stable = ~outcome.after_break.cpu()
        self.stable_frames[alive] += first
        if self.departures is not None:
            self.departures.follow(alive, outcome.trajectory, first)
        for replica, reason in zip(alive.tolist(), outcome.verdict.reason, strict=True):
            if reason is not None:
                self.reasons[replica] = reason
        for name, compared in self.structural.items():
            values = by_rank(compared.observable, self.stretch.system, outcome.trajectory).double().cpu()
            counted = torch.where(stable[..., None], values, torch.zeros_like(values)).sum(0)
            self.sums[name][alive] += counted

    def _keep_frames(self, alive: Int[Tensor, "moving"], outcome: Outcome) -> None:
        """Write the frames before each break, and store those of the replicas with saved trajectories."""
        n_frames = self.plan.frames_before_break
        everyone = _scatter(outcome.trajectory.to(HOST), alive, len(self.reasons))
        history = everyone if self.recent is None else Trajectory.cat([self.recent, everyone])
        new = everyone.n_frames
        for replica, first in zip(alive.tolist(), outcome.verdict.first_frame.tolist(), strict=True):
            if first < new:
                end = history.n_frames - new + first + 1
                frames = history[max(0, end - n_frames) : end]
                last_ps = (self.epoch * new + first + 1) * self.frame_interval_fs / 1000
                kept_frames.write_break(self.out_dir, self.stretch.system, frames, replica, last_ps, self.plan.files)
        self.recent = history[max(0, history.n_frames - n_frames) :]
        if self._followed:
            self.followed = everyone.replicas(torch.tensor(self._followed, dtype=torch.long))

    @property
    def _followed(self) -> list[int]:
        """Replicas whose whole trajectories are written."""
        return [replica for replica in self.plan.save_trajectories if replica < len(self.reasons)]

    @property
    def _dense_epochs(self) -> int:
        """Number of stretches so far in the dense window."""
        window = self.plan.dense_window
        return 0 if window is None else min(self.epoch, window.epochs)

    def _save(self) -> None:
        """Write the kept frames of the last stretch, and then the state that refers to them."""
        if self._dense_epochs == self.epoch:
            saved.write_frames(self.out_dir / DENSE.format(self.epoch), self.dense[-1])
        if self.followed is not None:
            saved.write_frames(self.out_dir / FOLLOWED.format(self.epoch), self.followed)
        payload = checkpoints.new_payload("evaluation", evaluation=self.state_dict(), run=self.run_identity)
        checkpoints.save_atomically(self.out_dir / "state.pt", payload)

    def _write_saved_trajectories(self) -> None:
        """The whole trajectories that are asked for, and the last frames of a stable replica."""
        still = torch.nonzero(~self.broken).squeeze(-1).tolist()
        if still and self.recent is not None:
            system, end_ps = self.stretch.system, self.epoch * self.stretch.length_ps
            kept_frames.write_stable(self.out_dir, system, self.recent, still[0], end_ps, self.plan.files)
        for column, replica in enumerate(self._followed):
            place, n_stable = (column, replica), int(self.stable_frames[replica])
            kept_frames.write_whole(
                self.out_dir, self.stretch.system, self._followed_stretches(), *place, n_stable, self.plan.files
            )

    def _followed_stretches(self) -> Iterator[Trajectory]:
        """The frames of the replicas with saved trajectories, stretch by stretch from their files."""
        for epoch in range(1, self.epoch + 1):
            yield self._read(FOLLOWED.format(epoch), self.stretch.dump_every, len(self._followed))

    def _report(self, writer: ScalarWriter, pace: Pace, broke: bool) -> None:
        """Write the scalars of a stretch, and a line where a replica broke or another part of the horizon is done."""
        time_ps = self.epoch * self.stretch.length_ps
        stable = 1.0 - float(self.broken.double().mean())
        scalars = {"evaluate/fraction_stable": stable, "evaluate/mean_stable_time_ps": float(self.stable_ps.mean())}
        line = f"{time_ps:6.2f} of {self.horizon_ps:g} ps  stable {100 * stable:3.0f} %"
        if self.departures is not None:
            within = 1.0 - float(self.departures.departed.double().mean())
            scalars["evaluate/fraction_within_support"] = within
            line += f"  within the support {100 * within:3.0f} %"
        writer.log(self.epoch, scalars)
        if broke or self._part(self.epoch) > self._part(self.epoch - 1):
            log.info("%s", "  ".join([line, *pace.parts]), extra={"fields": {**pace.fields, "scalars": scalars}})

    def _part(self, epoch: int) -> int:
        """The number of parts of the horizon that are done after so many stretches."""
        return LINES * epoch // self.plan.epochs

    def structural_means(self) -> dict[str, Float[Tensor, "replica bin"]]:
        """Mean over the stable frames of each replica. NaN for a replica that broke at once."""
        return {name: total / self.stable_frames[:, None].double() for name, total in self.sums.items()}

    def dynamical_values(self) -> dict[str, Float[Tensor, "replica bin"]]:
        """Dynamical observables of each replica. NaN for replicas that broke within the dense window."""
        if not self.dense or self.epoch < self.plan.dense_epochs:  # the run ended within the window: all had broken
            return {
                name: torch.full((len(self.reasons), len(c.reference)), torch.nan) for name, c in self.dynamical.items()
            }
        trajectory = Trajectory.cat(self.dense)
        length_ps = trajectory.n_frames * trajectory.frame_interval_fs / 1000
        whole = (self.stable_ps >= length_ps - 1e-9)[:, None]
        values = {name: self._of_dense(compared.observable, trajectory) for name, compared in self.dynamical.items()}
        return {name: torch.where(whole, value, torch.nan) for name, value in values.items()}

    def _of_dense(self, observable: Observable, trajectory: Trajectory) -> Float[Tensor, "replica lag"]:
        """A dynamical observable of frames on the host, for as many replicas at a time as the device has room for."""
        system, frames = self.stretch.system, trajectory.positions
        device, bytes_each = system.masses.device, 2 * frames.element_size() * frames[:, 0].numel()
        at_once = max(1, int(SHARE_OF_FRAMES * budget_bytes(device) / max(1, bytes_each)))
        parts = torch.arange(trajectory.n_replicas).split(at_once)
        return torch.cat([observable(system, trajectory.replicas(part).to(device)).double().cpu() for part in parts])

    def state_dict(self) -> dict[str, Any]:
        """All data that the rest of the run depends on, except the frames in the files of `_save`."""
        return {
            "checkpoint_sha256": self.checkpoint_sha256,
            "state": self.state.tensors(),
            "epoch": self.epoch,
            "stable_frames": self.stable_frames,
            "reasons": list(self.reasons),
            "sums": self.sums,
            "recent": None if self.recent is None else saved.fields_of(self.recent),
            "generator": self.generator.get_state(),
            "departures": None if self.departures is None else self.departures.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        device = self.state.energy.device
        self.state = MDState(**state["state"]).to(self.stretch.system.masses.device).to(device)
        self.epoch = state["epoch"]
        self.stable_frames = state["stable_frames"]
        self.reasons = state["reasons"]
        self.sums = state["sums"]
        self.recent = None if state["recent"] is None else Trajectory(**state["recent"])
        window, every = self.plan.dense_window, self.stretch.dump_every
        dense_every = every if window is None else window.dump_every_steps
        self.dense = [
            self._read(DENSE.format(i), dense_every, len(self.reasons)) for i in range(1, self._dense_epochs + 1)
        ]
        if self._followed:  # a damaged file is an error now, and not at the end
            deque(self._followed_stretches(), maxlen=0)
        self.generator.set_state(state["generator"])
        if self.departures is not None:
            self.departures.load_state_dict(state["departures"])

    @property
    def _form(self) -> payloads.Form:
        interval_fs = self.stretch.dump_every * self.stretch.integrator.timestep_fs
        form = saved.evaluation_state(self.state_dict(), interval_fs, self.stretch.moves_cells)
        followed = payloads.ANYTHING if self.departures is None else self.departures.form
        return {**form, "departures": followed}

    def _read(self, name: str, every: int, n_replicas: int) -> Trajectory:
        """The kept frames of one stretch, stored every ``every`` steps."""
        n_frames, n_atoms = self.stretch.n_steps // every, self.stretch.system.n_atoms
        interval_fs = every * self.stretch.integrator.timestep_fs
        form = saved.frames(n_frames, n_replicas, n_atoms, interval_fs, self.stretch.moves_cells)
        return saved.read_frames(self.out_dir / name, form)


def _scatter(trajectory: Trajectory, index: Int[Tensor, "moving"], n_replicas: int) -> Trajectory:
    """Frames of all replicas from those of the moving ones. NaN for replicas that no longer move."""

    def spread(values: Tensor) -> Tensor:
        everyone = values.new_full((values.shape[0], n_replicas, *values.shape[2:]), torch.nan)
        everyone[:, index.to(values.device)] = values
        return everyone

    return trajectory.map(spread)
