"""A custom loss term: the mean energy of the simulated ensemble is held near a value."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.estimator.boltzmann import boltzmann_gradient
from mdsim.estimator.loss_term import TermGradient
from mdsim.estimator.parameter_gradient import energy_gradient
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField


@dataclass(frozen=True)
class MeanEnergy:
    """The loss ((<U> - target) / tolerance)² of the mean energy <U>.

    Here the quantity itself depends on the parameters, so its gradient has two parts:
    d<U>/dθ = <∂U/∂θ> - Cov(U, ∂U/∂θ) / kT. The first is the kernel with equal coefficients, the second the Boltzmann
    estimator.

    Args:
        target_eV: from the zero of the force field.
        tolerance_eV: deviation with a loss of one.
    """

    target_eV: float
    tolerance_eV: float
    name: str = "mean_energy"
    uses_samples: bool = True

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """Gradient of the loss. None with fewer than two samples."""
        if len(samples) < 2:
            return None
        energies, parameters = samples.energies(force_field), force_field.trainable_parameters
        size = samples.minibatch_size(force_field)
        current = samples.current_energies(force_field)
        covariance = boltzmann_gradient(
            energies, parameters, current[:, None], self._loss, samples.kT, minibatch_size=size, weights=samples.weights
        )
        weights = torch.ones_like(current) if samples.weights is None else samples.weights
        slope = 2 * (covariance.mean[0] - self.target_eV) / self.tolerance_eV**2
        direct = energy_gradient(energies, parameters, slope * weights / weights.sum(), size).gradients
        total = tuple(first + second for first, second in zip(covariance.gradients, direct, strict=True))
        mean = {"mean_energy_eV": float(covariance.mean[0])}
        return TermGradient(total, float(covariance.loss), mean, n_evaluated=3 * len(samples.positions))

    def _loss(self, mean: torch.Tensor) -> torch.Tensor:
        return ((mean - self.target_eV) / self.tolerance_eV).square().sum()
