"""Gradients of dynamical averages by the adjoint are those of the closed forms."""

import math

import pytest
import torch
from analytic_potentials import system_of

from mdsim.dynamics.adjoint import force_sensitivities
from mdsim.dynamics.simulate import simulate
from mdsim.estimator.windows import WindowSettings, window_gradient
from mdsim.force_field import ForceField
from mdsim.integrators import LangevinBAOAB
from mdsim.observables import VACF
from mdsim.units import FS, PS, kT_eV

MASS, TEMPERATURE_K, STIFFNESS = 18.0, 300.0, 1.0  # a period of 267 fs


def matrix(integrator, k):
    """The step of (x, v) without noise, in a well of stiffness k."""
    dt = integrator.timestep_fs * FS
    identity = torch.eye(2, dtype=torch.float64)
    lower, upper = torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    lower[1, 0], upper[0, 1] = 1, 1
    kick, drift = identity - 0.5 * dt / MASS * k * lower, identity + 0.5 * dt * upper
    friction = torch.diag(torch.tensor([1, math.exp(-integrator.friction_per_ps / PS * dt)]).double())
    return kick @ drift @ friction @ drift @ kick


def exact(integrator, n_steps, kind):
    """Derivative in k, per component, of the average over linear BAOAB dynamics in a harmonic well.

    Starts are canonical at a stiffness that does not change.
    """
    dt, kT = integrator.timestep_fs * FS, kT_eV(TEMPERATURE_K)
    kept, identity = math.exp(-integrator.friction_per_ps / PS * dt), torch.eye(2, dtype=torch.float64)
    k = torch.tensor(STIFFNESS, dtype=torch.float64, requires_grad=True)
    step = matrix(integrator, k)
    push = torch.stack([0.5 * dt * torch.ones_like(k), 1 - 0.25 * dt**2 / MASS * k])
    push = push * math.sqrt((1 - kept**2) * kT / MASS)
    power, spread = identity, 0 * identity
    for _ in range(n_steps):
        power, spread = step @ power, step @ spread @ step.T + torch.outer(push, push)
    moved = power - identity
    start = torch.diag(torch.tensor([kT / STIFFNESS, kT / MASS]).double())
    value = power[1, 1] * kT / MASS if kind == "vacf" else (spread + moved @ start @ moved.T)[0, 0]
    return float(torch.autograd.grad(value, k)[0])


def test_harmonic_well():
    """<v(0) v(t)> and <(x(t) - x(0))²> over half a period and two, at low and high friction: within four errors."""
    system, n_windows, kT = system_of([8], [MASS]), 4000, kT_eV(TEMPERATURE_K)

    def potential(positions):
        return 0.5 * STIFFNESS * positions.square().sum((1, 2)), -STIFFNESS * positions

    for friction_per_ps, n_steps in ((1.0, 33), (1.0, 133), (20.0, 33), (20.0, 133)):
        integrator = LangevinBAOAB(4.0, TEMPERATURE_K, friction_per_ps)
        generator = torch.Generator().manual_seed(n_steps)
        x, v = torch.randn(2, n_windows, 1, 3, generator=generator, dtype=torch.float64)
        x, v = x * math.sqrt(kT / STIFFNESS), v * math.sqrt(kT / MASS)
        state = integrator.init(system, potential, x, v)
        _, path = simulate(system, potential, integrator, state, n_steps, 1, generator)
        positions = torch.cat([x[None], path.positions])
        by_positions, by_velocities = torch.zeros(2, *positions.shape).double()
        by_velocities[-1] = v / 3
        for kind in ("vacf", "msd"):
            if kind == "msd":
                by_velocities = torch.zeros_like(by_velocities)
                by_positions[-1] = 2 / 3 * (positions[-1] - x)
            vectors = force_sensitivities(system, potential, integrator, positions, by_positions, by_velocities)
            each = -(vectors * positions).sum((0, 2, 3))
            error = float(each.std()) / math.sqrt(n_windows)
            assert abs(float(each.mean()) - exact(integrator, n_steps, kind)) < 4 * error
            assert error < 0.25 * float(each.abs().mean())


class Well(ForceField):
    """One particle in a harmonic well."""

    def __init__(self):
        super().__init__(cutoff=1.0)
        self.stiffness = torch.nn.Parameter(torch.tensor(STIFFNESS, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        return 0.5 * self.stiffness * positions.square().sum(-1)


@pytest.mark.parametrize("friction_per_ps", [0.5, 20.0])
def test_windows_centered_at_canonical_states(friction_per_ps):
    """Mean and gradient of <v(-t/2) v(t/2)> within four errors of closed forms. The mean is that of the equilibrium.

    With the matrix M of half a window, the mean is M_vv² kT/m - M_vx² kT/k0, for centers at the stiffness k0.
    """
    half, n_windows, kT = 33, 2000, kT_eV(TEMPERATURE_K)
    integrator = LangevinBAOAB(2.0, TEMPERATURE_K, friction_per_ps)
    generator, system = torch.Generator().manual_seed(2), system_of([8], [MASS])
    x, v = torch.randn(2, n_windows, 1, 3, generator=generator, dtype=torch.float64)
    x, v = x * math.sqrt(kT / STIFFNESS), v * math.sqrt(kT / MASS)
    step = matrix(integrator, k := torch.tensor(STIFFNESS, dtype=torch.float64, requires_grad=True))
    power = torch.linalg.matrix_power(step, half)
    expected = power[1, 1].square() * kT / MASS - power[1, 0].square() * kT / STIFFNESS
    (slope,) = torch.autograd.grad(expected, k)
    equilibrium = float(torch.linalg.matrix_power(step, 2 * half)[1, 1].detach()) * kT / MASS
    assert abs(float(expected.detach()) / equilibrium - 1) < 0.01

    lag = VACF(2 * half * integrator.timestep_fs, normalized=False)
    settings = WindowSettings(2 * half, half, points_every=1, max_ratio=None)
    parts = [
        window_gradient(
            *(Well(), system, integrator, *some, [lag], lambda mean: mean[-1], settings, generator, 4096),
        )
        for some in zip(x.split(100), v.split(100), strict=True)
    ]
    for values, exact_value in (
        (torch.stack([part.mean[-1] for part in parts]), float(expected.detach())),
        (torch.stack([part.gradients[0] for part in parts]), float(slope)),
    ):
        error = float(values.std()) / math.sqrt(len(parts))
        assert abs(float(values.mean()) - exact_value) < 4 * error
        assert error < 0.15 * abs(exact_value)


def test_mobility_of_a_free_particle():
    """d<x(t)>/dE of a weak field is (t - (1 - e^(-γt))/γ)/(mγ), which Einstein's relation ties to the diffusivity."""
    system, integrator, n_steps = system_of([8], [MASS]), LangevinBAOAB(1.0, TEMPERATURE_K, 20.0), 200

    def free(positions):
        return 0 * positions.sum((1, 2)), 0 * positions

    positions = torch.zeros(n_steps + 1, 1, 1, 3, dtype=torch.float64)
    by_positions = torch.zeros_like(positions)
    by_positions[-1, ..., 0] = 1
    vectors = force_sensitivities(system, free, integrator, positions, by_positions, torch.zeros_like(positions))
    gamma, t = integrator.friction_per_ps / PS, n_steps * integrator.timestep_fs * FS
    expected = (t - (1 - math.exp(-gamma * t)) / gamma) / (MASS * gamma)
    assert abs(float(vectors[..., 0].sum()) / expected - 1) < 1e-4
