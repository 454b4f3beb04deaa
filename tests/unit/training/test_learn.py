from functools import partial

import pytest
import torch
from tiny import GEOMETRY, PAIRS, SHIFT_EV, STIFFNESS, Springs, frames, schnet, water

from mdsim import losses
from mdsim.config.schema import EstimatorConfig, LearningConfig
from mdsim.dynamics.stretch import Outcome
from mdsim.estimator.samples import Target, collect, importance, usable
from mdsim.geometry import pair_distances
from mdsim.stability.verdict import Verdict
from mdsim.state import MDState, Trajectory
from mdsim.training.learn import (
    QMData,
    apply_gradient,
    compare,
    observable_gradient,
    qm_gradient,
    randomize_step,
    signal_to_noise,
)
from mdsim.units import kT_eV

KT = kT_eV(300.0)
N_FRAMES, N_REPLICAS = 5, 4


class Distances:
    """The three interatomic distances, as an observable."""

    name = "distances"

    def __call__(self, system, trajectory):
        return pair_distances(trajectory.positions, PAIRS)


class Squares(Distances):
    name = "squares"

    def __call__(self, system, trajectory):
        return pair_distances(trajectory.positions, PAIRS[:2]).square()


class Strains(Distances):
    """Squared deviations, which the energy of the springs is made of: strongly correlated with it."""

    name = "strains"

    def __call__(self, system, trajectory):
        return (pair_distances(trajectory.positions, PAIRS) - pair_distances(GEOMETRY, PAIRS)).square()


def _trajectory() -> Trajectory:
    positions = frames(N_FRAMES * N_REPLICAS).positions.double().reshape(N_FRAMES, N_REPLICAS, 3, 3)
    return Trajectory(positions, torch.zeros_like(positions), torch.zeros(N_FRAMES, N_REPLICAS).double(), 2.0)


def _outcome(trajectory: Trajectory, first: list[int]) -> Outcome:
    frame = torch.tensor(first)
    unstable = frame < N_FRAMES
    verdict = Verdict(frame, unstable, tuple("bond" if broken else None for broken in unstable.tolist()))
    last = trajectory.positions[-1]
    return Outcome(MDState(last, last, last, trajectory.energy[-1]), trajectory, verdict)


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
    trajectory = _trajectory()
    trajectory.positions[4, 1, 0, 0] = torch.nan
    trajectory.energy[4, 2] = torch.inf
    mask = usable(_outcome(trajectory, [5, 2, 0, 4]), EstimatorConfig(**settings))
    assert mask.sum(0).tolist() == counts
    assert mask[:1].sum() >= 1 or not counts[0]
    for replica, count in enumerate(counts):
        assert mask[:count, replica].all(), "the usable frames of a replica are its first ones"


def _targets() -> list[Target]:
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
def test_observable_gradient_is_the_covariance(minibatch_size, generator):
    trajectory = _trajectory()
    mask = torch.ones(N_FRAMES, N_REPLICAS, dtype=torch.bool)
    mask[3:, 1] = False
    trajectory.positions[3:, 1] = torch.nan
    settings = EstimatorConfig(minibatch_size=minibatch_size)
    samples = collect(water(), trajectory, mask, _targets())
    result = observable_gradient(Springs(), water(), samples, _targets(), KT, settings, generator)
    loss, gradient = _explicit(trajectory.positions[mask])
    assert result.n_samples == 18
    torch.testing.assert_close(result.loss, loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(result.gradients[0], gradient, rtol=1e-9, atol=0)


def test_the_published_estimator_can_be_asked_for(generator):
    mask = torch.ones(N_FRAMES, N_REPLICAS, dtype=torch.bool)
    settings = EstimatorConfig(minibatch_size=1000, paper_estimator=True)
    samples = collect(water(), _trajectory(), mask, _targets())
    paper = observable_gradient(Springs(), water(), samples, _targets(), KT, settings, generator)
    _, gradient = _explicit(_trajectory().positions[mask])
    torch.testing.assert_close(paper.gradients[0], gradient * KT * 19 / 20, rtol=1e-9, atol=0)


def _qm_data(n: int = 10) -> QMData:
    labeled = frames(n)
    loss = partial(losses.energy_force_loss, energy_weight=0.3, force_weight=0.7)
    return QMData(labeled.positions.double(), labeled.energy - SHIFT_EV, labeled.forces.double(), loss)


def _in_one_batch(model, data: QMData, index=slice(None)) -> tuple[float, list[torch.Tensor]]:
    energy, forces = model(water(), data.positions[index], create_graph=True)
    loss = data.loss(energy, forces, data.energy[index], data.forces[index])
    return float(loss.detach()), torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("minibatch_size", [100, 10, 4, 1])
def test_qm_gradient_is_that_of_one_big_batch(minibatch_size, generator):
    model, data = schnet().double(), _qm_data()
    loss, gradients = qm_gradient(model, water(), data, minibatch_size, generator)
    expected_loss, expected = _in_one_batch(model, data)
    assert loss == pytest.approx(expected_loss, rel=1e-10)
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if wanted is None else wanted)


def test_sampled_qm_gradient_is_that_of_the_drawn_frames():
    model, data = Springs(STIFFNESS * 1.2), _qm_data()
    _, (gradient,) = qm_gradient(model, water(), data, 2, torch.Generator().manual_seed(4), n_frames=5)
    drawn = torch.randperm(10, generator=torch.Generator().manual_seed(4))[:5]
    torch.testing.assert_close(gradient, _in_one_batch(model, data, drawn)[1][0])


def test_sampled_qm_gradient_is_unbiased():
    model, data = Springs(STIFFNESS * 1.2), _qm_data()
    generator = torch.Generator().manual_seed(4)
    draws = torch.stack([qm_gradient(model, water(), data, 100, generator, 4)[1][0] for _ in range(300)])
    error = draws.std(0) / len(draws) ** 0.5
    full = qm_gradient(model, water(), data, 100, generator)[1][0]
    assert ((draws.mean(0) - full).abs() < 4 * error).all()


def test_asking_for_more_frames_than_there_are_uses_each_once(generator):
    model, data = Springs(STIFFNESS * 1.2), _qm_data()
    all_frames, more = (qm_gradient(model, water(), data, 100, generator, n) for n in (None, 1000))
    assert torch.equal(all_frames[1][0], more[1][0])


def test_the_qm_gradient_lowers_the_loss(generator):
    model, data = Springs(STIFFNESS * 1.2), _qm_data()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    seen = []
    for _ in range(60):
        loss, gradients = qm_gradient(model, water(), data, 100, generator)
        seen.append(loss)
        apply_gradient(model, optimizer, None, gradients, LearningConfig(energy_force_loss_weight=1.0, clip_norm=None))
    assert seen[-1] < 0.01 * seen[0]
    torch.testing.assert_close(model.stiffness.detach(), STIFFNESS, rtol=0.05, atol=0)


@pytest.mark.parametrize("clip_norm", [None, 100.0, 0.5])
def test_apply_gradient_adds_weighs_and_clips(clip_norm):
    model = Springs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    observable, qm = (torch.tensor([1.0, 0.0, 0.0]).double(),), (torch.tensor([1.0, 6.0, 0.0]).double(),)
    settings = LearningConfig(energy_force_loss_weight=2.0, clip_norm=clip_norm, max_gradient_ratio=None)
    norm = apply_gradient(model, optimizer, observable, qm, settings)
    assert norm == pytest.approx((3.0**2 + 12.0**2) ** 0.5)
    step = torch.tensor([3.0, 12.0, 0.0]).double() * min(1.0, (clip_norm or 100.0) / norm)
    torch.testing.assert_close(model.stiffness.detach(), STIFFNESS - step, rtol=1e-5, atol=0)
    assert model.stiffness.grad is None


@pytest.mark.parametrize(
    ("smallest", "largest", "expected"),
    [(None, None, 5.0), (None, 10.0, 5.0), (None, 1.0, 2.0), (0.2, 0.5, 1.0), (1.0, None, 5.0), (4.0, 5.0, 8.0)],
)
def test_the_observable_gradient_is_bounded_by_the_weighted_qm_gradient(smallest, largest, expected):
    bounds = {"min_gradient_ratio": smallest, "max_gradient_ratio": largest}
    settings = LearningConfig(optimizer="sgd", energy_force_loss_weight=2.0, clip_norm=None, **bounds)
    model = Springs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    observable, qm = (torch.tensor([3.0, 4.0, 0.0]).double(),), (torch.tensor([0.0, 0.0, 1.0]).double(),)
    apply_gradient(model, optimizer, observable, qm, settings)
    step = STIFFNESS - model.stiffness.detach()
    assert step[:2].norm().item() == pytest.approx(expected)
    assert step[2].item() == pytest.approx(2.0)


def test_a_randomized_step_is_as_long_as_the_one_it_replaces(generator):
    model = schnet()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    randomize_step(before, model, generator)
    steps = [parameter.detach() - old for old, parameter in zip(before, model.parameters(), strict=True)]
    for step in steps:
        assert float(step.norm()) == pytest.approx(0.1 * step.numel() ** 0.5, rel=1e-4)
    largest = max(steps, key=torch.numel)
    assert abs(float(largest.mean())) < 0.1 * 4 / largest.numel() ** 0.5, "the direction is random, not the old one"


def test_signal_to_noise_grows_with_the_number_of_independent_reruns():
    far = [Target(Strains(), torch.tensor([0.5, 0.5, 0.5]).double(), losses.mean_squared_error)]
    ratios = []
    for n_replicas in (16, 256):
        positions = frames(2 * n_replicas, seed=3).positions.double().reshape(2, n_replicas, 3, 3)
        trajectory = Trajectory(positions, None, torch.zeros(2, n_replicas).double(), 2.0)
        samples = collect(water(), trajectory, torch.ones(2, n_replicas, dtype=torch.bool), far)
        assert samples.replica.bincount().tolist() == [2] * n_replicas
        ratios.append(signal_to_noise(Springs(), water(), samples, far, KT, EstimatorConfig()))
    assert 2 < ratios[1] / ratios[0] < 8, "16 times the samples should be about 4 times the signal"


def test_importance_carries_samples_to_other_parameters():
    trajectory, mask = _trajectory(), torch.ones(N_FRAMES, N_REPLICAS, dtype=torch.bool)
    old, new = Springs(), Springs(STIFFNESS * 1.01)
    energy = old(water(), trajectory.positions.flatten(0, 1))[0].reshape(N_FRAMES, N_REPLICAS)
    trajectory = Trajectory(trajectory.positions, trajectory.velocities, energy, 2.0)
    samples = collect(water(), trajectory, mask, _targets())
    same = importance(old, water(), samples, KT, structures_at_once=3)
    torch.testing.assert_close(same.weights, torch.full((20,), 1 / 20, dtype=torch.float64))
    moved = importance(new, water(), samples, KT, structures_at_once=3)
    change = 0.01 * energy.flatten()
    torch.testing.assert_close(moved.weights, torch.softmax(-change / KT, 0), rtol=1e-9, atol=0)
    assert 1 < moved.effective_sample_size < 20


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = Springs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(RuntimeError, match="non-finite"):
        apply_gradient(model, optimizer, None, (torch.full((3,), torch.nan).double(),), LearningConfig())
    assert torch.equal(model.stiffness, STIFFNESS)


def test_compare():
    relation = compare(
        (torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])), (torch.tensor([0.0, 0.0]), torch.tensor([[2.0]]))
    )
    assert relation.observable_norm == pytest.approx(5.0)
    assert relation.qm_norm == pytest.approx(2.0)
    assert relation.cosine == pytest.approx(0.8)
    assert relation.ratio == pytest.approx(2.5)


def test_compare_with_nothing():
    relation = compare((torch.zeros(2),), (torch.ones(2),))
    assert relation.cosine == 0
    assert relation.ratio == 0
