"""The loss of labeled frames of several compositions as a term. float64."""

import pytest
import torch
from mixed_frames import geometries, labeled, mixed
from tiny import schnet

from mdsim.losses import MixedLoss, l2_mean_absolute_error, mean_absolute_error
from mdsim.memory import PiecesAtOnce
from mdsim.training.mixed_fit import MixedFit
from mdsim.training.mixed_labels import MixedLabels
from mdsim.training.terms import MixedEnergyForceTerm

LOSS = MixedLoss(1.0, 2.0, 30.0, mean_absolute_error, l2_mean_absolute_error, mean_absolute_error)


@pytest.fixture(scope="module")
def frames():
    return mixed(labeled(geometries(4)))


def _term(frames, model, at_once: int) -> MixedEnergyForceTerm:
    labels = MixedLabels.of(frames, next(model.parameters()))
    pieces = PiecesAtOnce(at_once, "labeled frames", limited=False)
    return MixedEnergyForceTerm(labels, labels.relative_energy(model), LOSS, frames_at_once=pieces)


@pytest.mark.parametrize("at_once", [1, 5, 100])
def test_loss_and_gradient_are_those_of_the_fit_for_any_division(frames, at_once):
    fit = MixedFit(frames, frames, LOSS, torch.zeros(0, dtype=torch.float64))
    model = fit.prepare(schnet(species=(1, 6, 8)))
    chosen = torch.tensor([3, 0, 14, 7, 2, 11, 5])
    expected = fit.loss_of(model, chosen, False)
    gradients = torch.autograd.grad(expected, model.trainable_parameters, allow_unused=True)
    found = _term(frames, model, at_once).gradient_of(model, chosen)
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-10) and found.n_evaluated == 7
    for one, other in zip(found.gradients, gradients, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, rtol=1e-8, atol=1e-10)
