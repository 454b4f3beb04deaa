"""The gradient phase: rerun the parked stretches, compare observables with their references, step the parameters.

The gradient is that of  L(<g>) + w · L_QM : the Boltzmann estimator's for the observables, backpropagation's for the
energies and forces of the training set (Raja et al., arXiv 2402.13984, algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mdsim.config.schema import EstimatorConfig, LearningConfig
from mdsim.estimator.boltzmann import BoltzmannGradient, boltzmann_gradient, gradient_signal_to_noise
from mdsim.estimator.samples import Samples, Target, fitting_structures
from mdsim.force_field import ForceField
from mdsim.losses import EnergyForceLoss
from mdsim.memory import bytes_for, pieces_at_once
from mdsim.state import System
from mdsim.typing import Float, Tensor

SIGNAL_BLOCKS = 8  # of reruns, for the jackknife of the gradient's error

Gradients = tuple[Tensor, ...]


@dataclass(frozen=True)
class QMData:
    """The labelled frames on the training device; energies (eV) are relative to the force field's shift."""

    positions: Float[Tensor, "frame atom 3"]
    energy: Float[Tensor, "frame"]
    forces: Float[Tensor, "frame atom 3"]
    loss: EnergyForceLoss


def total_loss(targets: Sequence[Target]) -> Callable[[Tensor], Tensor]:
    """The weighted sum of the targets' losses, of their mean observables side by side."""
    sizes = [len(target.reference) for target in targets]

    def loss(mean: Tensor) -> Tensor:
        parts = zip(mean.split(sizes), targets, strict=True)
        return torch.stack([t.weight * t.loss(part, t.reference.to(part)) for part, t in parts]).sum()

    return loss


def observable_gradient(
    force_field: ForceField,
    system: System,
    samples: Samples,
    targets: Sequence[Target],
    kT: float,
    settings: EstimatorConfig,
    generator: torch.Generator,
    weights: Float[Tensor, "sample"] | None = None,
) -> BoltzmannGradient:
    """Boltzmann estimate of the gradient of the weighted sum of observable losses, one pass for all of them.

    Args:
        force_field: whose parameters the gradient is for.
        system: the system that was simulated.
        samples: of one rerun; their importance is taken into account.
        targets: the terms of the loss.
        kT: thermal energy in eV.
        settings: of the estimator.
        generator: shuffles minibatches where the published estimator is asked for.
        weights: further weights of the samples, where the parameters have moved since they were drawn.
    """
    return boltzmann_gradient(
        samples.energies(force_field, system),
        force_field.parameters(),
        samples.observable,
        total_loss(targets),
        kT,
        minibatch_size=_minibatch_size(force_field, system, samples, settings),
        weights=_product(weights, samples.weights),
        paper_estimator=settings.paper_estimator,
        generator=generator,
    )


def signal_to_noise(
    force_field: ForceField,
    system: System,
    samples: Samples,
    targets: Sequence[Target],
    kT: float,
    settings: EstimatorConfig,
) -> float:
    """Norm of the observable's gradient over its standard error; blocks of reruns are left out in turn."""
    signal = gradient_signal_to_noise(
        samples.energies(force_field, system),
        force_field.parameters(),
        samples.observable,
        total_loss(targets),
        kT,
        samples.replica % SIGNAL_BLOCKS,
        minibatch_size=_minibatch_size(force_field, system, samples, settings),
        weights=samples.weights,
    )
    return signal.ratio


def _minibatch_size(force_field: ForceField, system: System, samples: Samples, settings: EstimatorConfig) -> int:
    """Samples of a minibatch: as many as asked for that fit into memory. The published estimator depends on it."""
    wanted = settings.minibatch_size
    if not settings.paper_estimator:
        wanted = fitting_structures(force_field, system, samples.positions, wanted)
    return samples.minibatch_size(wanted)


def _product(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The product of weights, of which either may be absent."""
    if first is None or second is None:
        return second if first is None else first
    return first * second


def qm_gradient(
    force_field: ForceField,
    system: System,
    data: QMData,
    minibatch_size: int,
    generator: torch.Generator,
    n_frames: int | None = None,
) -> tuple[float, Gradients]:
    """Loss and gradient of the energy/force fit over the training set, or over ``n_frames`` drawn from it."""
    chosen = torch.arange(len(data.positions))
    if n_frames is not None and n_frames < len(chosen):
        chosen = torch.randperm(len(chosen), generator=generator, device=generator.device)[:n_frames]
    parameters = list(force_field.parameters())
    total, gradients = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
    bytes_each = bytes_for(lambda: force_field(system, data.positions[:1], create_graph=True))
    at_once = pieces_at_once(bytes_each, minibatch_size, data.positions.device, "labelled frames of a minibatch")
    for batch in chosen.to(data.positions.device).split(at_once):
        energy, forces = force_field(system, data.positions[batch], create_graph=True)
        loss = data.loss(energy, forces, data.energy[batch], data.forces[batch]) * (len(batch) / len(chosen))
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [old if new is None else old + new for old, new in zip(gradients, parts, strict=True)]
        total += float(loss.detach())
    return total, tuple(gradients)


@dataclass(frozen=True)
class Comparison:
    """How the observable's and the QM gradient relate; logged every step."""

    observable_norm: float
    qm_norm: float
    cosine: float

    @property
    def ratio(self) -> float:
        return self.observable_norm / max(self.qm_norm, 1e-30)


def compare(observable: Gradients, qm: Gradients) -> Comparison:
    """Norms and cosine of two gradients."""
    first, second = (torch.cat([g.reshape(-1).double() for g in gradient]) for gradient in (observable, qm))
    norms = float(first.norm()), float(second.norm())
    return Comparison(*norms, float(first @ second) / max(norms[0] * norms[1], 1e-30))


def apply_gradient(
    force_field: ForceField,
    optimizer: torch.optim.Optimizer,
    observable: Gradients | None,
    qm: Gradients,
    settings: LearningConfig,
) -> float:
    """Step the parameters along the joint gradient; returns its norm before clipping.

    Args:
        force_field: stepped in place.
        optimizer: of its parameters.
        observable: the observable loss's gradient; None leaves it out.
        qm: the energy/force loss's gradient.
        settings: the QM weight, the largest ratio of the two, and the norm at which the sum is clipped.
    """
    joint = [settings.energy_force_loss_weight * gradient for gradient in qm]
    if observable is not None:
        scale = observable_scale(observable, qm, settings)
        joint = [first + scale * second for first, second in zip(joint, observable, strict=True)]
    for parameter, gradient in zip(force_field.parameters(), joint, strict=True):
        parameter.grad = gradient
    limit = float("inf") if settings.clip_norm is None else settings.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(force_field.parameters(), limit, error_if_nonfinite=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)


def observable_scale(observable: Gradients, qm: Gradients, settings: LearningConfig) -> float:
    """Factor that keeps the observable's gradient within bounds relative to the weighted QM gradient.

    The estimator's norm spans orders of magnitude within one learning phase. Where a few broken frames dominate it, it
    would drown the QM gradient, and an adaptive optimizer would remember such a spike for hundreds of steps. Where few
    reruns still break, it would be drowned itself, although their message is as clear.
    """
    smallest, largest = settings.min_gradient_ratio or 0.0, settings.max_gradient_ratio or math.inf
    unbounded = smallest == 0 and largest == math.inf
    if unbounded or settings.energy_force_loss_weight == 0:
        return 1.0
    ratio = compare(observable, qm).ratio / settings.energy_force_loss_weight
    return min(max(ratio, smallest), largest) / ratio if ratio > 0 else 1.0


def randomize_step(before: Sequence[Tensor], force_field: ForceField, generator: torch.Generator) -> None:
    """Replace the step taken since ``before`` by one in a random direction, of equal length in every tensor.

    The control that tells what a step achieves from what any disturbance of that size does.
    """
    with torch.no_grad():
        for old, parameter in zip(before, force_field.parameters(), strict=True):
            direction = torch.randn(old.shape, generator=generator, device=generator.device).to(old)
            length = (parameter - old).norm()
            parameter.copy_(old + direction * (length / direction.norm().clamp(min=1e-30)))
