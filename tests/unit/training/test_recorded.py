"""Trajectories of trainings: the stable frames of the exploring epochs, the same after any interruption."""

import numpy as np
import pytest
import torch
from tiny import SilentWriter
from tiny_training import CHAINS, Displacement, Script, trainer

from mdsim.reporting.trajectories import FileSettings, read_trajectory
from mdsim.training.recorded import Recording
from mdsim.training.stable import StableTraining

CHANGES = {"reset_probability": 0.5, "start_learning_at": 0.5}
LEARNING = {"max_epochs_per_cycle": 2}


def _recorded(root, name, criterion=None, replicas=(0, 1, 3), **changes) -> StableTraining:
    training = trainer(root, criterion or Displacement(0.25), LEARNING, **changes)
    training.recording = Recording(training.run_dir, training.stretch, replicas, FileSettings(name))
    return training


def _frames(root, name, replica):
    return read_trajectory(root / "run" / "trajectories" / f"replica{replica:04d}.{name}")


def test_frames_are_those_of_the_exploring_epochs(tmp_path):
    """Replicas 0 and 1 break in the first frame but one of the second stretch, and wait for the learning phase."""
    training = _recorded(tmp_path, "h5md", Script(0, 2, 1, 0, 0, 0), epochs=6, reset_probability=0.0)
    seen, explored = [], training.stretch.run

    def run(force_field, state, *arguments):
        seen.append((training.progress.learning, explored(force_field, state, *arguments)))
        return seen[-1][1]

    object.__setattr__(training.stretch, "run", run)
    training.run(SilentWriter())
    exploring = [outcome for learning, outcome in seen if not learning]
    expected = {replica: [] for replica in range(4)}
    parked = set()
    for outcome in exploring:
        moving = [replica for replica in range(4) if replica not in parked]
        if len(moving) != outcome.trajectory.n_replicas:  # released after the learning phase
            parked, moving = set(), list(range(4))
        for column, replica in enumerate(moving):
            first = int(outcome.verdict.first_frame[column])
            expected[replica].append(outcome.trajectory.positions[:first, column])
            parked |= {replica} if first < outcome.trajectory.n_frames else set()
    for replica in (0, 1, 3):
        stored, wanted = _frames(tmp_path, "h5md", replica), torch.cat(expected[replica])
        torch.testing.assert_close(stored.trajectory.positions[:, 0], wanted, atol=1e-6, rtol=0)
        interval_ps = training.stretch.dump_every * training.stretch.integrator.timestep_fs / 1000
        np.testing.assert_allclose(stored.times_ps, interval_ps * np.arange(1, len(wanted) + 1), rtol=1e-10)
    assert not list((tmp_path / "run" / "trajectories").glob("*0002*"))


@pytest.mark.parametrize(("name", "changes"), [("gsd", CHANGES), ("h5md", CHANGES), ("xtc", CHAINS)])
def test_a_killed_training_has_the_trajectories_of_an_uninterrupted_one(tmp_path, name, changes):
    """Killed after the frames of an epoch and before its state, with a trajectory file cut in the middle of a frame."""
    _recorded(tmp_path / "whole", name, epochs=5, **changes).run(SilentWriter())
    root = tmp_path / "killed"
    _recorded(root, name, epochs=2, **changes).run(SilentWriter())
    state = (root / "run" / "last.pt").read_bytes()
    _recorded(root, name, epochs=4, **changes).run(SilentWriter())
    (root / "run" / "last.pt").write_bytes(state)
    for path in (root / "run" / "trajectories").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    resumed = _recorded(root, name, epochs=5, **changes)
    resumed.resume_from(root / "run" / "last.pt")
    assert resumed.progress.epoch == 2
    resumed.run(SilentWriter())
    epochs = {path.name[-9:-3] for path in (root / "run" / "frames").iterdir()}
    assert {"000001", "000005"} <= epochs  # before and after the interruption
    for replica in (0, 1, 3):
        found, whole = _frames(root, name, replica), _frames(tmp_path / "whole", name, replica)
        assert torch.equal(found.trajectory.positions, whole.trajectory.positions)
        assert found.times_ps.tolist() == whole.times_ps.tolist()
        assert (np.diff(found.times_ps) > 0).all()


def test_frames_of_later_epochs_are_forgotten(tmp_path):
    training = _recorded(tmp_path, "gsd", Script(0, 0, 0), epochs=3)
    training.run(SilentWriter())
    kept = sorted((tmp_path / "run" / "frames").iterdir())
    assert kept
    training.recording.begin_after(1)
    left = sorted((tmp_path / "run" / "frames").iterdir())
    assert left == [path for path in kept if path.name.endswith("epoch000001.pt")] != kept
