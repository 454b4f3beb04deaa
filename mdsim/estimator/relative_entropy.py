"""Gradient of the relative entropy between a reference ensemble and that of the force field, from samples of both.

D(ref || θ) = ∫ p_ref ln(p_ref / p_θ) with p_θ ∝ exp(-U_θ/kT) has the gradient (<∂U/∂θ>_ref - <∂U/∂θ>_θ) / kT. It lowers
the energies of structures that the reference contains and raises those that the force field visits instead. Structures
of the reference are enough: it needs neither labels nor observables. Maximum-likelihood fits of energy-based models
(contrastive divergence) use the same gradient.

Sources: Shell, J. Chem. Phys. 129, 144108 (2008) (relative entropy of molecular models); Hinton, Neural Computation 14,
1771 (2002) (contrastive divergence).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from mdsim.estimator.boltzmann import normalized
from mdsim.estimator.parameter_gradient import Gradients, energy_gradient
from mdsim.estimator.sample_energies import SampleEnergies
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class Ensemble:
    """Samples of an ensemble: their energies (eV) by index, and the weight of each."""

    energies: SampleEnergies
    weights: Float[Tensor, "sample"]


@dataclass(frozen=True)
class RelativeEntropyGradient:
    """The gradient, and the current energies (eV) of all samples."""

    gradients: Gradients
    reference_energies: Float[Tensor, "reference"]
    simulated_energies: Float[Tensor, "simulated"]


def relative_entropy_gradient(
    reference: Ensemble, simulated: Ensemble, parameters: Iterable[Tensor], kT: float, minibatch_size: int
) -> RelativeEntropyGradient:
    """(<∂U/∂θ>_reference - <∂U/∂θ>_simulated) / kT, with one backward pass per minibatch.

    Args:
        reference: samples of the reference ensemble.
        simulated: samples of the canonical ensemble of the force field, reweighted to the current parameters.
        parameters: parameters of the energy. One gradient is returned per parameter.
        kT: thermal energy of both ensembles, eV.
        minibatch_size: samples whose graph is held in memory at once.

    Raises:
        ValueError: kT is not positive, an ensemble is empty, or weights or energies are invalid.
    """
    if kT <= 0:
        raise ValueError(f"kT must be positive, found {kT}")
    parameters = tuple(parameters)
    lowered = energy_gradient(reference.energies, parameters, normalized(reference.weights) / kT, minibatch_size)
    raised = energy_gradient(simulated.energies, parameters, -normalized(simulated.weights) / kT, minibatch_size)
    gradients = tuple(down + up for down, up in zip(lowered.gradients, raised.gradients, strict=True))
    return RelativeEntropyGradient(gradients, lowered.energies, raised.energies)


def relative_entropy_change(
    reference: Float[Tensor, "reference"],
    simulated: Float[Tensor, "simulated"],
    simulated_before: Float[Tensor, "simulated"],
    kT: float,
    reference_weights: Float[Tensor, "reference"] | None = None,
    simulated_weights: Float[Tensor, "simulated"] | None = None,
) -> float:
    """The relative entropy up to a constant that does not depend on the current parameters.

    (<U>_ref - <U_before>_before) / kT + ln <exp(-(U - U_before) / kT)>_before. Without a change of parameters it is the
    difference between the mean energies of the two ensembles in units of kT, which vanishes if the ensembles are equal.

    Args:
        reference: current energies of the reference samples, eV.
        simulated: current energies of the simulated samples, eV.
        simulated_before: their energies at the parameters that generated them, eV.
        kT: thermal energy, eV.
        reference_weights: weights of the reference samples. None: equal.
        simulated_weights: weights of the simulated samples at the parameters that generated them. None: equal.
    """
    reference, simulated, before = reference.double(), simulated.double(), simulated_before.double()
    log_weights = _log_probabilities(simulated, simulated_weights)
    gap = _log_probabilities(reference, reference_weights).exp() @ reference - log_weights.exp() @ before
    return float(gap / kT + torch.logsumexp(log_weights - (simulated - before) / kT, dim=0))


def _log_probabilities(
    energies: Float[Tensor, "sample"], weights: Float[Tensor, "sample"] | None
) -> Float[Tensor, "sample"]:
    return torch.log_softmax(torch.zeros_like(energies) if weights is None else weights.to(energies).log(), dim=0)
