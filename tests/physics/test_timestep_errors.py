"""Temperature errors at a finite time step of BAOAB and of Verlet with a Nosé-Hoover chain, exact and to order Δt²."""

import math

import numpy as np
import pytest
import torch
from analytic_potentials import system_of, wells

from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.integrators import LangevinBAOAB, NoseHooverChain, VelocityVerlet
from mdsim.state import kinetic_energy_eV
from mdsim.units import FS, kT_eV

LIMIT = 4.0  # standard errors
TEMPERATURE_K = 300.0
KT = kT_eV(TEMPERATURE_K)


def z_score(samples, expected):
    """Deviation of the mean from a prediction in standard errors; samples are independent replicas."""
    return (samples.mean() - expected) / (samples.std() / math.sqrt(len(samples)))


@pytest.mark.parametrize("x", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("kept", [0.1, 0.99])
def test_baoab_in_a_harmonic_well_in_closed_form(x, kept):
    """Covariances that a step leaves unchanged: ⟨q²⟩ is exact, ⟨p²⟩ is 1 - ω²Δt²/4. Units: m = ω = kT = 1, Δt = x."""
    kick, drift = np.array([[1, 0], [-x / 2, 1]]), np.array([[1, x / 2], [0, 1]])
    friction, noise = np.diag([1, kept]), np.diag([0, 1 - kept**2])
    step = kick @ drift @ friction @ drift @ kick
    added = kick @ drift @ noise @ drift.T @ kick.T
    covariance = np.linalg.solve(np.eye(4) - np.kron(step, step), added.ravel()).reshape(2, 2)
    np.testing.assert_allclose(covariance, [[1, 0], [0, 1 - x**2 / 4]], atol=1e-12)


@pytest.mark.parametrize("x", [0.1, 0.5, 1.0])
def test_what_verlet_conserves_in_a_harmonic_well(x):
    """A step is the exact flow of p²/2·(1 + x²/6) + q²/2·(1 - x²/12), up to order x⁴."""
    kick, drift = np.array([[1, 0], [-x / 2, 1]]), np.array([[1, x], [0, 1]])
    step = kick @ drift @ kick
    factor = math.asin(x / 2) / (x / 2) / math.sqrt(1 - x**2 / 4)
    conserved = np.diag([factor * (1 - x**2 / 4), factor])  # of q² and p², halved
    np.testing.assert_allclose(step.T @ conserved @ step, conserved, atol=1e-13)
    angle = 2 * math.asin(x / 2)  # the flow of `conserved` over a time x turns by x √(det) = angle
    assert x * math.sqrt(np.linalg.det(conserved)) == pytest.approx(angle, rel=1e-12)
    assert conserved[1, 1] == pytest.approx(1 + x**2 / 6, abs=0.1 * x**4)
    assert conserved[0, 0] == pytest.approx(1 - x**2 / 12, abs=0.1 * x**4)


def wells_run(integrator, omegas, n_replicas, n_steps, seed=3):
    """One atom in wells of other stiffness along each axis; positions and velocities of all steps."""
    system = system_of([1], [1.0])
    generator = torch.Generator().manual_seed(seed)
    stiffness = torch.tensor(omegas, dtype=torch.float64).square()
    normal = torch.randn(2, n_replicas, 1, 3, generator=generator, dtype=torch.float64)
    positions, velocities = normal[0] * torch.sqrt(KT / stiffness), normal[1] * math.sqrt(KT)
    potential = wells(stiffness)
    state = integrator.init(system, potential, positions, velocities)
    _, trajectory = simulate(system, potential, integrator, state, n_steps, 1, generator)
    return trajectory, stiffness


def test_baoab_reads_cold_by_the_mean_squared_force():
    """K lacks Δt²/8 Σ⟨F²/m⟩, while positions have the temperature of the bath."""
    dt = 1.0
    omegas = [0.3, 0.6, 0.9]  # times Δt
    integrator = LangevinBAOAB(dt / FS, TEMPERATURE_K, 200.0)
    trajectory, stiffness = wells_run(integrator, omegas, 1000, 400)
    late = slice(50, None)
    kinetic = kinetic_energy_eV(trajectory.velocities[late], torch.ones(1, dtype=torch.float64)).mean(0)
    squared_force = (stiffness * trajectory.positions[late]).square().sum((-2, -1)).mean(0)
    missing = 1.5 * KT - kinetic
    assert abs(z_score(missing - dt**2 / 8 * squared_force, 0.0)) < LIMIT
    assert abs(z_score(squared_force, float(stiffness.sum()) * KT)) < LIMIT
    assert abs(z_score(missing, dt**2 / 8 * float(stiffness.sum()) * KT)) < LIMIT
    assert float(missing.mean()) / (1.5 * KT) == pytest.approx(sum(x**2 for x in omegas) / 12, rel=0.1), (
        "a tenth is seen"
    )


def test_verlet_conserves_the_sum_with_less_potential_energy():
    """p²/m + (1 - ω²Δt²/4) mω²q² is constant in each well: K and U of a mode differ by this factor."""
    trajectory, stiffness = wells_run(VelocityVerlet(1.0 / FS), [0.3, 0.6, 0.9], 4, 200)
    conserved = trajectory.velocities.square() + (1 - stiffness / 4) * stiffness * trajectory.positions.square()
    torch.testing.assert_close(conserved, conserved[:1].expand_as(conserved), rtol=1e-9, atol=1e-12)


def soft_spheres(height, diameter, edge):
    """Spheres in a cubic box that push each other apart where they overlap: U = ε Σ (1 - r²/σ²)³ over pairs r < σ."""

    def potential(positions):
        first, second = torch.triu_indices(positions.shape[1], positions.shape[1], offset=1)
        arms = positions[:, second] - positions[:, first]
        arms = arms - edge * torch.round(arms / edge)
        overlap = (1 - arms.square().sum(-1) / diameter**2).clamp(min=0)
        push = (6 * height / diameter**2 * overlap.square())[..., None] * arms
        forces = torch.zeros_like(positions).index_add(1, second, push).index_add(1, first, -push)
        return height * overlap.pow(3).sum(-1), forces

    return potential


@pytest.mark.slow
def test_slow_atoms_run_hot_in_a_nose_hoover_chain():
    """The chain holds the mean of K; atoms share what Verlet conserves, and fast ones show less of it in K.

    With T' the temperature of the slowest modes, an atom of mass m has ⟨mv²⟩ = 3 (1 - m/M) kT' - Δt²/6 ⟨F²/m⟩ (M: the
    mass of all, whose motion is removed). K lacks Δt²/12 Σ⟨F²/m⟩ against T', and T' is too high by as much. That is
    the leading order for harmonic modes; a fluid of soft spheres, half of them light, follows it within a third.
    """
    n_replicas, dt = 600, 0.08 / math.sqrt(KT)  # lengths in Å, masses in amu
    masses = torch.tensor([1.0, 16.0] * 4, dtype=torch.float64)
    system = system_of([1, 8] * 4, masses.tolist(), cell=[[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])
    potential = soft_spheres(15 * KT, 1.0, 2.0)
    generator = torch.Generator().manual_seed(5)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    velocities = maxwell_boltzmann(system, n_replicas, TEMPERATURE_K, generator)
    integrator = NoseHooverChain(dt / FS, TEMPERATURE_K, 20 * dt / FS)
    state = integrator.init(system, potential, corners.repeat(n_replicas, 1, 1), velocities)
    _, trajectory = simulate(system, potential, integrator, state, 3000, 3)
    positions, velocities = trajectory.positions[250:], trajectory.velocities[250:]
    forces = potential(positions.flatten(0, 1))[1].unflatten(0, positions.shape[:2])
    twice_kinetic = (masses[:, None] * velocities.square()).sum(-1).mean(0) / KT
    squared_force = dt**2 * (forces.square() / masses[:, None]).sum(-1).mean(0) / KT
    free = 3 * (1 - masses / masses.sum())
    light, heavy = masses == 1, masses == 16
    hot = 1 + squared_force.mean(0).sum() / 6 / free.sum()  # T'/T
    assert abs(z_score(twice_kinetic.sum(-1), free.sum())) < LIMIT, "the chain holds K"
    for atoms in (light, heavy):
        shown = (twice_kinetic + squared_force / 6)[:, atoms].sum(-1) / free[atoms].sum()
        assert float(shown.mean()) == pytest.approx(float(hot), abs=0.01)  # of 0.026: forces are far from linear
    slow = twice_kinetic[:, heavy].sum(-1) / free[heavy].sum()
    fast = twice_kinetic[:, light].sum(-1) / free[light].sum()
    assert z_score(slow, 1.0) > LIMIT and z_score(fast, 1.0) < -LIMIT, "beyond doubt"
