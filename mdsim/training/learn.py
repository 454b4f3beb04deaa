"""The gradient phase: rerun the parked stretches, compare observables with their references, step the parameters.

The gradient is that of  L(<g>) + w · L_QM : the Boltzmann estimator's for the observables, backpropagation's for the
energies and forces of the training set (Raja et al., arXiv 2402.13984, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mdsim.boltzmann import BoltzmannGradient, boltzmann_gradient
from mdsim.interfaces import ForceField, Observable
from mdsim.losses import EnergyForceLoss
from mdsim.sample_energies import structure_energies
from mdsim.schema import EstimatorConfig
from mdsim.state import System, Trajectory
from mdsim.training.stretch import Outcome
from mdsim.typing import Bool, Float, Tensor

Gradients = tuple[Tensor, ...]


@dataclass(frozen=True)
class Target:
    """One term of the observable loss: what is compared with which reference, how, and how much it counts."""

    observable: Observable
    reference: Float[Tensor, "bin"]
    loss: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0


@dataclass(frozen=True)
class QMData:
    """The labelled frames on the training device; energies (eV) are relative to the force field's shift."""

    positions: Float[Tensor, "frame atom 3"]
    energy: Float[Tensor, "frame"]
    forces: Float[Tensor, "frame atom 3"]
    loss: EnergyForceLoss


def usable(outcome: Outcome, settings: EstimatorConfig) -> Bool[Tensor, "frame replica"]:
    """Frames that the estimator learns from: finite ones, not too long after a break, of the replicas asked for."""
    trajectory, verdict = outcome.trajectory, outcome.verdict
    finite = torch.isfinite(trajectory.positions).all(-1).all(-1) & torch.isfinite(trajectory.energy)
    frame = torch.arange(trajectory.n_frames, device=finite.device)[:, None]
    if settings.frames_after_break is not None:
        finite &= frame < verdict.first_frame.to(finite.device) + settings.frames_after_break
    if settings.only_unstable:
        finite &= verdict.unstable.to(finite.device)
    return finite


def observable_gradient(
    force_field: ForceField,
    system: System,
    trajectory: Trajectory,
    mask: Bool[Tensor, "frame replica"],
    targets: Sequence[Target],
    kT: float,
    settings: EstimatorConfig,
    generator: torch.Generator,
) -> BoltzmannGradient:
    """Boltzmann estimate of the gradient of the weighted sum of observable losses, one pass for all of them.

    Args:
        force_field: whose parameters the gradient is for.
        system: the system that was simulated.
        trajectory: frames sampled with the current parameters.
        mask: which of them to use.
        targets: the terms of the loss.
        kT: thermal energy in eV.
        settings: of the estimator.
        generator: shuffles minibatches where the published estimator is asked for.
    """
    per_frame = [target.observable(system, trajectory)[mask] for target in targets]
    sizes = [values.shape[-1] for values in per_frame]

    def loss(mean: Tensor) -> Tensor:
        parts = zip(mean.split(sizes), targets, strict=True)
        return torch.stack([t.weight * t.loss(part, t.reference.to(part)) for part, t in parts]).sum()

    return boltzmann_gradient(
        structure_energies(force_field, system, trajectory.positions[mask]),
        force_field.parameters(),
        torch.cat(per_frame, dim=-1),
        loss,
        kT,
        minibatch_size=settings.minibatch_size,
        paper_estimator=settings.paper_estimator,
        generator=generator,
    )


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
        chosen = torch.randperm(len(chosen), generator=generator)[:n_frames]
    parameters = list(force_field.parameters())
    total, gradients = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
    for batch in chosen.to(data.positions.device).split(minibatch_size):
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
    observable: Gradients,
    qm: Gradients,
    qm_weight: float,
    clip_norm: float | None,
) -> float:
    """Step the parameters along the joint gradient; returns its norm before clipping."""
    for parameter, first, second in zip(force_field.parameters(), observable, qm, strict=True):
        parameter.grad = first + qm_weight * second
    norm = torch.nn.utils.clip_grad_norm_(
        force_field.parameters(), clip_norm if clip_norm is not None else float("inf"), error_if_nonfinite=True
    )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)
