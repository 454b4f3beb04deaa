"""Exact stationary distributions of the discrete Langevin schemes in a harmonic well, without sampling.

A step is linear there, z' = A z + B ξ with z = (x, v), so that its stationary covariance solves S = A S Aᵀ + B Bᵀ.
A and B are read off the integrator itself.
"""

import math

import numpy as np
import pytest
import torch
from analytic_potentials import free, system_of, wells
from scipy.linalg import solve_discrete_lyapunov

from mdsim.integrators import LangevinBAOAB, PaperEuler
from mdsim.units import FS, PS, kT_eV

MASS, TEMPERATURE_K, STIFFNESS = 12.0, 300.0, 20.0
OMEGA = math.sqrt(STIFFNESS / MASS)


def one_step(integrator, x, v):
    """(x, v) after a step, and its noise."""
    system = system_of([6], [MASS])
    state = integrator.init(system, wells(STIFFNESS), *(torch.full((1, 1, 3), q, dtype=torch.float64) for q in (x, v)))
    xi = 0.7
    state = integrator.step(system, wells(STIFFNESS), state, torch.full((1, 1, 3), xi, dtype=torch.float64))
    return np.array([state.positions[0, 0, 0], state.velocities[0, 0, 0]]), xi


def stationary_covariance(integrator):
    noise_only, xi = one_step(integrator, 0.0, 0.0)
    A = np.stack([one_step(integrator, *unit)[0] - noise_only for unit in ((1.0, 0.0), (0.0, 1.0))], axis=1)
    B = noise_only[:, None] / xi
    return solve_discrete_lyapunov(A, B @ B.T)


@pytest.mark.parametrize("omega_dt", [0.1, 1.0, 1.9])
@pytest.mark.parametrize("friction_per_ps", [1.0, 50.0])
def test_baoab_positions_are_exact_in_a_harmonic_well(omega_dt, friction_per_ps):
    """⟨x²⟩ = kT/k at any stable time step, ⟨v²⟩ = (1 - ω²Δt²/4) kT/m (Leimkuhler, Matthews 2013)."""
    covariance = stationary_covariance(LangevinBAOAB(omega_dt / OMEGA / FS, TEMPERATURE_K, friction_per_ps))
    kT = kT_eV(TEMPERATURE_K)
    np.testing.assert_allclose(covariance[0, 0], kT / STIFFNESS, rtol=1e-9)
    np.testing.assert_allclose(covariance[1, 1], kT / MASS * (1 - omega_dt**2 / 4), rtol=1e-9)
    np.testing.assert_allclose(covariance[0, 1], 0, atol=1e-9 * kT)


def test_semi_implicit_euler_has_the_published_update():
    integrator = PaperEuler(0.7, TEMPERATURE_K, 30.0)
    x, v, dt, friction = 0.3, 0.04, 0.7 * FS, 30.0 / PS
    after, xi = one_step(integrator, x, v)
    noise = math.sqrt(2 * kT_eV(TEMPERATURE_K) * friction * dt / MASS) * xi
    expected_v = v + dt * (-STIFFNESS * x / MASS - friction * v) + noise
    np.testing.assert_allclose(after, [x + dt * expected_v, expected_v], rtol=1e-12)


def test_semi_implicit_euler_is_of_first_order_where_baoab_is_exact():
    """Halving the time step halves the error of ⟨x v⟩ and of the friction-limited ⟨v²⟩."""
    kT = kT_eV(TEMPERATURE_K)

    def errors(omega_dt):
        covariance = stationary_covariance(PaperEuler(omega_dt / OMEGA / FS, TEMPERATURE_K, 200.0))
        return np.array([covariance[0, 1] * OMEGA, covariance[1, 1] - kT / MASS])

    np.testing.assert_allclose(errors(0.01) / errors(0.005), 2, rtol=0.02)


def test_ornstein_uhlenbeck_velocities_are_exact_without_forces(generator):
    """Without forces one step must reproduce c = exp(-γΔt) and the variance of the exact solution, however long."""
    system, integrator = system_of([6], [MASS]), LangevinBAOAB(50.0, TEMPERATURE_K, 20.0)
    v0 = torch.full((20_000, 1, 3), 0.1, dtype=torch.float64)
    noise = torch.randn(v0.shape, dtype=v0.dtype, generator=generator)
    state = integrator.step(system, free, integrator.init(system, free, torch.zeros_like(v0), v0), noise)
    kept, variance = math.exp(-1), kT_eV(TEMPERATURE_K) / MASS * (1 - math.exp(-2))
    sample = state.velocities.flatten()
    assert abs(sample.mean() - 0.1 * kept) < 4 * math.sqrt(variance / len(sample))
    assert abs(sample.var() / variance - 1) < 4 * math.sqrt(2 / len(sample))
    torch.testing.assert_close(state.positions, 0.5 * 50.0 * FS * (v0 + state.velocities))
