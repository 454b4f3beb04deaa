"""Trajectories of a training: the stable frames of chosen replicas in its exploring epochs.

Each epoch has its own file, written before the state of the training, so that a run that was killed and resumed has the
frames of one that was not. The trajectory files are made from them at the end of the training. Times count the
recorded frames. Positions jump where a replica rewinds, restarts, or repeats the stretch in which it broke.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from mdsim.dynamics.stretch import Outcome, Stretch
from mdsim.evaluation import saved
from mdsim.reporting.trajectories import FileSettings, write_stretches
from mdsim.state import Trajectory
from mdsim.typing import Int, Tensor

EPOCH, WHOLE = "frames/replica{:04d}_epoch{:06d}.pt", "trajectories/replica{:04d}.{}"
EPOCHS, NUMBER = "replica{:04d}_epoch*.pt", re.compile(r"replica\d+_epoch(\d+)\.pt")


class Recording:
    """The recorded replicas of a training.

    Args:
        run_dir: folder of the run.
        stretch: the dynamics of one epoch.
        replicas: indices of the recorded replicas.
        files: format of the trajectory files.
    """

    def __init__(self, run_dir: Path, stretch: Stretch, replicas: Sequence[int], files: FileSettings) -> None:
        self.run_dir, self.stretch, self.replicas, self.files = run_dir, stretch, tuple(dict.fromkeys(replicas)), files

    def record(self, epoch: int, moving: Int[Tensor, "moving"], outcome: Outcome) -> None:
        """Keep the stable frames of an epoch.

        Args:
            epoch: number of the epoch, from 1.
            moving: the replicas of the outcome.
            outcome: of one stretch.
        """
        n_stable = outcome.verdict.first_frame.tolist()
        for column, replica in enumerate(moving.tolist()):
            if replica in self.replicas and n_stable[column]:
                frames = outcome.trajectory[: n_stable[column]].replicas(slice(column, column + 1)).to("cpu")
                saved.write_frames(self.run_dir / EPOCH.format(replica, epoch), frames.map(torch.clone))

    def begin_after(self, epoch: int) -> None:
        """Forget the frames of later epochs, which a run that was killed has written and will repeat."""
        for replica in self.replicas:
            for number, path in self._epochs(replica):
                if number > epoch:
                    path.unlink()

    def write(self) -> None:
        """Write the trajectory files.

        Raises:
            CheckpointError: kept frames are damaged.
        """
        for replica in self.replicas:
            path = self.run_dir / WHOLE.format(replica, self.files.format)
            write_stretches(path, self.stretch.system, self._stretches(replica), 0, None, self.files)

    def _epochs(self, replica: int) -> list[tuple[int, Path]]:
        """The kept epochs of a replica with their files, in order."""
        paths = (self.run_dir / EPOCH).parent.glob(EPOCHS.format(replica))
        return sorted((int(match[1]), path) for path in paths if (match := NUMBER.fullmatch(path.name)))

    def _stretches(self, replica: int) -> Iterator[Trajectory]:
        interval_fs = self.stretch.dump_every * self.stretch.integrator.timestep_fs
        form = saved.frames(None, 1, self.stretch.system.n_atoms, interval_fs, self.stretch.moves_cells)
        for _, path in self._epochs(replica):
            yield saved.read_frames(path, form)
