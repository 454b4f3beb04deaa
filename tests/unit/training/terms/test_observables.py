"""The observable term against a covariance that is written out."""

import pytest
import torch
from reruns import KT, N_FRAMES, N_REPLICAS, Distances, Squares, samples_of, toy_trajectory
from tiny import GEOMETRY, PAIRS, STIFFNESS, Springs

from mdsim import losses
from mdsim.geometry import pair_distances
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.training.terms import ObservableTerm, Target


def two_targets() -> list[Target]:
    return [
        Target(Distances(), torch.tensor([0.9, 1.0, 1.4]).double(), losses.mean_squared_error, weight=2.0),
        Target(Squares(), torch.tensor([0.8, 0.9]).double(), losses.sum_squared_error, weight=0.5),
    ]


def _explicit(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss, and -Cov(g·λ, ∂U/∂k)/kT with the matrix of all samples and parameters."""
    distances = pair_distances(positions, PAIRS)
    g = torch.cat([distances, distances[:, :2].square()], dim=1)
    mean = g.mean(0)
    first, second = (mean[:3] - torch.tensor([0.9, 1.0, 1.4])), (mean[3:] - torch.tensor([0.8, 0.9]))
    loss = 2.0 * first.square().mean() + 0.5 * second.square().sum()
    sensitivity = torch.cat([2.0 * 2 * first / 3, 0.5 * 2 * second])
    slopes = 0.5 * (distances - pair_distances(GEOMETRY, PAIRS)).square()  # ∂U/∂k
    covariance = (g - mean).T @ (slopes - slopes.mean(0)) / (len(g) - 1)
    return loss, -(sensitivity @ covariance) / KT


@pytest.mark.parametrize("minibatch_size", [3, 1000])
def test_the_gradient_is_the_covariance(minibatch_size):
    trajectory = toy_trajectory()
    trajectory.positions[3:, 1] = torch.nan
    samples = samples_of(trajectory, at_once=minibatch_size)
    assert len(samples) == N_FRAMES * N_REPLICAS - 2
    found = ObservableTerm(two_targets()).gradient(Springs(), samples)
    loss, gradient = _explicit(samples.positions)
    assert found.loss == pytest.approx(float(loss), rel=1e-10)
    assert found.n_evaluated == 18
    torch.testing.assert_close(found.gradients[0], gradient, rtol=1e-9, atol=0)


def test_the_published_estimator_can_be_asked_for():
    samples = samples_of(toy_trajectory(), at_once=1000, limited=False)
    paper = ObservableTerm(two_targets(), paper_estimator=True).gradient(Springs(), samples)
    _, gradient = _explicit(samples.positions)
    torch.testing.assert_close(paper.gradients[0], gradient * KT * 19 / 20, rtol=1e-9, atol=0)


def test_reweighting_enters_mean_and_gradient():
    """Samples carried to stiffer springs give the weighted loss."""
    trajectory, moved = toy_trajectory(), Springs(STIFFNESS * 1.05)
    energy = Springs()(samples_of(trajectory).system, trajectory.positions.flatten(0, 1))[0]
    trajectory = type(trajectory)(trajectory.positions, None, energy.reshape(N_FRAMES, N_REPLICAS), 2.0)
    samples = samples_of(trajectory).reweighted(moved)
    term = ObservableTerm(two_targets()[:1])
    mean = samples.weights @ samples.values(term.targets[0].observable)
    expected = 2.0 * (mean - torch.tensor([0.9, 1.0, 1.4])).square().mean()
    assert term.gradient(moved, samples).loss == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("n_frames", [0, 1])
def test_too_few_samples_give_no_gradient(n_frames):
    trajectory = toy_trajectory()
    trajectory.positions[n_frames:] = torch.nan
    trajectory.positions[:, 1:] = torch.nan
    assert ObservableTerm(two_targets()).gradient(Springs(), samples_of(trajectory)) is None


def test_the_share_of_a_reference_that_no_sample_visits():
    """It is logged for densities alone."""
    lengths = BondLengthDistribution(4.0, 0.5)
    samples = samples_of(toy_trajectory())
    visited = samples.values(lengths).mean(0) > 0
    reference = torch.where(visited, 0.0, 0.25 / int((~visited).sum())).double()
    reference[visited.nonzero()[0]] = 0.75
    targets = [*two_targets(), Target(lengths, reference, losses.reverse_kl)]
    found = ObservableTerm(targets).gradient(Springs(), samples)
    assert found.scalars == {"bond_length_distribution_unvisited": pytest.approx(0.25)}
