"""Gradients of means of dynamical observables over short windows, by the adjoint of their trajectories.

    d<A>/dθ = < Σ_n λ_n · ∂F(x_n)/∂θ >,  λ_n = dA/dF_n  (`mdsim.dynamics.adjoint`)

for windows whose starts do not depend on θ. Of the sum over points of a window, one random point in each interval of
``points_every`` is evaluated, with the interval's length as its weight, which leaves the mean as it is.

The length of a window is limited by chaos: λ of single windows grows exponentially with the Lyapunov time, and a few of
them then determine the mean. `max_ratio` bounds the norm of each window by a multiple of the median.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mdsim import distributed
from mdsim.dynamics.adjoint import force_sensitivities
from mdsim.dynamics.simulate import simulate
from mdsim.estimator.boltzmann import ObservableLoss
from mdsim.estimator.force_gradient import force_gradient
from mdsim.estimator.parameter_gradient import Gradients
from mdsim.force_field import FAST_TOLERANCE, ForceField
from mdsim.interfaces import Integrator, Observable, Potential
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor

ADJOINT_EVALUATIONS = 2  # forces per step of the adjoint


@dataclass(frozen=True)
class WindowSettings:
    """Windows of dynamics from which a gradient is estimated.

    Attributes:
        n_steps: steps of a window.
        dump_every: steps between the frames of the observables. The start is the first frame.
        points_every: steps per point at which the forces are differentiated with respect to the parameters.
        max_ratio: largest norm of the sensitivities of a window, relative to the median. None: no limit.
        fast: allow the compiled path of the force field.
        fast_tolerance: its largest relative interpolation error.
    """

    n_steps: int
    dump_every: int = 1
    points_every: int = 8
    max_ratio: float | None = 10.0
    fast: bool = True
    fast_tolerance: float = FAST_TOLERANCE

    def __post_init__(self) -> None:
        if min(self.n_steps, self.dump_every, self.points_every) < 1 or self.n_steps % self.dump_every:
            raise ValueError(
                "n_steps, dump_every and points_every must be positive, and dump_every must divide n_steps; found "
                f"{self.n_steps}, {self.dump_every} and {self.points_every}"
            )


@dataclass(frozen=True)
class WindowGradient:
    """Gradient of a loss of means over windows, with the loss and the means."""

    loss: float
    mean: Float[Tensor, "bin"]
    gradients: Gradients
    n_evaluated: int  # structures, in dynamics, adjoint and gradient
    n_finite: int  # windows that were used
    largest_ratio: float  # largest norm of the sensitivities of a window, relative to the median, before its bound


@dataclass(frozen=True, eq=False)
class _Points:
    """The start and the states after every step."""

    positions: Float[Tensor, "point replica atom 3"]
    velocities: Float[Tensor, "point replica atom 3"]

    def frames(self, every: int, interval_fs: float) -> Trajectory:
        return Trajectory(self.positions[::every], self.velocities[::every], None, interval_fs)


def window_gradient(
    force_field: ForceField,
    system: System,
    integrator: Integrator,
    positions: Float[Tensor, "window atom 3"],
    velocities: Float[Tensor, "window atom 3"],
    observables: Sequence[Observable],
    loss: ObservableLoss,
    settings: WindowSettings,
    generator: torch.Generator,
    minibatch_size: int,
) -> WindowGradient | None:
    """Gradient of a loss of the mean dynamical observables of windows, or None if no window is finite.

    Args:
        force_field: with its current parameters.
        system: the system of the windows.
        integrator: `VelocityVerlet` or `LangevinBAOAB`.
        positions: starts, Å, which do not depend on the parameters.
        velocities: of the starts, ASE units.
        observables: dynamical observables of positions and velocities, differentiable.
        loss: of the concatenated means.
        settings: of the windows.
        generator: random numbers of the noise and of the points.
        minibatch_size: structures per backward pass.

    Raises:
        ValueError: the integrator has no adjoint, or an observable does not fit the windows.
    """
    potential = force_field.bind(system, fast=settings.fast, tolerance=settings.fast_tolerance)
    mine = distributed.share_of_equals(len(positions), positions.device)
    own = _run(system, potential, integrator, positions[mine], velocities[mine], settings, generator, mine)
    interval_fs = settings.dump_every * integrator.timestep_fs

    def values_of(points: _Points) -> Tensor:
        frames = points.frames(settings.dump_every, interval_fs)
        return torch.cat([observable(system, frames) for observable in observables], dim=-1)

    values = values_of(own)
    of_all = distributed.gathered(values, len(positions))
    finite = of_all.isfinite().all(-1)
    n_finite = int(finite.sum())
    if not n_finite:
        return None
    mean = of_all[finite].mean(0).requires_grad_()
    with torch.enable_grad():
        total = loss(mean)
        (by_mean,) = torch.autograd.grad(total, mean)
    by_points = _by_points(own, lambda points: (values_of(points) @ by_mean).sum() / n_finite)
    sensitivities = force_sensitivities(system, potential, integrator, own.positions, *by_points)
    norms = sensitivities.square().sum((0, 2, 3)).sqrt()
    norms = torch.where(finite, distributed.gathered(norms, len(positions)), torch.nan)
    factor, largest = _bounded(norms, settings.max_ratio)
    structures, vectors = _chosen(own.positions, sensitivities, factor, mine, settings.points_every, generator)
    gradients = force_gradient(force_field, system, structures, vectors, minibatch_size)
    evaluated = settings.n_steps * (1 + ADJOINT_EVALUATIONS) * len(positions) + 2 * len(structures)
    return WindowGradient(float(total.detach()), mean.detach(), gradients, evaluated, n_finite, largest)


def _run(
    system: System,
    potential: Potential,
    integrator: Integrator,
    positions: Tensor,
    velocities: Tensor,
    settings: WindowSettings,
    generator: torch.Generator,
    replicas: Int[Tensor, "replica"],
) -> _Points:
    state = integrator.init(system, potential, positions, velocities)
    _, path = simulate(system, potential, integrator, state, settings.n_steps, 1, generator, replicas)
    assert path.velocities is not None
    return _Points(torch.cat([positions[None], path.positions]), torch.cat([velocities[None], path.velocities]))


def _by_points(points: _Points, function: Callable[[_Points], Tensor]) -> tuple[Tensor, Tensor]:
    """Derivatives of a function of the points with respect to their positions and velocities."""
    positions, velocities = (tensor.detach().requires_grad_() for tensor in (points.positions, points.velocities))
    with torch.enable_grad():
        value = function(_Points(positions, velocities))
        found = torch.autograd.grad(value, [positions, velocities], allow_unused=True, materialize_grads=True)
    return found[0], found[1]


def _chosen(
    positions: Float[Tensor, "point replica atom 3"],
    sensitivities: Float[Tensor, "point replica atom 3"],
    factor: Float[Tensor, "window"],
    mine: Int[Tensor, "replica"],
    every: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "frame atom 3"], Float[Tensor, "frame atom 3"]]:
    """A random point per interval of each window, with its weighted sensitivities, from all ranks.

    Args:
        positions, sensitivities: of the windows of this rank.
        factor: on the sensitivities of all windows. Those with zero are left out.
        mine: numbers of the windows of this rank.
        every: points per interval. The last one may be shorter.
        generator: random numbers, the same for all ranks.
    """
    device = positions.device
    starts = torch.arange(0, len(positions), every, device=device)
    lengths = torch.clamp(len(positions) - starts, max=every)
    lots = torch.rand(len(factor), len(starts), generator=generator, device=generator.device).to(device)[mine]
    point, replica = (starts + (lots * lengths).long()).T, torch.arange(len(mine), device=device)
    vectors = sensitivities[point, replica] * (lengths[:, None] * factor[mine])[:, :, None, None].to(positions)
    chosen = (positions[point, replica], vectors)
    structures, vectors = (distributed.gathered(part, len(factor), dim=1)[:, factor > 0] for part in chosen)
    return structures.flatten(0, 1), vectors.flatten(0, 1)


def _bounded(norms: Float[Tensor, "window"], max_ratio: float | None) -> tuple[Float[Tensor, "window"], float]:
    """Factor on each window that bounds its norm, zero if it is not finite, and the largest norm over the median."""
    finite = norms.isfinite()
    if not finite.any():
        return torch.zeros_like(norms), float("inf")
    ratios = norms / norms[finite].median().clamp_min(torch.finfo(norms.dtype).tiny)
    largest = float(ratios[finite].max())
    bound = torch.ones_like(norms) if max_ratio is None else (max_ratio / ratios).clamp(max=1.0)
    return torch.where(finite, bound, 0), largest
