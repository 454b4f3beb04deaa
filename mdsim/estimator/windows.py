"""Gradients of means of dynamical observables over short windows, by the adjoint of their trajectories.

    d<A>/dθ = < Σ_n λ_n · ∂F(x_n)/∂θ >,  λ_n = dA/dF_n  (`mdsim.dynamics.adjoint`)

for windows centered at structures that do not depend on θ. The second half of a window runs ahead from the center.
The first half is a run from the center with opposite velocities, read backwards: Newton's equations, and Langevin
dynamics at equilibrium, are the same in reverse time. λ then grows over half a window instead of a whole one, which
halves its exponent in a chaotic system, where it grows exponentially with the Lyapunov time.

Of the sum over the points of a half, one random point in each interval of ``points_every`` is evaluated, with the
length of the interval as its weight, which leaves the mean as it is. A few windows with the largest λ determine the
mean of long windows. `max_ratio` bounds the norm of each window by a multiple of the median.
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
        n_steps: steps of a window, half of them on each side of the center.
        dump_every: steps between the frames of the observables. The center is a frame.
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
        if min(self.n_steps, self.dump_every, self.points_every) < 1 or self.n_steps % (2 * self.dump_every):
            raise ValueError(
                "n_steps, dump_every and points_every must be positive, and dump_every must divide half of n_steps; "
                f"found {self.n_steps}, {self.dump_every} and {self.points_every}"
            )

    @property
    def n_frames(self) -> int:
        return self.n_steps // self.dump_every + 1


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
    """The center and the states after every step from it, of the halves ahead and then of the halves behind."""

    positions: Float[Tensor, "point half atom 3"]
    velocities: Float[Tensor, "point half atom 3"]

    def frames(self, every: int, interval_fs: float) -> Trajectory:
        """Whole windows, from the first frame to the last."""
        (ahead, behind), (velocities, against) = (
            tensor[::every].chunk(2, dim=1) for tensor in (self.positions, self.velocities)
        )
        positions = torch.cat([behind[1:].flip(0), ahead])
        return Trajectory(positions, torch.cat([-against[1:].flip(0), velocities]), None, interval_fs)


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
        positions: centers, Å, which do not depend on the parameters.
        velocities: of the centers, ASE units.
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
    own = _run(
        system, potential, integrator, positions[mine], velocities[mine], settings, generator, mine, len(positions)
    )
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
    norms = sensitivities.square().sum((0, 2, 3)).unflatten(0, (2, -1)).sum(0).sqrt()
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
    windows: Int[Tensor, "window"],
    n_windows: int,
) -> _Points:
    """Both halves of the windows with the given numbers, out of ``n_windows``."""
    x, v = torch.cat([positions, positions]), torch.cat([velocities, -velocities])
    state, halves = integrator.init(system, potential, x, v), torch.cat([windows, windows + n_windows])
    _, path = simulate(system, potential, integrator, state, settings.n_steps // 2, 1, generator, halves)
    assert path.velocities is not None
    return _Points(torch.cat([x[None], path.positions]), torch.cat([v[None], path.velocities]))


def _by_points(points: _Points, function: Callable[[_Points], Tensor]) -> tuple[Tensor, Tensor]:
    """Derivatives of a function of the points with respect to their positions and velocities."""
    positions, velocities = (tensor.detach().requires_grad_() for tensor in (points.positions, points.velocities))
    with torch.enable_grad():
        value = function(_Points(positions, velocities))
        found = torch.autograd.grad(value, [positions, velocities], allow_unused=True, materialize_grads=True)
    return found[0], found[1]


def _chosen(
    positions: Float[Tensor, "point half atom 3"],
    sensitivities: Float[Tensor, "point half atom 3"],
    factor: Float[Tensor, "all"],
    mine: Int[Tensor, "window"],
    every: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "frame atom 3"], Float[Tensor, "frame atom 3"]]:
    """A random point per interval of each half window, with its weighted sensitivities, from all ranks.

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
    lots = torch.rand(2, len(factor), len(starts), generator=generator, device=generator.device).to(device)
    point = (starts + (lots[:, mine].flatten(0, 1) * lengths).long()).T
    half, weights = torch.arange(2 * len(mine), device=device), factor[mine].repeat(2)
    vectors = sensitivities[point, half] * (lengths[:, None] * weights)[:, :, None, None].to(positions)
    by_window = (part.unflatten(1, (2, -1)) for part in (positions[point, half], vectors))
    structures, vectors = (distributed.gathered(part, len(factor), dim=2)[:, :, factor > 0] for part in by_window)
    return structures.flatten(0, 2), vectors.flatten(0, 2)


def _bounded(norms: Float[Tensor, "window"], max_ratio: float | None) -> tuple[Float[Tensor, "window"], float]:
    """Factor on each window that bounds its norm, zero if it is not finite, and the largest norm over the median."""
    finite = norms.isfinite()
    if not finite.any():
        return torch.zeros_like(norms), float("inf")
    ratios = norms / norms[finite].median().clamp_min(torch.finfo(norms.dtype).tiny)
    largest = float(ratios[finite].max())
    bound = torch.ones_like(norms) if max_ratio is None else (max_ratio / ratios).clamp(max=1.0)
    return torch.where(finite, bound, 0), largest
