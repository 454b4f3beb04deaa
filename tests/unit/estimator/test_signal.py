"""Signal-to-noise ratio of gradients."""

import math

import pytest
import torch
from reruns import KT, Strains, samples_of, toy_trajectory
from tiny import Springs

from mdsim import losses
from mdsim.estimator.boltzmann import boltzmann_gradient
from mdsim.estimator.signal import jackknife, signal_to_noise
from mdsim.training.terms import ObservableTerm, Target


def _of(feature: torch.Tensor, parameters: torch.Tensor, observable: torch.Tensor):
    """The gradient of <g> for energies that are linear in the parameters, by the samples that are kept."""

    def gradient(kept: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return boltzmann_gradient(
            lambda index: feature[kept[index]] @ parameters,
            [parameters],
            observable[kept],
            lambda mean: mean.sum(),
            KT,
            minibatch_size=400,
        ).gradients

    return gradient


def test_the_error_of_a_linear_loss_is_the_standard_error_of_a_covariance():
    """One sample per block: the jackknife error of a covariance is that of the mean of centered products, closely."""
    generator = torch.Generator().manual_seed(5)
    g = torch.randn(400, 1, generator=generator, dtype=torch.float64)
    feature = 0.5 * g + torch.randn(400, 1, generator=generator, dtype=torch.float64)
    slope = torch.ones(1, dtype=torch.float64, requires_grad=True)
    found = jackknife(_of(feature, slope, g), torch.arange(400))
    products = (g - g.mean()) * (feature - feature.mean()) / KT
    assert found.norm == pytest.approx(abs(float(products.sum())) / 399, rel=1e-3)
    assert found.standard_error == pytest.approx(float(products.std()) / math.sqrt(400), rel=0.02)
    assert found.ratio == pytest.approx(found.norm / found.standard_error)


def test_signal_is_told_from_noise():
    generator = torch.Generator().manual_seed(6)
    noise = torch.randn(500, 30, generator=generator, dtype=torch.float64)
    parameters = torch.zeros(30, dtype=torch.float64, requires_grad=True)
    unrelated = torch.randn(500, 1, generator=generator, dtype=torch.float64)

    def ratio(observable: torch.Tensor) -> float:
        return jackknife(_of(noise, parameters, observable), torch.arange(500) // 50).ratio

    assert 0.6 < ratio(unrelated) < 1.5
    assert ratio(noise[:, :1] + 0.1 * unrelated) > 3


def test_the_ratio_grows_with_the_number_of_independent_reruns():
    target = Target(Strains(), torch.tensor([0.5, 0.5, 0.5]).double(), losses.mean_squared_error)
    term, ratios = ObservableTerm([target]), []
    for n_replicas in (16, 256):
        samples = samples_of(toy_trajectory(2, n_replicas, seed=3))
        assert samples.replica.bincount().tolist() == [2] * n_replicas
        ratios.append(signal_to_noise(term, Springs(), samples).ratio)
    assert 2 < ratios[1] / ratios[0] < 8, "16 times the samples should be about 4 times the signal"


def test_one_block_says_nothing_about_noise():
    with pytest.raises(ValueError, match="at least two blocks of samples, found 1"):
        jackknife(lambda kept: (torch.ones(1),), torch.zeros(5, dtype=torch.long))
