"""The Boltzmann estimator against exact derivatives of canonical averages."""

import math

import numpy as np
import pytest
import scipy.integrate
import torch

from mdsim.estimator.boltzmann import boltzmann_gradient, reweighted_mean
from mdsim.estimator.sample_energies import local_energies

KT = 0.3
WELL = (0.8, 1.1, 0.25)  # U = a x⁴ - b x² + c x: two unequal wells, both populated at kT
DIRECTION = torch.tensor([0.7, -1.3, 0.4], dtype=torch.float64)  # λ: a loss that is linear in the mean


def parameters_of(values) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values)


def well_features(x):
    """Derivatives of the energy of the double well with respect to a, b and c."""
    return np.stack([x**4, -(x**2), x])


def well_observable(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, x**2, (x > 0).double()], dim=-1)


def well_average(function) -> float:
    def integrate(f):
        def weight(x):
            return np.exp(-np.dot(WELL, well_features(x)) / KT)

        left = scipy.integrate.quad(lambda x: f(x) * weight(x), -4, 0, epsabs=1e-12)[0]
        return left + scipy.integrate.quad(lambda x: f(x) * weight(x), 0, 4, epsabs=1e-12)[0]

    return integrate(function) / integrate(lambda x: 1.0)


def projected_observable(x: float) -> float:
    return float(np.dot(DIRECTION.numpy(), [x, x**2, x > 0]))


def exact_gradient() -> np.ndarray:
    """Derivative of λ·<g> by quadrature of the average at shifted parameters, not from a covariance."""
    shift, gradient = 1e-4, []
    x = np.linspace(-4, 4, 400_001)  # zero is a node, so that the step of the third observable lies between two
    g = DIRECTION.numpy() @ np.stack([x, x**2, np.heaviside(x, 0.5)])
    for i in range(3):
        averages = []
        for sign in (1, -1):
            shifted = np.array(WELL)
            shifted[i] += sign * shift
            weight = np.exp(-(shifted @ well_features(x)) / KT)
            averages.append((weight * g).sum() / weight.sum())
        gradient.append((averages[0] - averages[1]) / (2 * shift))
    return np.array(gradient)


def well_samples(n: int, kT: float, seed: int) -> torch.Tensor:
    """Independent samples by inversion of the cumulative distribution on a fine grid."""
    x = np.linspace(-4, 4, 200_001)
    density = np.exp(-(np.array(WELL) @ well_features(x)) / kT)
    cumulative = scipy.integrate.cumulative_simpson(density, x=x, initial=0)
    uniform = np.random.default_rng(seed).random(n)
    return torch.from_numpy(np.interp(uniform, cumulative / cumulative[-1], x))


def well_gradient(x: torch.Tensor, **options) -> np.ndarray:
    features = torch.from_numpy(well_features(x.numpy()))
    parameters = parameters_of(WELL)
    found = boltzmann_gradient(
        lambda index: torch.stack(parameters) @ features[:, index],
        parameters,
        well_observable(x),
        lambda mean: DIRECTION @ mean,
        KT,
        minibatch_size=5000,
        **options,
    )
    return np.array([float(gradient) for gradient in found.gradients])


def standard_errors(x: torch.Tensor, weights: np.ndarray | None = None) -> np.ndarray:
    """Of the covariance estimate, from the scatter of the centered products."""
    weights = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    g = (well_observable(x) @ DIRECTION).numpy()
    features = well_features(x.numpy())
    products = (g - weights @ g) * (features - (features @ weights)[:, None]) / KT
    return np.sqrt((weights**2 * (products - (products @ weights)[:, None]) ** 2).sum(1))


def test_harmonic_well():
    """d<x²>/dk = -kT/k² for U = k x²/2."""
    stiffness, n = 2.5, 100_000
    x = torch.from_numpy(np.random.default_rng(0).normal(0, math.sqrt(KT / stiffness), n))
    (k,) = parameters_of([stiffness])
    found = boltzmann_gradient(
        lambda index: 0.5 * k * x[index] ** 2, [k], x[:, None] ** 2, lambda mean: mean.sum(), KT, minibatch_size=20_000
    )
    products = (x**2 - found.mean) * 0.5 * (x**2 - found.mean) / KT
    z = (float(found.gradients[0]) + KT / stiffness**2) / float(products.std() / math.sqrt(n))
    assert abs(z) < 4


def test_harmonic_well_with_a_nonlinear_loss():
    """d(<x²> - r)²/dk = -2 (<x²> - r) kT/k²; the error of λ adds to that of the covariance."""
    stiffness, reference, n = 2.5, 0.05, 200_000
    x = torch.from_numpy(np.random.default_rng(1).normal(0, math.sqrt(KT / stiffness), n))
    (k,) = parameters_of([stiffness])
    found = boltzmann_gradient(
        lambda index: 0.5 * k * x[index] ** 2,
        [k],
        x[:, None] ** 2,
        lambda mean: (mean - reference).square().sum(),
        KT,
        minibatch_size=50_000,
    )
    exact = -2 * (KT / stiffness - reference) * KT / stiffness**2
    assert float(found.gradients[0]) == pytest.approx(exact, rel=4 * math.sqrt(14 / n) + 4 * 3 * math.sqrt(2 / n))


def test_asymmetric_double_well():
    x = well_samples(200_000, KT, seed=2)
    z = (well_gradient(x) - exact_gradient()) / standard_errors(x)
    assert np.abs(z).max() < 4
    assert abs(well_average(projected_observable) - float((well_observable(x) @ DIRECTION).mean())) < 0.02


def test_the_double_well_would_show_a_wrong_factor():
    """The published scaling leaves out 1/kT: many standard errors off here."""
    x = well_samples(200_000, KT, seed=2)
    published = well_gradient(x, paper_estimator=True, generator=torch.Generator().manual_seed(0))
    assert np.abs((published - exact_gradient()) / standard_errors(x)).min() > 20
    np.testing.assert_allclose(published / KT, well_gradient(x), rtol=0.02)


def test_importance_weights_bring_another_temperature_home():
    hot = 1.6 * KT
    x = well_samples(200_000, hot, seed=3)
    energy = np.array(WELL) @ well_features(x.numpy())
    weights = np.exp(-energy * (1 / KT - 1 / hot))
    found = well_gradient(x, weights=torch.from_numpy(weights))
    z = (found - exact_gradient()) / standard_errors(x, weights)
    assert np.abs(z).max() < 4
    unweighted = (well_gradient(x) - exact_gradient()) / standard_errors(x)
    assert np.abs(unweighted).max() > 20


def test_small_samples_are_unbiased():
    """n-1 in the denominator: the mean over many tiny samples is the exact gradient, which n would miss."""
    n, n_repeats = 3, 900
    x = well_samples(n * n_repeats, KT, seed=4).reshape(n_repeats, n)
    gradients = np.stack([well_gradient(sample) for sample in x])
    error = gradients.std(0, ddof=1) / math.sqrt(n_repeats)
    assert np.abs((gradients.mean(0) - exact_gradient()) / error).max() < 4
    biased = (n - 1) / n * gradients.mean(0)
    assert np.abs((biased - exact_gradient()) / ((n - 1) / n * error)).max() > 5


def test_reweighting_has_the_same_gradient():
    """At equal parameters the derivative of the reweighted mean is the covariance with n in the denominator."""
    n = 500
    x = well_samples(n, KT, seed=5)
    features = torch.from_numpy(well_features(x.numpy()))
    parameters = parameters_of(WELL)
    new = torch.stack(parameters) @ features
    found = reweighted_mean(well_observable(x), new, new.detach(), KT)
    gradients = torch.autograd.grad(DIRECTION @ found.mean, parameters)
    expected = well_gradient(x) * (n - 1) / n
    np.testing.assert_allclose([float(gradient) for gradient in gradients], expected, rtol=1e-10)
    assert found.effective_sample_size == pytest.approx(n)


def test_reweighting_predicts_the_average_at_other_parameters():
    x = well_samples(200_000, 1.6 * KT, seed=6)
    energy = torch.from_numpy(np.array(WELL) @ well_features(x.numpy()))
    # exp(-U/kT) at a higher temperature is the same distribution as that of a weaker potential at kT.
    found = reweighted_mean(well_observable(x), energy, energy / 1.6, KT)
    g = well_observable(x) @ DIRECTION
    mean = float(found.weights @ g)
    error = float((found.weights * (g - mean)).square().sum().sqrt())
    assert abs(mean - well_average(projected_observable)) < 4 * error
    assert 1000 < found.effective_sample_size < 200_000


def test_local_estimator_of_independent_atoms_is_exact_and_less_noisy():
    """U = Σ k x²/2 over atoms: each atom is a neighborhood. The global estimator sees the noise of all the others."""
    stiffness, n_frames, n_atoms = 2.5, 2000, 30
    x = torch.from_numpy(np.random.default_rng(7).normal(0, math.sqrt(KT / stiffness), (n_frames, n_atoms)))
    (k,) = parameters_of([stiffness])

    def loss(mean):
        return mean.sum()

    frame, atom = torch.arange(n_frames).repeat_interleave(n_atoms), torch.arange(n_atoms).repeat(n_frames)
    membership = torch.nn.functional.one_hot(atom).bool()
    local = boltzmann_gradient(
        lambda index: local_energies(0.5 * k * x[frame[index]] ** 2, membership[index]),
        [k],
        x.reshape(-1, 1) ** 2,
        loss,
        KT,
        minibatch_size=9000,
    )
    total = boltzmann_gradient(
        lambda index: (0.5 * k * x[index] ** 2).sum(-1),
        [k],
        (x**2).mean(-1, keepdim=True),
        loss,
        KT,
        minibatch_size=500,
    )
    exact = -KT / stiffness**2
    # Relative errors of covariances of chi-squared variables: Var[(x²-1)²] = 56; and √2 per frame for the mean.
    local_error = abs(exact) * math.sqrt(14 / (n_frames * n_atoms))
    total_error = abs(exact) * math.sqrt((2 + 12 / n_atoms) / n_frames)
    assert abs(float(local.gradients[0]) - exact) < 4 * local_error
    assert abs(float(total.gradients[0]) - exact) < 4 * total_error
    assert local_error < 0.55 * total_error
