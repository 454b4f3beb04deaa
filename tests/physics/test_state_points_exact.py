"""Gradients over several state points: closed forms of a harmonic well at two temperatures, and sums of single ones."""

import math
from dataclasses import replace

import pytest
import torch
from analytic_potentials import system_of
from torch import nn

from mdsim import losses
from mdsim.dynamics.state_points import Conditions
from mdsim.dynamics.stretch import Outcome
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.samples import Samples, Sampling
from mdsim.force_field import ForceField
from mdsim.memory import PiecesAtOnce
from mdsim.stability.verdict import Verdict
from mdsim.state import MDState, Trajectory
from mdsim.training.terms import ContrastTerm, ObservableTerm, StatePointsTerm, Target, TermAt
from mdsim.units import BAR, kT_eV

STIFFNESS, TEMPERATURES_K, WEIGHTS = 2.0, (200.0, 500.0), (1.0, 0.25)
POINTS = tuple(map(Conditions, TEMPERATURES_K))
REFERENCE_STIFFNESS = (2.5, 1.6)  # of the ensembles that the references are of
SYSTEM = system_of([18], [40.0])


class Well(ForceField):
    """U = k x²/2 + c x⁴ of one atom about the origin; c is zero unless stepped."""

    def __init__(self) -> None:
        super().__init__(cutoff=1.0)
        self.stiffness = nn.Parameter(torch.tensor(STIFFNESS, dtype=torch.float64))
        self.quartic = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        squared = positions.square().sum(-1)
        return 0.5 * self.stiffness * squared + self.quartic * squared.square()


class Squares:
    """x² of each component: <x²> = kT/k."""

    name = "squares"

    def __call__(self, system, trajectory):
        return trajectory.positions[:, :, 0].square()

    def per_molecule(self, system, trajectory):
        return self(system, trajectory)[:, :, None]

    @property
    def bin_centers(self):
        return torch.arange(3.0)


SQUARES = Squares()


def expected_mean(point: int, stiffness: float = STIFFNESS) -> float:
    return kT_eV(TEMPERATURES_K[point]) / stiffness


def drawn(point: int, stiffness: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Independent canonical positions."""
    return math.sqrt(expected_mean(point, stiffness)) * torch.randn(*shape, generator=generator, dtype=torch.float64)


def rerun(generator: torch.Generator, n_frames: int = 100, n_each: int = 10, dtype=torch.float64) -> Outcome:
    """Canonical frames: the first replicas at the first temperature, the others at the second."""
    positions = torch.cat([drawn(p, STIFFNESS, (n_frames, n_each, 1, 3), generator) for p in (0, 1)], 1)
    energy = Well()(SYSTEM, positions.flatten(0, 1))[0].detach().reshape(n_frames, -1)
    kT = kT_eV(torch.tensor(TEMPERATURES_K, dtype=torch.float64)).repeat_interleave(n_each).to(dtype)
    state = MDState(positions[-1], positions[-1], positions[-1], energy[-1], kT=kT)
    stable = torch.full((2 * n_each,), n_frames)
    verdict = Verdict(stable, stable < n_frames, (None,) * (2 * n_each))
    return Outcome(state, Trajectory(positions, None, energy, 1.0), verdict)


def only(outcome: Outcome, point: int) -> Outcome:
    """The replicas of one state point, without a temperature of their own."""
    n_each = len(outcome.state.energy) // 2
    here = slice(point * n_each, (point + 1) * n_each)
    state = MDState(**{k: v for k, v in outcome.state[here].tensors().items() if k != "kT"})
    verdict = Verdict(outcome.verdict.first_frame[here], outcome.verdict.unstable[here], (None,) * n_each)
    return Outcome(state, outcome.trajectory.replicas(here), verdict)


def samples_of(outcome: Outcome, kT: float = float("nan"), **settings) -> Samples:
    sampling = Sampling(kT, PiecesAtOnce(777, "structures of a minibatch"), **settings)
    return sampling(Well(), SYSTEM, outcome, torch.Generator().manual_seed(0))


def linear(mean, reference):
    return (mean - reference).sum()


def observables(loss=linear) -> StatePointsTerm:
    references = [torch.full((3,), expected_mean(p, k)).double() for p, k in enumerate(REFERENCE_STIFFNESS)]
    terms = [ObservableTerm([Target(SQUARES, reference, loss)]) for reference in references]
    return StatePointsTerm([TermAt(*part) for part in zip(POINTS, terms, WEIGHTS, strict=True)])


def contrast() -> StatePointsTerm:
    generator = torch.Generator().manual_seed(1)
    frames = [drawn(p, k, (20_000, 1, 3), generator) for p, k in enumerate(REFERENCE_STIFFNESS)]
    terms = [ContrastTerm(SYSTEM, positions) for positions in frames]
    return StatePointsTerm([TermAt(*part) for part in zip(POINTS, terms, WEIGHTS, strict=True)])


def z_score(values, expected):
    return (values.mean() - expected) / (values.std() / math.sqrt(len(values)))


def test_gradient_of_observables_against_its_closed_form():
    """Σ_s w_s d<x²>_s/dθ with d<x²>/dk = -kT/k², and d<x²>/dc = -Cov(x², r⁴)/kT = -20 (kT)²/k³ (in three
    dimensions <x²r⁴> = 35 s⁶, <r⁴> = 15 s⁴, with s² = kT/k, so that the covariance is 20 s⁶)."""
    draws, generator = [], torch.Generator().manual_seed(3)
    for _ in range(60):
        draws.append(torch.stack(observables().gradient(Well(), samples_of(rerun(generator))).gradients))
    found = torch.stack(draws)
    kTs = [kT_eV(temperature_K) for temperature_K in TEMPERATURES_K]
    by_stiffness = 3 * sum(-w * kT / STIFFNESS**2 for w, kT in zip(WEIGHTS, kTs, strict=True))
    by_quartic = 3 * sum(-w * 20 * kT**2 / STIFFNESS**3 for w, kT in zip(WEIGHTS, kTs, strict=True))
    for values, expected in zip(found.T, (by_stiffness, by_quartic), strict=True):
        assert abs(z_score(values, expected)) < 3, (values.mean(), expected)
        assert values.std() / math.sqrt(len(values)) < 0.02 * abs(expected)
    # One kT for both, as if they were one ensemble, would be wrong by many standard errors.
    mixed = -3 * sum(WEIGHTS) * sum(kTs) / 2 / STIFFNESS**2
    assert abs(z_score(found[:, 0], mixed)) > 30


def test_gradient_of_the_relative_entropy_against_its_closed_form():
    """Σ_s w_s (<U'>_reference - <U'>)_s / kT_s = Σ_s w_s 3/2 (1/k_s - 1/k): without kT_s it would not be."""
    generator, term = torch.Generator().manual_seed(4), contrast()
    found = torch.stack([term.gradient(Well(), samples_of(rerun(generator))).gradients[0] for _ in range(30)])
    expected = sum(w * 1.5 * (1 / k - 1 / STIFFNESS) for w, k in zip(WEIGHTS, REFERENCE_STIFFNESS, strict=True))
    error_of_reference = 1.5 * math.sqrt(2 / 3) / math.sqrt(20_000) * math.hypot(0.4, 0.25 / 1.6)
    error = math.hypot(float(found.std()) / math.sqrt(len(found)), error_of_reference)
    assert abs(float(found.mean()) - expected) < 3 * error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reweighted", [False, True])
@pytest.mark.parametrize("sampler", [None, NeighborhoodSampler(torch.zeros(0))])
@pytest.mark.parametrize("make", [lambda: observables(losses.sum_squared_error), contrast])
def test_sum_of_the_gradients_of_single_state_points(make, sampler, reweighted, dtype):
    """Of whole structures and of neighborhoods, with the kT of the state in either precision, and after a step."""
    outcome, term, model = rerun(torch.Generator().manual_seed(5), dtype=dtype), make(), Well()
    both = samples_of(outcome, sampler=sampler)
    single = [samples_of(only(outcome, p), kT_eV(TEMPERATURES_K[p]), sampler=sampler) for p in (0, 1)]
    if reweighted:
        with torch.no_grad():
            model.stiffness += 0.05
        both, single = both.reweighted(model), [one.reweighted(model) for one in single]
        assert both.effective_fraction == pytest.approx(min(one.effective_fraction for one in single), rel=1e-5)
        assert 0.9 < both.effective_fraction < 1
    found = term.gradient(model, both)
    alone = [part.term.gradient(model, one) for part, one in zip(term.parts, single, strict=True)]
    for tensor, *others in zip(found.gradients, *(one.gradients for one in alone), strict=True):
        expected = sum(w * other for w, other in zip(WEIGHTS, others, strict=True))
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-9)
    assert found.loss == pytest.approx(sum(w * one.loss for w, one in zip(WEIGHTS, alone, strict=True)), rel=1e-5)
    assert found.scalars["200K_loss"] == pytest.approx(alone[0].loss, rel=1e-5)
    assert found.n_evaluated == sum(one.n_evaluated for one in alone)


def test_a_state_point_without_samples_adds_nothing():
    outcome = rerun(torch.Generator().manual_seed(6))
    trajectory = outcome.trajectory
    trajectory.positions[:, 10:] = torch.nan
    found = observables().gradient(Well(), samples_of(outcome))
    alone = observables().parts[0].term.gradient(Well(), samples_of(only(outcome, 0), kT_eV(TEMPERATURES_K[0])))
    torch.testing.assert_close(found.gradients[0], WEIGHTS[0] * alone.gradients[0])
    trajectory.positions[:] = torch.nan
    assert observables().gradient(Well(), samples_of(outcome)) is None


def test_samples_of_several_state_points_have_no_single_kT():
    samples = samples_of(rerun(torch.Generator().manual_seed(7)))
    with pytest.raises(ValueError, match="at several state points"):
        samples.kT  # noqa: B018
    with pytest.raises(ValueError, match="at several state points"):
        observables().parts[0].term.gradient(Well(), samples)
    with pytest.raises(ValueError, match="at a single state point"):
        samples.at(POINTS[0]).at(POINTS[0])
    assert samples.at(POINTS[0]).kT == kT_eV(200.0)
    assert samples.at(POINTS[0]).replica.unique().tolist() == list(range(10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_points_of_one_temperature_differ_by_their_pressures(dtype):
    """Each term sees the samples of its pressure, also after a step; weights are normalized at each pressure."""
    outcome, model = rerun(torch.Generator().manual_seed(8), dtype=dtype), Well()
    bars = torch.tensor([-50.0, 2000.0], dtype=torch.float64)
    state = replace(
        outcome.state,
        kT=torch.full_like(outcome.state.energy, kT_eV(300.0)),
        pressure=(bars * BAR).repeat_interleave(10).to(dtype),
    )
    both = samples_of(replace(outcome, state=state))
    with torch.no_grad():
        model.stiffness += 0.05
    both = both.reweighted(model)
    for number, bar in enumerate(bars.tolist()):
        own = both.at(Conditions(300.0, bar))
        assert own.replica.unique().tolist() == list(range(10 * number, 10 * number + 10))
        assert float(own.reweighting.sum()) == pytest.approx(0.5, rel=1e-5)
        alone = samples_of(only(outcome, number), kT_eV(300.0)).reweighted(model)
        torch.testing.assert_close(own.reweighting, 0.5 * alone.reweighting)
    assert not len(both.at(Conditions(300.0, 1.0)))
