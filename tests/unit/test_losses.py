"""Losses against independent programs and closed forms."""

import numpy as np
import pytest
import scipy.stats
import torch

from mdsim.losses import (
    energy_force_errors,
    energy_force_loss,
    forward_kl,
    huber,
    l2_mean_absolute_error,
    mean_absolute_error,
    mean_squared_error,
    reverse_kl,
    sum_squared_error,
    wasserstein_1,
)


@pytest.fixture
def densities(generator) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.rand(2, 40, generator=generator, dtype=torch.float64).unbind())


def test_squared_errors():
    mean, reference = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 0.0, 1.0])
    assert float(mean_squared_error(mean, reference)) == pytest.approx(20 / 3)
    assert float(sum_squared_error(mean, reference)) == pytest.approx(20)
    weights = torch.tensor([3.0, 2.0, 1.0])
    assert float(mean_squared_error(mean, reference, weights)) == pytest.approx(24 / 6)


def test_wasserstein_against_scipy(densities):
    grid = np.arange(40) * 0.05 + 0.3
    expected = scipy.stats.wasserstein_distance(grid, grid, densities[0].numpy(), densities[1].numpy())
    assert float(wasserstein_1(*densities, spacing=0.05)) == pytest.approx(expected, rel=1e-12)


def test_wasserstein_of_a_shift_is_the_shift():
    density = torch.zeros(100, dtype=torch.float64)
    density[10:20] = 3.0
    assert float(wasserstein_1(density, density.roll(25), spacing=0.1)) == pytest.approx(2.5)


def test_kullback_leibler_divergences_against_scipy(densities):
    mean, reference = densities
    forward = scipy.stats.entropy(reference.numpy(), mean.numpy())
    reverse = scipy.stats.entropy(mean.numpy(), reference.numpy())
    assert float(forward_kl(mean, reference, floor=0.0)) == pytest.approx(forward, rel=1e-12)
    assert float(reverse_kl(mean, reference, floor=0.0)) == pytest.approx(reverse, rel=1e-12)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
def test_divergences_with_empty_bins_are_finite_and_zero_only_at_equality(divergence):
    density = torch.zeros(20, dtype=torch.float64)
    density[3:6] = 1.0
    assert float(divergence(density, density)) == pytest.approx(0, abs=1e-15)
    assert 1 < float(divergence(density, density.roll(8))) < 20


def test_reverse_divergence_weighs_what_the_reference_never_shows():
    reference = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    mean = torch.tensor([0.01, 0.52, 0.47], dtype=torch.float64, requires_grad=True)
    slope = {}
    for loss in (sum_squared_error, reverse_kl):
        (gradient,) = torch.autograd.grad(loss(mean, reference), mean)
        slope[loss] = float((gradient[0] - gradient[1]) / (gradient[1] - gradient[2]).abs())
    assert slope[sum_squared_error] < 1 < 10 < slope[reverse_kl]


@pytest.mark.parametrize("loss", [lambda a, b: wasserstein_1(a, b, 0.1), forward_kl, reverse_kl, mean_squared_error])
def test_observable_losses_are_differentiable(loss, densities):
    mean = densities[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, densities[1]), mean)


@pytest.mark.parametrize("bad", [torch.zeros(4), torch.tensor([1.0, -0.5, 1.0, 1.0]), torch.full((4,), torch.nan)])
def test_what_is_no_density_is_refused(bad):
    with pytest.raises(ValueError, match="must be a density"):
        wasserstein_1(bad, torch.ones(4), 0.1)


def test_residual_losses():
    target = torch.zeros(2, 3)
    prediction = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(l2_mean_absolute_error(prediction, target)) == pytest.approx(3.0)
    assert float(mean_absolute_error(prediction, target)) == pytest.approx(8 / 6)
    assert float(huber(torch.tensor([0.1, 3.0]), torch.zeros(2), delta=1.0)) == pytest.approx((0.005 + 2.5) / 2)


def test_perfect_forces_have_a_finite_gradient():
    forces = torch.zeros(2, 5, 3, requires_grad=True)
    l2_mean_absolute_error(forces, torch.zeros(2, 5, 3)).backward()
    assert (forces.grad == 0).all()


def test_l2_error_does_not_depend_on_the_axes(generator):
    prediction, target = torch.randn(2, 7, 5, 3, generator=generator, dtype=torch.float64).unbind()
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    rotated = l2_mean_absolute_error(prediction @ rotation, target @ rotation)
    torch.testing.assert_close(rotated, l2_mean_absolute_error(prediction, target))


def test_energy_force_loss_weighs_its_parts():
    energy, forces = torch.tensor([1.0, 2.0]), torch.zeros(2, 4, 3)
    loss = energy_force_loss(
        energy,
        forces,
        torch.zeros(2),
        forces + 2.0,
        energy_weight=0.05,
        force_weight=0.95,
        energy_loss=mean_absolute_error,
    )
    assert float(loss) == pytest.approx(0.05 * 1.5 + 0.95 * 4.0)


def test_energies_can_count_per_atom():
    energy, forces = torch.tensor([8.0, 16.0]), torch.zeros(2, 4, 3)
    loss = energy_force_loss(
        energy, forces, torch.zeros(2), forces + 2.0, energy_weight=1.0, force_weight=1000.0, energy_per_atom=True
    )
    assert float(loss) == pytest.approx((2.0**2 + 4.0**2) / 2 + 1000 * 4.0)


def test_errors_carry_their_units():
    energy = torch.tensor([0.003, -0.001])
    forces = torch.zeros(2, 4, 3)
    forces[0, 0, 0] = 0.024
    errors = energy_force_errors(energy, forces, torch.zeros(2), torch.zeros(2, 4, 3))
    assert errors == pytest.approx(
        {
            "energy_mae_meV": 2.0,
            "energy_rmse_meV": 5**0.5,
            "energy_mae_meV_per_atom": 0.5,
            "energy_rmse_meV_per_atom": 5**0.5 / 4,
            "force_mae_meV_per_A": 1.0,
            "force_rmse_meV_per_A": 24 / 24**0.5,
        }
    )
