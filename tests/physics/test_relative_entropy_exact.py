"""The relative-entropy gradient against closed forms and quadrature."""

import math
from functools import cache

import numpy as np
import pytest
import scipy.integrate
import torch

from mdsim.estimator.boltzmann import boltzmann_weights
from mdsim.estimator.relative_entropy import Ensemble, relative_entropy_change, relative_entropy_gradient

KT = 0.3
DEEP, SHALLOW = (0.8, 1.1, 0.25), (1.0, 1.0, -0.1)  # U = a x⁴ - b x² + c x: two unequal wells


def features(x):
    """Derivatives of the energy of the double well with respect to a, b and c."""
    return np.stack([x**4, -(x**2), x])


def density(parameters, x):
    return np.exp(-np.dot(parameters, features(x)) / KT)


def integral(function) -> float:
    parts = (scipy.integrate.quad(function, *range_, epsabs=1e-13)[0] for range_ in ((-4, 0), (0, 4)))
    return sum(parts)


def relative_entropy(reference, other) -> float:
    """∫ p ln(p/q) by quadrature."""
    norm_p, norm_q = (integral(lambda x, p=parameters: density(p, x)) for parameters in (reference, other))

    def integrand(x):
        log_ratio = -np.dot(np.subtract(reference, other), features(x)) / KT - math.log(norm_p / norm_q)
        return density(reference, x) / norm_p * log_ratio

    return integral(integrand)


def exact_gradient(reference, other) -> np.ndarray:
    """Central differences of the relative entropy."""
    step, gradient = 1e-4, []
    for shift in np.eye(3) * step:
        slope = relative_entropy(reference, other + shift) - relative_entropy(reference, other - shift)
        gradient.append(slope / (2 * step))
    return np.array(gradient)


@cache
def cumulative_distribution(parameters) -> tuple[np.ndarray, np.ndarray]:
    """A fine grid and the cumulative distribution on it."""
    x = np.linspace(-4, 4, 200_001)
    cumulative = scipy.integrate.cumulative_simpson(density(parameters, x), x=x, initial=0)
    return x, cumulative / cumulative[-1]


def drawn(parameters, n: int, seed: int) -> torch.Tensor:
    """Independent samples by inversion of the cumulative distribution."""
    x, cumulative = cumulative_distribution(parameters)
    return torch.from_numpy(np.interp(np.random.default_rng(seed).random(n), cumulative, x))


def well(parameters: tuple[torch.Tensor, ...], x: torch.Tensor, weights: torch.Tensor | None = None) -> Ensemble:
    powers = torch.from_numpy(features(x.numpy()))
    energies = lambda index: torch.stack(parameters) @ powers[:, index]  # noqa: E731
    return Ensemble(energies, torch.ones_like(x) if weights is None else weights)


def trainable(values) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values)


def estimate(reference: torch.Tensor, simulated: torch.Tensor, values=SHALLOW, weights=None, size=5000) -> np.ndarray:
    parameters = trainable(values)
    sides = well(parameters, reference), well(parameters, simulated, weights)
    return torch.stack(relative_entropy_gradient(*sides, parameters, KT, size).gradients).numpy()


def z_scores(samples: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return (samples.mean(0) - expected) / (samples.std(0, ddof=1) / math.sqrt(len(samples)))


def test_it_is_unbiased_with_few_samples_and_equals_the_quadrature():
    exact = exact_gradient(np.array(DEEP), np.array(SHALLOW))
    found = np.stack([estimate(drawn(DEEP, 20, seed), drawn(SHALLOW, 30, 10_000 + seed)) for seed in range(600)])
    assert np.abs(z_scores(found, exact)).max() < 4
    assert np.linalg.norm(found.mean(0) - exact) < 0.1 * np.linalg.norm(exact)


def test_it_vanishes_where_the_ensembles_are_equal():
    found = np.stack([estimate(drawn(SHALLOW, 20, seed), drawn(SHALLOW, 20, 10_000 + seed)) for seed in range(600)])
    assert np.abs(z_scores(found, np.zeros(3))).max() < 4


def test_reweighted_samples_give_the_gradient_at_other_parameters():
    parameters = (0.85, 1.08, 0.2)
    exact = exact_gradient(np.array(SHALLOW), np.array(parameters))
    found = []
    for seed in range(40):
        x = drawn(DEEP, 4000, seed)
        powers = torch.from_numpy(features(x.numpy()))
        before, now = (torch.tensor(values, dtype=torch.float64) @ powers for values in (DEEP, parameters))
        weights = boltzmann_weights(now, before, KT)
        found.append(estimate(drawn(SHALLOW, 4000, 10_000 + seed), x, parameters, weights))
    assert np.abs(z_scores(np.stack(found), exact)).max() < 4


def test_harmonic_wells_have_a_closed_form():
    """U = k x²/2: D = (ln(k_ref/k) + k/k_ref - 1) / 2, so that dD/dk = (1/k_ref - 1/k) / 2."""
    stiff, soft = 3.0, 2.0
    k = torch.tensor(soft, dtype=torch.float64, requires_grad=True)
    grid = torch.linspace(-6, 6, 40_001, dtype=torch.float64)

    def ensemble(stiffness: float) -> Ensemble:
        weights = torch.exp(-stiffness * grid.square() / (2 * KT))
        return Ensemble(lambda index: k * grid[index].square() / 2, weights)

    found = relative_entropy_gradient(ensemble(stiff), ensemble(soft), [k], KT, 10_000)
    assert float(found.gradients[0]) == pytest.approx((1 / stiff - 1 / soft) / 2, rel=1e-9)


def test_the_change_is_that_of_the_relative_entropy():
    """Between two sets of parameters, with the quadrature points as samples of both ensembles."""
    x = np.linspace(-4, 4, 40_001)
    near = (0.95, 1.05, 0.0)
    energy = {values: torch.from_numpy(np.dot(values, features(x))) for values in (SHALLOW, near)}
    reference, before = (torch.from_numpy(density(values, x)) for values in (DEEP, SHALLOW))

    def change(values) -> float:
        now = energy[values]
        return relative_entropy_change(now, now, energy[SHALLOW], KT, reference, before)

    exact = relative_entropy(np.array(DEEP), np.array(near)) - relative_entropy(np.array(DEEP), np.array(SHALLOW))
    assert change(near) - change(SHALLOW) == pytest.approx(exact, abs=1e-7)


def test_equal_ensembles_differ_by_nothing():
    energy = torch.linspace(-1, 1, 7, dtype=torch.float64)
    assert relative_entropy_change(energy, energy, energy, KT) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_minibatches_change_nothing_but_rounding(size):
    x, y = drawn(DEEP, 50, 1), drawn(SHALLOW, 31, 2)
    np.testing.assert_allclose(estimate(x, y, size=size), estimate(x, y), rtol=1e-12)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, math.nan]])
def test_invalid_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        estimate(drawn(DEEP, 2, 1), drawn(SHALLOW, 2, 2), weights=torch.tensor(weights))


def test_the_temperature_must_be_positive():
    k = torch.ones((), requires_grad=True)
    side = Ensemble(lambda index: k * index, torch.ones(2))
    with pytest.raises(ValueError, match="kT"):
        relative_entropy_gradient(side, side, [k], 0.0, 10)
