"""The plan of an evaluation: observables with their references, length and output."""

from __future__ import annotations

from dataclasses import dataclass

from mdsim.interfaces import Observable
from mdsim.reporting.trajectories import GSD, FileSettings
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class Compared:
    """An observable with its axis, its reference (NaN: there is none), and the error of the reference if known."""

    observable: Observable
    reference: Float[Tensor, "bin"]
    axis: Float[Tensor, "bin"]
    standard_error: Float[Tensor, "bin"] | None = None

    @property
    def has_reference(self) -> bool:
        return not bool(self.reference.isnan().all())


@dataclass(frozen=True)
class DenseWindow:
    """The dense window: first stretches of an evaluation, with more frames for dynamical observables."""

    epochs: int
    dump_every_steps: int


@dataclass(frozen=True)
class Plan:
    """The length of an evaluation, and its output."""

    epochs: int  # number of stretches, which sets the horizon
    end_when_unstable: float = 1.0  # fraction of broken replicas at which it ends early
    dense_window: DenseWindow | None = None
    save_trajectories: tuple[int, ...] = ()  # replicas whose whole trajectory is written
    frames_before_break: int = 50  # frames written before every break
    files: FileSettings = GSD  # format of trajectory files

    @property
    def dense_epochs(self) -> int:
        """Number of stretches in the dense window, limited by the length of the run."""
        return 0 if self.dense_window is None else min(self.dense_window.epochs, self.epochs)
