"""Replicas of one batch, each at its own temperature: closed forms of each, in standard errors, in single precision."""

import math

import numpy as np
import pytest
import torch
from analytic_potentials import bond, system_of, wells
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import kstest
from step_paths import step_path  # noqa: F401

from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.integrators import LangevinBAOAB, NoseHooverChain, PaperEuler
from mdsim.integrators.noise import noise_of_steps
from mdsim.state import MDState, kinetic_energy_eV, kinetic_temperature_K
from mdsim.units import FS, PS, kT_eV

LIMIT = 3.0  # standard errors
TEMPERATURES_K = (200.0, 300.0, 500.0)
OMEGA_SQUARED, OMEGA_DT, FRICTION = 20.0, 0.3, 0.3  # of wells; friction · Δt for the Langevin integrators


def z_score(samples, expected):
    return ((samples.mean() - expected) / (samples.std() / math.sqrt(len(samples)))).item()


def temperatures(n_each: int) -> torch.Tensor:
    """Those of the replicas, interleaved."""
    return torch.tensor(TEMPERATURES_K).repeat(n_each)


def euler_variances(dt: float, friction: float) -> tuple[float, float]:
    """⟨x²⟩ and ⟨v²⟩ of the semi-implicit Euler scheme in a harmonic well, in units of kT/k and kT/m."""
    to_v = np.array([-OMEGA_SQUARED * dt, 1 - friction * dt])
    step = np.stack([np.array([1.0, 0.0]) + dt * to_v, to_v])
    noise = 2 * friction * dt * np.outer([dt, 1.0], [dt, 1.0])
    covariance = solve_discrete_lyapunov(step, noise)
    return covariance[0, 0] * OMEGA_SQUARED, covariance[1, 1]


@pytest.mark.parametrize("method", [LangevinBAOAB, PaperEuler])
def test_langevin_samples_each_temperature(method):
    """Velocities are normal, with the variances of each scheme; so are positions in wells of one frequency."""
    system = system_of([1, 6, 8], [1.008, 12.011, 15.999], dtype=torch.float32)
    time = OMEGA_DT / math.sqrt(OMEGA_SQUARED)
    integrator = method(time / FS, 1000.0, FRICTION / time * PS)  # a temperature that no replica has
    kelvin = temperatures(1500)
    potential = wells(OMEGA_SQUARED * system.masses[:, None])
    origin = torch.zeros(len(kelvin), 3, 3)
    state = integrator.init(system, potential, origin, origin)
    state = MDState(**state.tensors(), kT=kT_eV(kelvin))
    for noise in noise_of_steps(integrator, system, state, 150, torch.Generator().manual_seed(2)):
        state = integrator.step(system, potential, state, noise)
    assert state.positions.dtype == torch.float32
    variances = {LangevinBAOAB: (1.0, 1 - OMEGA_DT**2 / 4), PaperEuler: euler_variances(time, FRICTION / time)}[method]
    for temperature_K in TEMPERATURES_K:
        chosen, speed = kelvin == temperature_K, torch.sqrt(kT_eV(temperature_K) / system.masses[:, None])
        reduced = state.positions[chosen] / speed * math.sqrt(OMEGA_SQUARED), state.velocities[chosen] / speed
        for values, variance in zip(reduced, variances, strict=True):
            normal = values.double().flatten() / math.sqrt(variance)
            assert abs(z_score(normal.square(), 1.0)) < LIMIT
            assert abs(z_score(normal**4, 3.0)) < LIMIT
            assert kstest(normal.numpy(), "norm").pvalue > 0.003


def test_chains_sample_each_temperature():
    """A vibrating pair: ⟨K⟩ = kT/2, ⟨K²⟩ = 3/4 (kT)², and k⟨x²⟩ = kT, raised by Verlet's 1/(1 - ω²Δt²/4)."""
    stiffness, length, omega_dt = 10.0, 3.0, 0.15
    omega = math.sqrt(stiffness / 0.5)
    system, kelvin = system_of([1, 1], [1.0, 1.0], dtype=torch.float32), temperatures(300)
    integrator = NoseHooverChain(omega_dt / omega / FS, 1000.0, 1 / omega / FS)
    positions = torch.tensor([[0.0, 0, 0], [length, 0, 0]]).repeat(len(kelvin), 1, 1)
    generator = torch.Generator().manual_seed(5)
    positions[:, 1, 0] += torch.sqrt(kT_eV(kelvin) / stiffness) * torch.randn(len(kelvin), generator=generator)
    velocities = maxwell_boltzmann(system, len(kelvin), kelvin, generator, positions=positions)
    state = integrator.init(system, bond(stiffness, length), positions, velocities)
    state = MDState(**state.tensors(), kT=kT_eV(kelvin))
    start = integrator.conserved(system, state)
    sums, n_steps = torch.zeros(3, len(kelvin), dtype=torch.float64), 1500
    for step in range(-250, n_steps):  # the chains begin at rest
        state = integrator.step(system, bond(stiffness, length), state)
        if step < 0:
            continue
        kinetic = (kinetic_energy_eV(state.velocities, system.masses) / state.kT).double()
        sums += torch.stack([kinetic, kinetic.square(), 2 * (state.energy / state.kT).double()])
    averages, raised = sums / n_steps, 1 / (1 - omega_dt**2 / 4)
    for temperature_K in TEMPERATURES_K:
        own = averages[:, kelvin == temperature_K]
        for samples, expected in zip(own, (0.5, 0.75, raised), strict=True):
            assert abs(z_score(samples, expected)) < LIMIT, (temperature_K, samples.mean(), expected)
    drift = (integrator.conserved(system, state) - start) / state.kT
    assert drift.abs().mean() < 0.1  # where N_f kT η alone has moved by several kT


def test_first_velocities_are_of_each_temperature():
    system, kelvin = system_of([1, 6, 8], [1.008, 12.011, 15.999], dtype=torch.float32), temperatures(4000)
    positions = torch.tensor([[0.0, 0, 0], [1.1, 0, 0], [0, 1.2, 0.3]]).repeat(len(kelvin), 1, 1)
    velocities = maxwell_boltzmann(system, len(kelvin), kelvin, torch.Generator().manual_seed(1), positions=positions)
    free = system.internal_degrees_of_freedom
    found = kinetic_temperature_K(velocities, system.masses, free).double()
    for temperature_K in TEMPERATURES_K:
        own = found[kelvin == temperature_K] / temperature_K
        assert abs(z_score(own, 1.0)) < LIMIT
        assert abs(z_score((own - 1).square(), 2 / free)) < LIMIT
    same = maxwell_boltzmann(system, len(kelvin), 300.0, torch.Generator().manual_seed(1), positions=positions)
    torch.testing.assert_close(velocities[kelvin == 300.0], same[kelvin == 300.0])
    exact = maxwell_boltzmann(
        system, len(kelvin), kelvin, torch.Generator().manual_seed(1), positions=positions, exact_temperature=True
    )
    torch.testing.assert_close(kinetic_temperature_K(exact, system.masses, free), kelvin)
