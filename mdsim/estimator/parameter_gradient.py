"""Parameter gradients of weighted sums of energies, Σ c_i ∂U_i/∂θ, with one backward pass per minibatch."""

from __future__ import annotations

from typing import NamedTuple

import torch

from mdsim import distributed
from mdsim.estimator.sample_energies import SampleEnergies
from mdsim.typing import Float, Int, Tensor

#: One tensor per parameter, of its shape.
Gradients = tuple[Tensor, ...]


class EnergyGradient(NamedTuple):
    """The gradient of a weighted sum of energies, and these energies (eV) in the order of evaluation."""

    gradients: Gradients
    energies: Float[Tensor, "sample"]


def energy_gradient(
    energy: SampleEnergies,
    parameters: tuple[Tensor, ...],
    coefficients: Float[Tensor, "sample"],
    minibatch_size: int,
    order: Int[Tensor, "sample"] | None = None,
) -> EnergyGradient:
    """Gradient of the weighted sum of energies, Σ c_i ∂U_i/∂θ, accumulated over minibatches and summed over ranks.

    Args:
        energy: energies of the samples in eV, with a graph to the parameters.
        parameters: the parameters.
        coefficients: c of each sample, in the order of evaluation.
        minibatch_size: samples whose graph is held in memory at once.
        order: index of the sample of each coefficient. Default: the given order.

    Raises:
        ValueError: energies of the wrong shape, without a graph, or not finite.
    """
    if order is None:
        order = torch.arange(len(coefficients), device=coefficients.device)
    total, mine = tuple(torch.zeros_like(parameter) for parameter in parameters), distributed.share(len(coefficients))
    values = total[0].new_zeros(len(coefficients))
    for part in torch.arange(mine.start, mine.stop, device=order.device).split(minibatch_size):
        if not len(part):
            break
        index, coefficient = order[part], coefficients[part]
        with torch.enable_grad():
            energies = energy(index)
        _check(energies, index)
        gradients = torch.autograd.grad(
            energies, parameters, coefficient.to(energies), allow_unused=True, materialize_grads=True
        )
        for accumulated, gradient in zip(total, gradients, strict=True):
            accumulated += gradient
        values[part] = energies.detach().to(values)  # programs have a precision of their own
    *sums, values = distributed.summed([*total, values])
    return EnergyGradient(tuple(sums), values)


def _check(energies: Tensor, index: Int[Tensor, "sample"]) -> None:
    if energies.shape != index.shape:
        raise ValueError(f"{len(index)} samples need as many energies, found the shape {tuple(energies.shape)}")
    if not energies.requires_grad:
        raise ValueError("the energies do not depend on the parameters: are they frozen or detached?")
    if not torch.isfinite(energies).all():
        raise ValueError(f"samples {index[~torch.isfinite(energies)].tolist()} have no finite energy: exclude them")


def norm(gradients: Gradients) -> Tensor:
    """Euclidean norm over all parameters, in double precision."""
    return flat(gradients).norm()


def flat(gradients: Gradients) -> Float[Tensor, "parameter"]:
    """All gradients as one vector in double precision."""
    return torch.cat([gradient.reshape(-1).double() for gradient in gradients])
