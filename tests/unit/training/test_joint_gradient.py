"""Weights and bounds of the terms in the joint gradient."""

import math

import pytest
import torch
from reruns import samples_of, toy_trajectory
from tiny import Springs, water

from mdsim.errors import TrainingError
from mdsim.estimator.loss_term import TermGradient
from mdsim.training.joint_gradient import SMOOTHED_STEPS, LossIncreases, WeightedTerm, joint_gradient


class Fixed:
    """A term with a given gradient."""

    def __init__(self, name: str, *gradient: float, loss: float = 1.0, uses_samples: bool = True) -> None:
        self.name, self.uses_samples = name, uses_samples
        self.found = TermGradient((torch.tensor(gradient).double(),), loss, {"extra": 7.0}, n_evaluated=3)

    def gradient(self, force_field, samples):
        return self.found if len(self.found.gradients[0]) else None


class Custom:
    """A term that gives whatever it is told to."""

    name, uses_samples = "custom", True

    def __init__(self, result) -> None:
        self.result = result

    def gradient(self, force_field, samples):
        return self.result() if callable(self.result) else self.result


def _joint(*terms: WeightedTerm, increases: LossIncreases | None = None):
    n = next((len(w.term.found.gradients[0]) for w in terms if w.term.gradient(None, None) is not None), 3)
    model = Springs()
    model.stiffness = torch.nn.Parameter(torch.ones(n, dtype=torch.float64))
    return joint_gradient(terms, model, samples_of(toy_trajectory()), increases)


def test_weighted_gradients_are_added():
    joint = _joint(WeightedTerm(Fixed("a", 1.0, 0.0)), WeightedTerm(Fixed("b", 1.0, 6.0), 2.0))
    assert joint.gradients[0].tolist() == [3.0, 12.0]
    assert joint.n_evaluated == 6


@pytest.mark.parametrize(
    ("smallest", "largest", "expected"),
    [(None, None, 5.0), (None, 10.0, 5.0), (None, 1.0, 2.0), (0.2, 0.5, 1.0), (1.0, None, 5.0), (4.0, 5.0, 8.0)],
)
def test_a_gradient_is_bounded_by_the_anchor(smallest, largest, expected):
    bounded = WeightedTerm(Fixed("a", 3.0, 4.0, 0.0), 1.0, smallest, largest)
    joint = _joint(bounded, WeightedTerm(Fixed("b", 0.0, 0.0, 1.0), 2.0)).gradients[0]
    assert float(joint[:2].norm()) == pytest.approx(expected)
    assert float(joint[2]) == 2.0


def test_several_bounded_terms_share_one_anchor():
    terms = [WeightedTerm(Fixed(name, 8.0, 0.0), 1.0, None, 0.5) for name in "ab"]
    joint = _joint(*terms, WeightedTerm(Fixed("c", 0.0, 4.0)))
    assert joint.gradients[0].tolist() == pytest.approx([4.0, 4.0])


@pytest.mark.parametrize("others", [[], [WeightedTerm(Fixed("b", 1.0, 1.0), 0.0)]])
def test_without_an_anchor_nothing_is_scaled(others):
    joint = _joint(WeightedTerm(Fixed("a", 3.0, 4.0), 1.0, 2.0, 3.0), *others)
    assert joint.gradients[0].tolist() == [3.0, 4.0]


@pytest.mark.parametrize(("loss", "fade"), [(1.0, 1.0), (0.5, 1.0), (1.1, 0.5), (1.2, 0.0), (9.0, 0.0)])
def test_bounded_terms_fade_as_the_loss_of_the_anchor_increases(loss, fade):
    increases = LossIncreases({"labels": 1.0}, {"labels": loss})
    labels = WeightedTerm(Fixed("labels", 0.0, 1.0, loss=loss), max_increase=0.2)
    joint = _joint(WeightedTerm(Fixed("a", 4.0, 0.0), max_ratio=0.5), labels, increases=increases)
    assert joint.gradients[0].tolist() == pytest.approx([0.5 * fade, 1.0])
    assert joint.scalars["learn/fade"] == pytest.approx(fade)


def test_increases_are_relative_to_the_first_loss_and_smoothed():
    increases = LossIncreases()
    assert increases.after("labels", 2.0) == 0.0
    assert increases.after("labels", 8.0) == pytest.approx(6.0 / SMOOTHED_STEPS / 2.0)
    found = [increases.after("labels", 3.0) for _ in range(200)]
    assert found[-1] == pytest.approx(0.5)


def test_what_is_logged():
    labels = WeightedTerm(Fixed("labels", 0.0, 1.0, uses_samples=False, loss=0.5), 2.0)
    scalars = _joint(WeightedTerm(Fixed("a", 3.0, 4.0), 1.0, None, 1.0), labels).scalars
    assert scalars == {
        "learn/a_loss": 1.0,
        "learn/a_gradient_norm": pytest.approx(5.0),
        "learn/a_extra": 7.0,
        "learn/a_ratio": pytest.approx(2.5),
        "learn/a_cosine": pytest.approx(0.8),
        "learn/labels_loss": 0.5,
        "learn/labels_gradient_norm": pytest.approx(1.0),
        "learn/labels_extra": 7.0,
    }


def test_terms_without_a_gradient_are_left_out():
    assert _joint(WeightedTerm(Fixed("a")), WeightedTerm(Fixed("b", 1.0))).gradients[0].tolist() == [1.0]
    assert _joint(WeightedTerm(Fixed("a"))) is None


def test_a_gradient_of_zero_has_no_direction():
    scalars = _joint(WeightedTerm(Fixed("a", 0.0), 1.0, 0.5, 1.0), WeightedTerm(Fixed("b", 1.0))).scalars
    assert scalars["learn/a_cosine"] == 0 and scalars["learn/a_ratio"] == 0
    assert all(math.isfinite(value) for value in scalars.values())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("text", "found a str, expected a TermGradient"),
        (TermGradient((), 1.0), r"one gradient per trainable parameter \(1\)"),
        (TermGradient((torch.ones(2),), 1.0), "of its shape"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: water().nowhere, "AttributeError: .*nowhere"),
    ],
)
def test_a_custom_term_that_is_wrong_is_one_clear_error(result, message):
    with pytest.raises(TrainingError, match=f"loss term 'custom': .*{message}"):
        joint_gradient([WeightedTerm(Custom(result))], Springs(), samples_of(toy_trajectory()))
