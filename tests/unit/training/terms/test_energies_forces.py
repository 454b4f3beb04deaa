"""The gradient of the energy/force loss, whole, in minibatches and of drawn frames."""

from functools import partial

import pytest
import torch
from reruns import samples_of, toy_trajectory
from tiny import SHIFT_EV, STIFFNESS, Springs, frames, schnet, water

from mdsim import losses
from mdsim.memory import PiecesAtOnce
from mdsim.training.terms import EnergyForceTerm, LabeledFrames

LOSS = partial(losses.energy_force_loss, energy_weight=0.3, force_weight=0.7)
ALL = torch.arange(10)


def _term(batch_size: int | None = None, at_once: int = 100) -> EnergyForceTerm:
    labeled = frames(10)
    labels = LabeledFrames(labeled.positions.double(), labeled.energy - SHIFT_EV, labeled.forces.double())
    return EnergyForceTerm(water(), labels, LOSS, batch_size, PiecesAtOnce(at_once, "labeled frames"))


def _in_one_batch(model, index=ALL) -> tuple[float, list[torch.Tensor]]:
    data = _term().frames
    energy, forces = model(water(), data.positions[index], create_graph=True)
    loss = LOSS(energy, forces, data.energy[index], data.forces[index])
    return float(loss.detach()), torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("at_once", [100, 10, 4, 1])
def test_minibatches_give_the_gradient_of_one_big_batch(at_once):
    model = schnet().double()
    found = _term(at_once=at_once).gradient_of(model, ALL)
    loss, expected = _in_one_batch(model)
    assert found.loss == pytest.approx(loss, rel=1e-10)
    assert found.n_evaluated == 10
    for gradient, wanted in zip(found.gradients, expected, strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if wanted is None else wanted)


def test_drawn_frames():
    model, samples = Springs(STIFFNESS * 1.2), samples_of(toy_trajectory(), generator=torch.Generator().manual_seed(4))
    (gradient,) = _term(5, at_once=2).gradient(model, samples).gradients
    drawn = torch.randperm(10, generator=torch.Generator().manual_seed(4))[:5]
    torch.testing.assert_close(gradient, _in_one_batch(model, drawn)[1][0])


def test_the_gradient_of_drawn_frames_is_unbiased():
    model, samples = Springs(STIFFNESS * 1.2), samples_of(toy_trajectory(), generator=torch.Generator().manual_seed(4))
    draws = torch.stack([_term(4).gradient(model, samples).gradients[0] for _ in range(300)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - _in_one_batch(model)[1][0]).abs() < 4 * error).all()


def test_asking_for_more_frames_than_there_are_uses_each_once():
    model, samples = Springs(STIFFNESS * 1.2), samples_of(toy_trajectory())
    all_frames, more = (_term(n).gradient(model, samples).gradients[0] for n in (None, 1000))
    assert torch.equal(all_frames, more)


def test_the_gradient_lowers_the_loss():
    model, term = Springs(STIFFNESS * 1.2), _term()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    seen = []
    for _ in range(60):
        found = term.gradient_of(model, ALL)
        (model.stiffness.grad,) = found.gradients
        optimizer.step()
        seen.append(found.loss)
    assert seen[-1] < 0.01 * seen[0]
    torch.testing.assert_close(model.stiffness.detach(), STIFFNESS, rtol=0.05, atol=0)
