"""The estimators compared with explicit sums over samples, and their errors."""

import math

import pytest
import torch

from mdsim.estimator.boltzmann import (
    boltzmann_gradient,
    effective_sample_size,
    reweighted_mean,
)

KT = 0.7
N_SAMPLES, N_FEATURES, N_BINS = 23, 5, 4


class Problem:
    """A small nonlinear energy, with the covariance written out sample by sample."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(N_SAMPLES, N_FEATURES, generator=generator, dtype=torch.float64)
        self.observable = torch.randn(N_SAMPLES, N_BINS, generator=generator, dtype=torch.float64) + 3.0
        self.reference = torch.randn(N_BINS, generator=generator, dtype=torch.float64)
        self.matrix = torch.randn(3, N_FEATURES, generator=generator, dtype=torch.float64, requires_grad=True)
        self.vector = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
        self.parameters = (self.matrix, self.vector)
        self.batch_sizes: list[int] = []

    def energy(self, index: torch.Tensor) -> torch.Tensor:
        self.batch_sizes.append(len(index))
        return torch.tanh(self.features[index] @ self.matrix.T) @ self.vector

    def loss(self, mean: torch.Tensor) -> torch.Tensor:
        return (mean - self.reference).square().sum()

    def energy_gradients(self) -> torch.Tensor:
        rows = []
        for i in range(N_SAMPLES):
            gradients = torch.autograd.grad(self.energy(torch.tensor([i])).sum(), self.parameters)
            rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        return torch.stack(rows)

    def sensitivity(self, mean: torch.Tensor) -> torch.Tensor:
        return 2 * (mean - self.reference)


def flat(gradients: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


@pytest.mark.parametrize("minibatch_size", [1, 5, N_SAMPLES, 1000])
def test_equals_the_explicit_covariance(minibatch_size):
    problem = Problem()
    rows = torch.cat([problem.observable, problem.energy_gradients()], dim=1)
    covariance = torch.cov(rows.T)[:N_BINS, N_BINS:]  # n-1 in the denominator
    mean = problem.observable.mean(0)
    expected = -(problem.sensitivity(mean) @ covariance) / KT

    problem.batch_sizes.clear()
    found = boltzmann_gradient(
        problem.energy, problem.parameters, problem.observable, problem.loss, KT, minibatch_size=minibatch_size
    )
    torch.testing.assert_close(flat(found.gradients), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.loss, problem.loss(mean).detach())
    assert [gradient.shape for gradient in found.gradients] == [parameter.shape for parameter in problem.parameters]
    assert max(problem.batch_sizes) <= minibatch_size
    assert sum(problem.batch_sizes) == found.n_samples == N_SAMPLES
    assert found.effective_sample_size == pytest.approx(N_SAMPLES)


def test_whole_weights_equal_repeated_samples_up_to_the_denominator():
    """A sample of weight two counts like two samples in the biased covariance."""
    problem = Problem()
    repeats = torch.ones(N_SAMPLES, dtype=torch.long)
    repeats[::3] = 2
    twice = torch.repeat_interleave(torch.arange(N_SAMPLES), repeats)
    gradients = problem.energy_gradients()[twice]
    observable = problem.observable[twice]
    biased = (observable - observable.mean(0)).T @ gradients / len(twice)
    weights = repeats.double() / repeats.sum()
    expected = -(problem.sensitivity(observable.mean(0)) @ biased) / KT / (1 - weights.square().sum())

    found = boltzmann_gradient(
        problem.energy,
        problem.parameters,
        problem.observable,
        problem.loss,
        KT,
        minibatch_size=4,
        weights=repeats.double(),
    )
    torch.testing.assert_close(flat(found.gradients), expected, rtol=1e-10, atol=1e-12)
    assert found.effective_sample_size == pytest.approx(1 / float(weights.square().sum()))


def test_equal_weights_change_nothing():
    problem = Problem()
    arguments = (problem.energy, problem.parameters, problem.observable, problem.loss, KT)
    plain = boltzmann_gradient(*arguments, minibatch_size=8)
    weighted = boltzmann_gradient(*arguments, minibatch_size=8, weights=torch.full((N_SAMPLES,), 17.0).double())
    torch.testing.assert_close(flat(weighted.gradients), flat(plain.gradients), rtol=1e-12, atol=1e-13)


def test_paper_estimator_averages_biased_covariances_of_shuffled_minibatches():
    problem = Problem()
    gradients, size = problem.energy_gradients(), 5
    order = torch.randperm(N_SAMPLES, generator=torch.Generator().manual_seed(3))
    terms = []
    for start in range(0, N_SAMPLES, size):
        chosen = order[start : start + size]
        g, dU = problem.observable[chosen], gradients[chosen]
        jacobian = g.mean(0)[:, None] * dU.mean(0) - (g[:, :, None] * dU[:, None]).mean(0)
        terms.append(problem.sensitivity(g.mean(0)) @ jacobian)
    found = boltzmann_gradient(
        problem.energy,
        problem.parameters,
        problem.observable,
        problem.loss,
        KT,
        minibatch_size=size,
        paper_estimator=True,
        generator=torch.Generator().manual_seed(3),
    )
    torch.testing.assert_close(flat(found.gradients), torch.stack(terms).mean(0), rtol=1e-10, atol=1e-12)


def test_unused_parameters_get_zero_gradients():
    problem = Problem()
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
    found = boltzmann_gradient(
        problem.energy, (*problem.parameters, unused), problem.observable, problem.loss, KT, minibatch_size=8
    )
    assert found.gradients[-1].tolist() == [0.0, 0.0]


def test_constant_energy_offset_has_no_gradient():
    """Coefficients sum to zero, so the mean of ∂U/∂θ drops out without being computed."""
    problem = Problem()
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    found = boltzmann_gradient(
        lambda index: problem.energy(index) + offset,
        [offset],
        problem.observable,
        problem.loss,
        KT,
        minibatch_size=8,
    )
    assert abs(float(found.gradients[0])) < 1e-12


def test_reweighted_mean_of_equal_energies_is_the_mean():
    observable = torch.arange(12.0).reshape(6, 2)
    energy = torch.linspace(-1e4, 1e4, 6)  # only differences may enter
    found = reweighted_mean(observable, energy, energy, KT)
    torch.testing.assert_close(found.mean, observable.mean(0))
    assert found.effective_sample_size == pytest.approx(6)


def test_reweighted_mean_equals_the_ratio_of_boltzmann_factors():
    problem = Problem()
    with torch.no_grad():
        old = problem.energy(torch.arange(N_SAMPLES))
    new = 1.3 * old
    factors = torch.exp(-(new - old) / KT)
    found = reweighted_mean(problem.observable, new, old, KT)
    torch.testing.assert_close(found.mean, (factors @ problem.observable) / factors.sum())
    assert found.effective_sample_size == pytest.approx(effective_sample_size(factors))
    assert found.effective_sample_size < N_SAMPLES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observable": torch.ones(1, 2)}, "at least two samples"),
        ({"observable": torch.tensor([[1.0], [math.nan], [2.0]])}, "not finite in 1 of 3 samples"),
        ({"energy": lambda index: index.double()}, "do not depend"),
        ({"kT": 0.0}, "must be positive"),
        ({"minibatch_size": 0}, "must be positive"),
        ({"weights": torch.tensor([1.0, 1e-12, 0.0])}, "a single sample carries all the weight"),
        ({"weights": torch.zeros(3)}, "not all zero"),
        ({"weights": torch.tensor([1.0, -1.0, 1.0])}, "not negative"),
        ({"paper_estimator": True}, "needs a generator"),
        ({"loss": lambda mean: mean.sum() * torch.inf}, "derivative of the loss is not finite"),
    ],
)
def test_refusals(change, message):
    slope = torch.ones((), requires_grad=True)
    arguments = {
        "energy": lambda index: slope * index,
        "parameters": [slope],
        "observable": torch.tensor([[1.0], [3.0], [2.0]]),
        "loss": lambda mean: mean.sum(),
        "kT": KT,
        "minibatch_size": 2,
    }
    with pytest.raises(ValueError, match=message):
        boltzmann_gradient(**(arguments | change))


def test_non_finite_energies_are_named():
    slope = torch.ones((), requires_grad=True)
    energies = torch.tensor([0.0, 1.0, math.nan, 3.0])
    with pytest.raises(ValueError, match=r"samples \[2\]"):
        boltzmann_gradient(
            lambda index: slope * energies[index],
            [slope],
            torch.rand(4, 1),
            lambda mean: mean.sum(),
            KT,
            minibatch_size=4,
        )
