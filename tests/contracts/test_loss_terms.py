"""Contract of all loss terms."""

import sys
from functools import partial

import pytest
import torch
from paths import ROOT
from reruns import N_FRAMES, N_REPLICAS, Distances, samples_of, toy_trajectory
from tiny import SHIFT_EV, STIFFNESS, Springs, frames, schnet, water

from mdsim import losses
from mdsim.estimator.loss_term import LossTerm
from mdsim.estimator.samples import Samples
from mdsim.estimator.windows import WindowSettings
from mdsim.integrators import LangevinBAOAB
from mdsim.memory import PiecesAtOnce
from mdsim.observables import VACF, Diffusivity
from mdsim.state import Trajectory
from mdsim.training.terms import ContrastTerm, DynamicsTerm, EnergyForceTerm, LabeledFrames, ObservableTerm, Target

sys.path.append(str(ROOT / "docs" / "examples"))
from add_term import MeanEnergy


def _labels() -> EnergyForceTerm:
    labeled = frames(6)
    labels = LabeledFrames(labeled.positions.double(), labeled.energy - SHIFT_EV, labeled.forces.double())
    loss = partial(losses.energy_force_loss, energy_weight=0.5, force_weight=0.5)
    return EnergyForceTerm(water(), labels, loss, frames_at_once=PiecesAtOnce(4, "labeled frames"))


def _dynamics() -> DynamicsTerm:
    """Two dynamical targets, over windows whose points are all used, so that the gradient is that of their loss."""
    diffusivity = Target(Diffusivity(4.0, 10.0), torch.tensor([50.0]).double(), losses.mean_squared_error, weight=1e-4)
    vacf = Target(VACF(6.0), torch.zeros(7).double(), losses.sum_squared_error)
    settings = WindowSettings(10, points_every=1, max_ratio=None)
    moves = LangevinBAOAB(1.0, 300.0, 10.0)
    return DynamicsTerm(water(), moves, frames(9, seed=3).positions.double(), 300.0, [diffusivity, vacf], 5, settings)


TARGET = Target(Distances(), torch.tensor([0.9, 1.0, 1.4]).double(), losses.mean_squared_error)
TERMS = {
    "observables": lambda: ObservableTerm([TARGET]),
    "contrast": lambda: ContrastTerm(water(), frames(9, seed=3).positions.double()),
    "energies_forces": _labels,
    "dynamics": _dynamics,
    "custom": lambda: MeanEnergy(0.05, 0.1),
}


@pytest.fixture(params=TERMS)
def term(request) -> LossTerm:
    return TERMS[request.param]()


def _samples(model, at_once: int = 7) -> Samples:
    trajectory = toy_trajectory()
    energy = model(water(), trajectory.positions.flatten(0, 1))[0].reshape(N_FRAMES, N_REPLICAS)
    return samples_of(Trajectory(trajectory.positions, None, energy, 2.0), model, at_once=at_once)


def test_it_is_a_loss_term(term):
    assert isinstance(term, LossTerm)
    assert term.name.isidentifier()


def test_one_finite_gradient_per_parameter_and_no_trace_in_the_model(term):
    model = schnet().double()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    found = term.gradient(model, _samples(model))
    assert [gradient.shape for gradient in found.gradients] == [parameter.shape for parameter in model.parameters()]
    assert all(torch.isfinite(gradient).all() and not gradient.requires_grad for gradient in found.gradients)
    assert torch.isfinite(torch.tensor([found.loss, *found.scalars.values()])).all()
    assert found.n_evaluated > 0
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert parameter.grad is None and torch.equal(parameter, old)


def test_minibatches_change_nothing_but_rounding(term):
    model = Springs(STIFFNESS * 1.1)
    few, many = (term.gradient(model, _samples(model, at_once)) for at_once in (3, 1000))
    torch.testing.assert_close(few.gradients, many.gradients, rtol=1e-9, atol=1e-12)
    assert few.loss == pytest.approx(many.loss, rel=1e-12)


def test_the_gradient_is_that_of_the_reweighted_loss(term):
    """Central differences of the loss that samples give when they are carried to other parameters.

    Terms without samples draw the same random numbers again.
    The estimators divide by n - 1, reweighting by n.
    """
    model, step = Springs(STIFFNESS * 1.1), 1e-4
    samples = _samples(model)

    def loss(shift: torch.Tensor) -> float:
        moved = Springs(model.stiffness.detach() + shift)
        return term.gradient(moved, samples.reweighted(moved) if term.uses_samples else _samples(model)).loss

    found = term.gradient(model, samples).gradients[0]
    for place in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[place] = step
        slope = (loss(shift) - loss(-shift)) / (2 * step)
        slack = 0.2 if term.uses_samples else 1e-5
        assert float(found[place]) == pytest.approx(slope, rel=slack, abs=1e-6)


def test_frozen_parameters_have_no_gradient(term):
    model = schnet().double()
    whole = dict(zip(dict(model.named_parameters()), term.gradient(model, _samples(model)).gradients, strict=True))
    model.freeze_all_but(["lin*"])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert 0 < len(trained) < len(whole)
    found = term.gradient(model, _samples(model)).gradients
    torch.testing.assert_close(found, tuple(whole[name] for name in trained))


def test_without_samples_a_term_that_uses_them_has_no_gradient(term):
    model = Springs()
    samples = _samples(model)
    assert (term.gradient(model, samples.subset(torch.arange(0))) is None) == term.uses_samples
