"""Parameter steps from one rerun: their length, their number, and steps that cannot be taken."""

import logging

import pytest
import torch
from reruns import N_FRAMES, N_REPLICAS, samples_of, toy_trajectory
from tiny import STIFFNESS, Springs, schnet

from mdsim.errors import TrainingError
from mdsim.estimator.loss_term import TermGradient
from mdsim.state import Trajectory
from mdsim.training.average import ParameterAverage
from mdsim.training.joint_gradient import WeightedTerm
from mdsim.training.progress import Progress
from mdsim.training.schedule import OptimizerSettings, Schedule
from mdsim.training.skips import MOST_SKIPPED
from mdsim.training.steps import ParameterSteps, StepSettings, randomize_step


class Slope:
    """A constant gradient."""

    name = "slope"

    def __init__(self, *gradient: float, uses_samples: bool = True, loss: float = 1.0, **scalars: float) -> None:
        self.values, self.uses_samples, self.loss, self.scalars = gradient, uses_samples, loss, scalars

    def gradient(self, force_field, samples):
        return TermGradient((torch.tensor(self.values).double(),), self.loss, self.scalars)


def _steps(model, term, learning_rate: float = 1.0, **settings) -> ParameterSteps:
    schedule = Schedule(model.parameters(), OptimizerSettings("sgd", learning_rate))
    return ParameterSteps(
        model, [WeightedTerm(term)], schedule, StepSettings(**settings), ParameterAverage(model, None)
    )


def _drawn_by(model) -> Trajectory:
    trajectory = toy_trajectory()
    energy = model(samples_of(trajectory).system, trajectory.positions.flatten(0, 1))[0]
    return Trajectory(trajectory.positions, None, energy.detach().reshape(N_FRAMES, N_REPLICAS), 2.0)


@pytest.mark.parametrize("clip_norm", [None, 100.0, 0.5])
def test_steps_are_clipped(clip_norm):
    model = Springs()
    logged = _steps(model, Slope(3.0, 4.0, 0.0), clip_norm=clip_norm)(samples_of(toy_trajectory()), Progress())
    assert logged["learn/gradient_norm"] == pytest.approx(5.0)
    step = torch.tensor([3.0, 4.0, 0.0]).double() * min(1.0, (clip_norm or 100.0) / 5.0)
    torch.testing.assert_close(model.stiffness.detach(), STIFFNESS - step, rtol=1e-5, atol=0)
    assert model.stiffness.grad is None


def test_references_that_no_sample_reaches_are_named_once(caplog):
    steps = _steps(Springs(), Slope(1.0, 0.0, 0.0, rdf_OO_unvisited=0.4, adf_unvisited=0.05), 1e-3)
    with caplog.at_level(logging.WARNING, logger="mdsim"):
        for _ in range(2):
            steps(samples_of(toy_trajectory()), Progress())
    (warning,) = caplog.messages
    assert warning.startswith("slope_rdf_OO: no sample is where 40 % of the reference is")


@pytest.mark.parametrize(("rate", "taken"), [(1e-3, 4), (30.0, 1)])
def test_steps_end_when_too_few_samples_carry_the_weight(rate, taken):
    model = Springs()
    samples = samples_of(_drawn_by(model))
    logged = _steps(model, Slope(1.0, 1.0, 1.0), rate, clip_norm=None, steps_per_rerun=4)(samples, Progress())
    assert logged["learn/steps"] == taken
    assert (logged["learn/effective_fraction"] < 0.5) == (taken == 1)


def test_terms_without_samples_are_not_reweighted():
    model = Springs()
    logged = _steps(model, Slope(1.0, 1.0, 1.0, uses_samples=False), 30.0, clip_norm=None, steps_per_rerun=3)(
        samples_of(_drawn_by(model)), Progress()
    )
    assert logged["learn/steps"] == 3 and "learn/effective_fraction" not in logged
    torch.testing.assert_close(model.stiffness.detach(), STIFFNESS - 90.0)


@pytest.mark.parametrize(
    ("term", "wrong"),
    [
        (Slope(torch.nan, 0.0, 0.0), "joint gradient"),
        (Slope(1.0, 0.0, 0.0, loss=torch.nan), "loss of slope"),
        (Slope(1.0, 0.0, 0.0, loss=torch.inf), "loss of slope"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_is_skipped_and_ends_the_training_in_the_end(term, wrong, caplog):
    model = Springs()
    steps = _steps(model, term)
    samples = samples_of(toy_trajectory())
    with caplog.at_level(logging.WARNING, "mdsim"):
        for _ in range(MOST_SKIPPED - 1):
            assert steps(samples, Progress())["learn/steps"] == 0
        with pytest.raises(
            TrainingError, match=f"20 steps in a row had no finite {wrong}: lower learning.learning_rate"
        ):
            steps(samples, Progress())
    assert torch.equal(model.stiffness.detach(), STIFFNESS)
    assert f"not finite: {wrong}: step skipped (1 in a row)" in caplog.text


def test_a_finite_gradient_forgives_what_was_skipped():
    model, term = Springs(), Slope(torch.nan, 0.0, 0.0)
    steps, samples = _steps(model, term), samples_of(toy_trajectory())
    steps(samples, Progress())
    term.values = (1.0, 0.0, 0.0)
    steps(samples, Progress())
    assert steps.skipped == 0


def test_signal_to_noise_is_measured_now_and_then():
    steps = _steps(Springs(), Slope(1.0, 1.0, 1.0), signal_every=2)
    samples = samples_of(toy_trajectory())
    measured = ["learn/slope_signal_to_noise" in steps(samples, Progress(cycle_epoch=epoch)) for epoch in range(4)]
    assert measured == [True, False, True, False]


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
