"""Boltzmann estimator: gradients of ensemble averages with respect to force-field parameters, from samples alone.

For the canonical ensemble, d<g>/dθ = <∂g/∂θ> - Cov(g, ∂U/∂θ) / kT. The observable does not depend on θ, so only the
covariance remains. A loss L(<g>) needs its product with λ = ∂L/∂<g>, which is the gradient of a weighted sum of
energies. This takes one backward pass per minibatch, no matrix of samples × parameters, and no differentiation through
the dynamics.

Sources: Raja et al., "Stability-aware training of machine learning force fields with differentiable Boltzmann
estimators", TMLR 2025, arXiv 2402.13984 (global and local estimators); Thaler & Zavadlav, Nature Communications 12,
6884 (2021) (reweighting).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from mdsim.estimator.parameter_gradient import Gradients, energy_gradient
from mdsim.estimator.sample_energies import SampleEnergies
from mdsim.typing import Float, Int, Tensor

#: Maps the mean of the observable to a scalar.
ObservableLoss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class BoltzmannGradient:
    """Gradient of a loss of an ensemble average, with the loss and the average."""

    loss: Float[Tensor, ""]
    mean: Float[Tensor, "bin"]
    gradients: Gradients
    n_samples: int
    effective_sample_size: float


@dataclass(frozen=True)
class ReweightedMean:
    """An ensemble average reweighted to other parameters, with the effective number of samples."""

    mean: Float[Tensor, "bin"]
    weights: Float[Tensor, "sample"]
    effective_sample_size: float


def boltzmann_gradient(
    energy: SampleEnergies,
    parameters: Iterable[Tensor],
    observable: Float[Tensor, "sample bin"],
    loss: ObservableLoss,
    kT: float,
    *,
    minibatch_size: int,
    weights: Float[Tensor, "sample"] | None = None,
    paper_estimator: bool = False,
    generator: torch.Generator | None = None,
) -> BoltzmannGradient:
    """Gradient of ``loss(<g>)`` over canonical samples: -Cov(g·λ, ∂U/∂θ) / kT with λ = ∂loss/∂<g>.

    The covariance is that of all samples, with n-1 in the denominator (with weights: 1 - Σw²). The size of the
    minibatches only bounds the memory.

    Args:
        energy: energies of the samples. See `mdsim.estimator.sample_energies` for the global and the local estimator.
        parameters: parameters of the energy. One gradient is returned per parameter.
        observable: g of each sample.
        loss: scalar function of the mean observable.
        kT: thermal energy of the ensemble that was sampled, eV.
        minibatch_size: samples whose energies are held in memory at once.
        weights: importance of each sample, for samples of another ensemble. Normalized here.
        paper_estimator: reproduce the scaling of the published code. Minibatches are shuffled, each with its own mean,
            λ and biased covariance, and averaged with equal weights, without the factor 1/kT. The gradient then depends
            on ``minibatch_size``.
        generator: random numbers for the shuffling of ``paper_estimator``.

    Returns:
        Loss and mean of all samples, gradients, number of samples and Kish's effective number of samples.

    Raises:
        ValueError: fewer than two samples, non-finite numbers, invalid weights or inconsistent options.

    Source: arXiv 2402.13984, the N-sample global and local Boltzmann estimators.
    """
    parameters = tuple(parameters)
    observable = observable.detach()
    _check(observable, kT, minibatch_size)
    if paper_estimator:
        if weights is not None or generator is None:
            raise ValueError("paper_estimator takes no weights and needs a generator to shuffle the samples")
        order, coefficients = _paper_coefficients(observable, loss, minibatch_size, generator)
        probabilities = _probabilities(None, observable)
    else:
        probabilities = _probabilities(weights, observable)
        unbiased = 1 - probabilities.square().sum()
        order = torch.arange(len(observable), device=observable.device)
        coefficients = _coefficients(observable, probabilities, loss) / (kT * unbiased)
    mean = probabilities @ observable
    return BoltzmannGradient(
        loss=loss(mean).detach(),
        mean=mean,
        gradients=energy_gradient(energy, parameters, coefficients, minibatch_size, order).gradients,
        n_samples=len(observable),
        effective_sample_size=effective_sample_size(probabilities),
    )


def _coefficients(
    observable: Float[Tensor, "sample bin"], probabilities: Float[Tensor, "sample"], loss: ObservableLoss
) -> Float[Tensor, "sample"]:
    """The coefficients c in Σ c_i ∂U_i/∂θ = -Cov(g·λ, ∂U/∂θ). They sum to zero, which also centers the energies."""
    mean = (probabilities @ observable).detach().requires_grad_()
    with torch.enable_grad():
        (sensitivity,) = torch.autograd.grad(loss(mean), mean)
    if not torch.isfinite(sensitivity).all():
        raise ValueError(f"the derivative of the loss is not finite at the mean observable {mean.tolist()}")
    return -probabilities * ((observable - mean.detach()) @ sensitivity)


def _paper_coefficients(
    observable: Float[Tensor, "sample bin"], loss: ObservableLoss, minibatch_size: int, generator: torch.Generator
) -> tuple[Int[Tensor, "sample"], Float[Tensor, "sample"]]:
    """A random order, and the coefficients of the samples in that order."""
    order = torch.randperm(len(observable), generator=generator, device=generator.device).to(observable.device)
    minibatches = observable[order].split(minibatch_size)
    coefficients = [_coefficients(batch, _probabilities(None, batch), loss) for batch in minibatches]
    return order, torch.cat(coefficients) / len(minibatches)


def _probabilities(weights: Float[Tensor, "sample"] | None, observable: Tensor) -> Float[Tensor, "sample"]:
    """Weights that sum to one, of more than a single sample."""
    if weights is None:
        return observable.new_full((len(observable),), 1 / len(observable))
    shares = normalized(weights).to(observable)
    if effective_sample_size(shares) < 1.001:  # 1 - Σw² would be dominated by rounding
        raise ValueError("a single sample carries all the weight, so these samples cannot represent the ensemble")
    return shares


def normalized(weights: Float[Tensor, "sample"]) -> Float[Tensor, "sample"]:
    """Weights that sum to one.

    Raises:
        ValueError: there are none, or they are invalid.
    """
    if not bool(torch.isfinite(weights).all() & (weights >= 0).all() & weights.any()):  # at once: the host waits
        raise ValueError("weights must be finite, not negative, and not all zero")
    return (weights / weights.sum()).detach()


def _check(observable: Float[Tensor, "sample bin"], kT: float, minibatch_size: int) -> None:
    if kT <= 0 or minibatch_size < 1:
        raise ValueError(f"kT and minibatch_size must be positive, found {kT} and {minibatch_size}")
    _check_observable(observable)


def _check_observable(observable: Float[Tensor, "sample bin"]) -> None:
    if len(observable) < 2:
        raise ValueError(f"a covariance needs at least two samples, found {len(observable)}")
    finite = torch.isfinite(observable).all(-1)
    if not finite.all():
        raise ValueError(
            f"the observable is not finite in {int((~finite).sum())} of {len(finite)} samples: exclude them first"
        )


def effective_sample_size(weights: Float[Tensor, "sample"]) -> float:
    """Kish's effective number of samples, (Σw)² / Σw²."""
    return float(weights.sum().square() / weights.square().sum())


def boltzmann_weights(
    energy_new: Float[Tensor, "sample"], energy_old: Float[Tensor, "sample"], kT: float
) -> Float[Tensor, "sample"]:
    """Weights ∝ exp(-(U_new - U_old) / kT) that sum to one. Energies and kT in eV.

    Raises:
        ValueError: an energy is not finite.
    """
    change = energy_new - energy_old.detach()
    if not torch.isfinite(change).all():
        raise ValueError("the energies of some samples are not finite: exclude these samples first")
    return torch.softmax(-change / kT, dim=0)


def reweighted_mean(
    observable: Float[Tensor, "sample bin"],
    energy_new: Float[Tensor, "sample"],
    energy_old: Float[Tensor, "sample"],
    kT: float,
) -> ReweightedMean:
    """Average at new parameters from samples at old ones, differentiable with respect to the new parameters.

    Args:
        observable: g of each sample.
        energy_new: energies at the new parameters, eV, with a graph to them.
        energy_old: energies at the parameters that generated the samples, eV.
        kT: thermal energy, eV.

    Source: Thaler & Zavadlav (2021): weights ∝ exp(-(U_new - U_old) / kT). Their effective number of samples is the
    exponential of an entropy. The one used here is Kish's, which is never larger.
    """
    _check_observable(observable)
    weights = boltzmann_weights(energy_new, energy_old, kT)
    return ReweightedMean(weights @ observable, weights, effective_sample_size(weights.detach()))
