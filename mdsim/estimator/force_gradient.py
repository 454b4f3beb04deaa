"""Parameter gradients of weighted sums of forces, Σ λ_n · ∂F_n/∂θ, as differences of energy gradients.

With F = -∂U/∂x, a sum over frames becomes one over pairs of displaced structures,

    λ · ∂F(x)/∂θ = -∂/∂θ [U(x + ελ) - U(x - ελ)] / 2ε + O(ε²),

so that one backward pass per minibatch serves, without second derivatives and with any force field. The step ε is
`mdsim.dynamics.adjoint.difference_step`.
"""

from __future__ import annotations

import torch

from mdsim.dynamics.adjoint import difference_step
from mdsim.estimator.parameter_gradient import Gradients, energy_gradient
from mdsim.estimator.sample_energies import structure_energies
from mdsim.force_field import ForceField
from mdsim.state import System
from mdsim.typing import Float, Tensor


def force_gradient(
    force_field: ForceField,
    system: System,
    positions: Float[Tensor, "frame atom 3"],
    vectors: Float[Tensor, "frame atom 3"],
    minibatch_size: int,
) -> Gradients:
    """Σ λ_n · ∂F_n/∂θ over frames, for the trainable parameters.

    Args:
        force_field: with its current parameters.
        system: the system of the frames.
        positions: Å.
        vectors: λ of each frame, per eV/Å.
        minibatch_size: structures whose graph is held in memory at once.
    """
    step = difference_step(vectors)
    move = step[:, None, None] * vectors
    displaced = torch.stack([positions + move, positions - move], dim=1).flatten(0, 1)
    coefficients = torch.stack([-0.5 / step, 0.5 / step], dim=1).flatten()
    energies = structure_energies(force_field, system, displaced)
    return energy_gradient(energies, force_field.trainable_parameters, coefficients, minibatch_size).gradients
