"""Gradients of dynamical averages by three estimators, against closed forms.

    python benchmarks/learning/dynamical_toys.py

*Well*: particles in a harmonic well, d<v(0) v(t)>/dk and d<(x(t) - x(0))²>/dk, from canonical starts. BAOAB is linear
there, so that the averages of the discrete dynamics and their derivatives are powers of a matrix. *Field*: free
particles in a weak field E, d<x(t)>/dE. Every row: mean of the estimator over independent windows, its deviation from
the exact value in standard errors (z), and the windows that a signal-to-noise ratio of one needs, (standard deviation /
exact derivative)². The first line is the largest relative deviation of the score of single paths in a Lennard-Jones
well from finite differences of the probability of the noise that makes them.
"""

from __future__ import annotations

import math

import torch
from path_score import score_vectors

from mdsim.dynamics.adjoint import force_sensitivities, velocity_kept
from mdsim.dynamics.simulate import simulate
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.noise import noise_for
from mdsim.reporting.console import format_table
from mdsim.state import System
from mdsim.typing import Float, Tensor
from mdsim.units import FS, PS, kT_eV

MASS, TEMPERATURE_K, TIMESTEP_FS, STIFFNESS = 18.0, 300.0, 2.0, 1.0  # amu, K, fs, eV/Å²: a period of 267 fs
N_WINDOWS = 20000
LAGS = (16, 64, 256)
PARTICLE = System(
    torch.tensor([8]), torch.tensor([MASS]).double(), None, torch.zeros(0, 2, dtype=torch.long), torch.zeros(1).long()
)


def well(positions: Tensor) -> tuple[Tensor, Tensor]:
    return 0.5 * STIFFNESS * positions.square().sum((-2, -1)), -STIFFNESS * positions


def free(positions: Tensor) -> tuple[Tensor, Tensor]:
    return 0 * positions.sum((-2, -1)), 0 * positions


def exact_well(integrator: LangevinBAOAB, lag: int) -> dict[str, float]:
    """Derivatives in k, per component, of the discrete dynamics from canonical starts."""
    dt, kT = TIMESTEP_FS * FS, kT_eV(TEMPERATURE_K)
    kept = math.exp(-integrator.friction_per_ps / PS * dt)
    k = torch.tensor(STIFFNESS, dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros_like(k), torch.ones_like(k)

    def matrix(*rows: tuple[Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack(row) for row in rows])

    kick = matrix((one, zero), (-0.5 * dt / MASS * k, one))
    drift = matrix((one, 0.5 * dt * one), (zero, one))
    friction = matrix((one, zero), (zero, kept * one))
    step = kick @ drift @ friction @ drift @ kick
    push = kick @ drift @ torch.stack([zero, one]) * math.sqrt((1 - kept**2) * kT / MASS)
    power, spread = torch.eye(2).double(), torch.zeros(2, 2).double()
    for _ in range(lag):
        spread = step @ spread @ step.T + torch.outer(push, push)
        power = step @ power
    moved = power - torch.eye(2)
    values = {
        "vacf": power[1, 1] * kT / MASS,
        "msd": spread[0, 0] + moved[0, 0] ** 2 * kT / k + moved[0, 1] ** 2 * kT / MASS,
    }
    return {name: float(torch.autograd.grad(value, k, retain_graph=True)[0]) for name, value in values.items()}


class Windows:
    """Independent windows of one particle, as points of a trajectory with the noise of every step."""

    def __init__(self, potential, integrator: LangevinBAOAB, n_steps: int, seed: int, canonical: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape, kT = (N_WINDOWS, 1, 3), kT_eV(TEMPERATURE_K)
        x, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        x, v = x * (math.sqrt(kT / STIFFNESS) if canonical else 0.0), v * math.sqrt(kT / MASS)
        state = integrator.init(PARTICLE, potential, x, v)
        self.potential, self.integrator = potential, integrator
        again = torch.Generator().manual_seed(seed)
        _, frames = simulate(PARTICLE, potential, integrator, state, n_steps, 1, torch.Generator().manual_seed(seed))
        noise = noise_for(integrator, PARTICLE, again)
        self.noise = noise(torch.arange(N_WINDOWS), 0, n_steps, (1, 3), v)
        self.x, self.v = torch.cat([x[None], frames.positions]), torch.cat([v[None], frames.velocities])

    def adjoint(self, by_x: Tensor, by_v: Tensor) -> Tensor:
        return force_sensitivities(PARTICLE, self.potential, self.integrator, self.x, by_x, by_v)

    def score(self, reward: Float[Tensor, "replica"], by_v: Tensor) -> Tensor:
        rewards = (reward - reward.mean()).expand(len(self.noise), -1)[..., None]
        return score_vectors(PARTICLE, self.integrator, self.noise, rewards, by_v)


def lennard_jones_well(depth: Tensor, positions: Tensor) -> Tensor:
    """Forces of a particle that a Lennard-Jones center holds."""
    squared = positions.square().sum(-1, keepdim=True)
    sixth = (3.0**2 / squared) ** 3
    return 24 * depth * (2 * sixth**2 - sixth) / squared * positions


def largest_score_error(n_steps: int = 40, n_paths: int = 20) -> float:
    """Of the score and of the change of the velocities, from finite differences at fixed positions."""
    integrator, kT, dt = LangevinBAOAB(TIMESTEP_FS, TEMPERATURE_K, 5.0), kT_eV(TEMPERATURE_K), TIMESTEP_FS * FS
    depth, generator = torch.tensor(0.1).double(), torch.Generator().manual_seed(1)
    kept = velocity_kept(integrator)
    amplitude = math.sqrt((1 - kept**2) * kT / MASS)

    def potential(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sum((1, 2)), lennard_jones_well(depth, x)

    x = torch.tensor([3.4, 0.0, 0.0]).double().expand(n_paths, 1, 3)
    v = math.sqrt(kT / MASS) * torch.randn(n_paths, 1, 3, generator=generator, dtype=torch.float64)
    key = generator.get_state()
    _, path = simulate(
        PARTICLE, potential, integrator, integrator.init(PARTICLE, potential, x, v), n_steps, 1, generator
    )
    generator.set_state(key)
    noise = noise_for(integrator, PARTICLE, generator)(torch.arange(n_paths), 0, n_steps, (1, 3), v)
    points = torch.cat([x[None], path.positions])
    weights = torch.randn(points.shape, generator=generator, dtype=torch.float64)

    def of_depth(depth: Tensor) -> Float[Tensor, "path"]:
        """log p of the noise that these positions need, plus a weighted sum of the velocities."""
        forces, total = lennard_jones_well(depth, points), torch.zeros(n_paths).double()
        before = v + 0.5 * dt / MASS * forces[0]
        for step in range(n_steps):
            after = 2 * (points[step + 1] - points[step]) / dt - before
            total = total - 0.5 * ((after - kept * before) / amplitude).square().sum((1, 2))
            velocity = after + 0.5 * dt / MASS * forces[step + 1]
            total = total + (weights[step + 1] * velocity).sum((1, 2))
            before = velocity + 0.5 * dt / MASS * forces[step + 1]
        return total

    expected = (of_depth(depth + 1e-5) - of_depth(depth - 1e-5)) / 2e-5
    vectors = score_vectors(PARTICLE, integrator, noise, torch.ones(n_steps, n_paths, 1).double(), weights)
    found = (vectors * lennard_jones_well(torch.ones(()).double(), points)).sum((0, 2, 3))
    return float(((found - expected) / expected).abs().max())


def measured(name: str, values: Tensor, exact: float) -> list[str]:
    mean, error = float(values.mean()), float(values.std() / math.sqrt(len(values)))
    needed = (float(values.std()) / exact) ** 2
    without_noise = error < 1e-9 * abs(exact)
    z = f"{mean / exact - 1:+.0e} (relative)" if without_noise else f"{(mean - exact) / error:+.1f}"
    return [name, f"{mean:.4g}", f"{exact:.4g}", z, "1" if without_noise else f"{needed:.3g}"]


def well_rows(friction_per_ps: float) -> list[list[str]]:
    integrator, rows = LangevinBAOAB(TIMESTEP_FS, TEMPERATURE_K, friction_per_ps), []
    kT = kT_eV(TEMPERATURE_K)
    for lag in LAGS:
        windows, exact = Windows(well, integrator, lag, lag, canonical=True), exact_well(integrator, lag)
        zero = torch.zeros_like(windows.x)
        for kind in ("vacf", "msd"):
            by_x, by_v = zero.clone(), zero.clone()
            if kind == "vacf":
                value = (windows.v[0] * windows.v[-1]).mean((1, 2))
                by_v[-1] = windows.v[0] / 3
            else:
                value = (windows.x[-1] - windows.x[0]).square().mean((1, 2))
                by_x[-1] = 2 / 3 * (windows.x[-1] - windows.x[0])
            start = -(value - value.mean()) * 0.5 * windows.x[0].square().sum((1, 2)) / kT
            by_k = -windows.x
            for name, vectors in (("adjoint", windows.adjoint(by_x, by_v)), ("score", windows.score(value, by_v))):
                row = measured(name, (vectors * by_k).sum((0, 2, 3)) + start, exact[kind])
                rows.append([f"{kind}, {friction_per_ps:g}/ps", f"{lag * TIMESTEP_FS:g}", *row])
    return rows


def field_rows(friction_per_ps: float) -> list[list[str]]:
    integrator, rows = LangevinBAOAB(TIMESTEP_FS, TEMPERATURE_K, friction_per_ps), []
    gamma = friction_per_ps / PS
    for lag in LAGS:
        windows = Windows(free, integrator, lag, lag, canonical=False)
        zero = torch.zeros_like(windows.x)
        by_x = zero.clone()
        by_x[-1, :, :, 0] = 1
        t = lag * TIMESTEP_FS * FS
        exact = (t - (1 - math.exp(-gamma * t)) / gamma) / (MASS * gamma)  # of the continuous dynamics
        along = zero.clone()
        along[..., 0] = 1
        for name, vectors in (
            ("adjoint", windows.adjoint(by_x, zero)),
            ("score", windows.score(windows.x[-1, :, 0, 0], zero)),
        ):
            row = measured(name, (vectors * along).sum((0, 2, 3)), exact)
            rows.append([f"field, {friction_per_ps:g}/ps", f"{lag * TIMESTEP_FS:g}", *row])
    return rows


def main() -> None:
    print(f"score of paths against finite differences: {largest_score_error():.1e}")
    rows = [row for friction in (1.0, 20.0) for row in well_rows(friction) + field_rows(friction)]
    print(format_table(["average", "window (fs)", "estimator", "mean", "exact", "z", "windows for S/N 1"], rows))


if __name__ == "__main__":
    main()
