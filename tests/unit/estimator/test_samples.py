"""The choice of samples from a rerun, and their weights at other parameters."""

import pytest
import torch
from reruns import KT, N_FRAMES, N_REPLICAS, Distances, outcome_of, samples_of, toy_trajectory
from tiny import STIFFNESS, Springs

from mdsim.estimator.samples import Sampling
from mdsim.memory import PiecesAtOnce
from mdsim.state import Trajectory


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, [5, 4, 4, 5]),
        ({"frames_after_break": 0}, [5, 2, 0, 4]),
        ({"frames_after_break": 1}, [5, 3, 1, 5]),
        ({"only_unstable": True}, [0, 4, 4, 5]),
        ({"only_unstable": True, "frames_after_break": 0}, [0, 2, 0, 4]),
    ],
)
def test_usable_frames(settings, counts):
    trajectory = toy_trajectory()
    trajectory.positions[4, 1, 0, 0] = torch.nan
    trajectory.energy[4, 2] = torch.inf
    mask = Sampling(KT, PiecesAtOnce(40, "structures"), **settings).usable(outcome_of(trajectory, [5, 2, 0, 4]))
    assert mask.sum(0).tolist() == counts
    for replica, count in enumerate(counts):
        assert mask[:count, replica].all(), "the usable frames of a replica are its first ones"


def test_an_observable_is_computed_once_per_rerun():
    calls = []

    class Counting(Distances):
        def __call__(self, system, trajectory):
            calls.append(trajectory.n_frames)
            return super().__call__(system, trajectory)

    samples, counting = samples_of(_with_energies(Springs())), Counting()
    first = samples.values(counting)
    assert torch.equal(samples.reweighted(Springs()).values(counting), first)
    assert torch.equal(samples.subset(torch.tensor([1, 7])).values(counting), first[[1, 7]])
    assert calls == [N_FRAMES]


def _with_energies(model) -> Trajectory:
    trajectory = toy_trajectory()
    energy = model(samples_of(trajectory).system, trajectory.positions.flatten(0, 1))[0]
    return Trajectory(trajectory.positions, None, energy.reshape(N_FRAMES, N_REPLICAS), 2.0)


def test_reweighting_carries_samples_to_other_parameters():
    trajectory = _with_energies(Springs())
    samples = samples_of(trajectory, at_once=3)
    assert samples.weights is None and samples.effective_fraction == 1
    same = samples.reweighted(Springs())
    torch.testing.assert_close(same.weights, torch.full((20,), 1 / 20, dtype=torch.float64))
    moved = samples.reweighted(Springs(STIFFNESS * 1.01))
    change = 0.01 * trajectory.energy.flatten()
    torch.testing.assert_close(moved.weights, torch.softmax(-change / KT, 0), rtol=1e-9, atol=0)
    assert 1 / 20 < moved.effective_fraction < 1
    back = moved.reweighted(Springs())
    torch.testing.assert_close(back.weights, same.weights), "weights count from those that drew the samples"


def test_a_subset_keeps_what_belongs_to_its_samples():
    samples = samples_of(_with_energies(Springs())).reweighted(Springs(STIFFNESS * 1.02))
    kept = torch.tensor([0, 3, 11])
    part = samples.subset(kept)
    assert len(part) == 3
    assert torch.equal(part.positions, samples.positions[kept])
    assert torch.equal(part.weights, samples.weights[kept])
    assert part.replica.tolist() == [0, 3, 3]
    assert torch.equal(part.subset(torch.tensor([2])).values(Distances()), samples.values(Distances())[[11]])
