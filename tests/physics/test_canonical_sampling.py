"""Canonical sampling of the thermostats: deviations in standard errors, from independent replicas."""

import functools
import math

import pytest
import torch
from analytic_potentials import bond, lennard_jones, system_of, wells
from ase.cluster import Octahedron

from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.integrators import LangevinBAOAB, NoseHooverChain
from mdsim.integrators.noise import noise_of_steps
from mdsim.state import kinetic_energy_eV, kinetic_temperature_K
from mdsim.units import FS, kT_eV

LIMIT = 4.0  # standard errors


def z_score(samples, expected):
    """Deviation of the mean from its closed form in standard errors; samples are independent replicas."""
    return (samples.mean() - expected) / (samples.std() / math.sqrt(len(samples)))


OMEGA_DT = 0.15


@functools.cache
def harmonic_bond_averages(chain_length, n_replicas=600, n_steps=2500):
    """Time averages per replica of K, U, K², U² of a vibrating pair without rotation: one degree of freedom."""
    stiffness, temperature_K = 10.0, 300.0
    omega = math.sqrt(stiffness / 0.5)
    system = system_of([1, 1], [1.0, 1.0])
    integrator = NoseHooverChain(OMEGA_DT / omega / FS, temperature_K, 1 / omega / FS, chain_length)
    generator = torch.Generator().manual_seed(11)
    positions = torch.tensor([[0.0, 0, 0], [3.0, 0, 0]], dtype=torch.float64).repeat(n_replicas, 1, 1)
    velocities = maxwell_boltzmann(system, n_replicas, temperature_K, generator, positions=positions)
    potential = bond(stiffness, 3.0)
    state = integrator.init(system, potential, positions, velocities)
    _, trajectory = simulate(system, potential, integrator, state, n_steps, 1)
    kT = kT_eV(temperature_K)
    kinetic, energy = kinetic_energy_eV(trajectory.velocities, system.masses) / kT, trajectory.energy / kT
    return torch.stack([kinetic, energy, kinetic.square(), energy.square()]).mean(1)


def test_chain_samples_a_harmonic_vibration():
    """⟨K⟩ = ⟨U⟩ = kT/2 and ⟨K²⟩ = ⟨U²⟩ = 3/4 (kT)², with U raised by Verlet's 1/(1 - ω²Δt²/4)."""
    averages = harmonic_bond_averages(chain_length=3)
    raised = 1 / (1 - OMEGA_DT**2 / 4)
    expected = [0.5, 0.5 * raised, 0.75, 0.75 * raised**2]
    scores = torch.stack([z_score(samples, value) for samples, value in zip(averages, expected, strict=True)])
    assert scores.abs().max() < LIMIT, scores
    # Not for want of resolution: every average is known to better than three percent.
    assert (averages.std(1) / math.sqrt(averages.shape[1]) / averages.mean(1)).max() < 0.03


def test_a_single_thermostat_is_not_ergodic():
    """What chains repair (Martyna, Klein, Tuckerman 1992): each replica stays on its own torus, with its own averages.

    The replicas' time averages of K² and U² then keep their spread, and their mean depends on the initial conditions.
    """
    single, chain = harmonic_bond_averages(chain_length=1), harmonic_bond_averages(chain_length=3)
    assert (single.std(1)[2:] > 3 * chain.std(1)[2:]).all(), (single.std(1), chain.std(1))
    assert min(abs(z_score(single[2], 0.75)), abs(z_score(single[3], 0.75))) > LIMIT


@pytest.mark.parametrize("chain_length", [1, 3])
def test_chain_holds_the_temperature_of_the_internal_momenta(chain_length):
    """A cluster of 6 atoms has 12 free momenta: a thermostat aimed at all 18 would give 1.5 times the temperature."""
    temperature_K, n_replicas = 15.0, 128
    atoms = Octahedron("Ar", 2, latticeconstant=5.4)
    assert len(atoms) == 6
    system = system_of(atoms.numbers.tolist(), atoms.get_masses().tolist())
    integrator = NoseHooverChain(20.0, temperature_K, 200.0, chain_length)
    generator = torch.Generator().manual_seed(2)
    positions = torch.tensor(atoms.positions).repeat(n_replicas, 1, 1)
    velocities = maxwell_boltzmann(system, n_replicas, temperature_K, generator, positions=positions)
    potential = lennard_jones(0.0104, 3.4)
    state = integrator.init(system, potential, positions, velocities)
    total = torch.zeros(n_replicas, dtype=torch.float64)
    for step in range(1000):
        state = integrator.step(system, potential, state)
        if step >= 250:
            total += kinetic_temperature_K(state.velocities, system.masses, integrator.degrees_of_freedom(system))
    temperatures = total / 750
    assert abs(z_score(temperatures, temperature_K)) < LIMIT
    assert abs(temperatures.mean() / temperature_K - 1) < 0.02


def test_langevin_samples_a_harmonic_well_at_a_large_time_step():
    """From rest at the origin, with ωΔt = 1.5: ⟨x²⟩ = kT/k, ⟨x⁴⟩ = 3 (kT/k)², ⟨v²⟩ = (1 - ω²Δt²/4) kT/m."""
    temperature_K, n_replicas, omega_dt = 300.0, 4000, 1.5
    system = system_of([1, 6, 8], [1.008, 12.011, 15.999])
    stiffness = 20.0 * system.masses[:, None]  # one frequency for all
    integrator = LangevinBAOAB(omega_dt / math.sqrt(20.0) / FS, temperature_K, 100.0)
    origin = torch.zeros(n_replicas, 3, 3, dtype=torch.float64)
    state = integrator.init(system, wells(stiffness), origin, origin)
    for noise in noise_of_steps(integrator, system, state, 150, torch.Generator().manual_seed(3)):
        state = integrator.step(system, wells(stiffness), state, noise)
    kT = kT_eV(temperature_K)
    reduced = state.positions * torch.sqrt(stiffness / kT)
    speeds = state.velocities * torch.sqrt(system.masses[:, None] / kT)
    for atom in range(3):
        x, v = reduced[:, atom].flatten(), speeds[:, atom].flatten()
        assert abs(z_score(x, 0.0)) < LIMIT
        assert abs(z_score(x.square(), 1.0)) < LIMIT
        assert abs(z_score(x**4, 3.0)) < LIMIT
        assert abs(z_score(v.square(), 1 - omega_dt**2 / 4)) < LIMIT
        assert abs(z_score(x * v, 0.0)) < LIMIT


def test_langevin_thermalizes_all_momenta_of_a_molecule():
    """3N momenta, also those of the center of mass and of rotation; ⟨U⟩ of the bond with its Jacobian r²."""
    temperature_K, n_replicas, stiffness, length = 300.0, 6000, 10.0, 1.0
    system = system_of([1, 8], [1.008, 15.999])
    integrator = LangevinBAOAB(0.5, temperature_K, 50.0)
    positions = torch.tensor([[0.0, 0, 0], [length, 0, 0]], dtype=torch.float64).repeat(n_replicas, 1, 1)
    potential = bond(stiffness, length)
    state = integrator.init(system, potential, positions, torch.zeros_like(positions))
    for noise in noise_of_steps(integrator, system, state, 400, torch.Generator().manual_seed(5)):
        state = integrator.step(system, potential, state, noise)
    kT = kT_eV(temperature_K)
    # p(r) ∝ r² exp(-k (r - r0)²/2kT): moments of a Gaussian of variance s² about r0, weighted by r².
    s2 = kT / stiffness
    expected_energy = 0.5 * stiffness * (length**2 * s2 + 3 * s2**2) / (length**2 + s2)
    assert abs(z_score(kinetic_energy_eV(state.velocities, system.masses), 3 * kT)) < LIMIT
    assert abs(z_score(state.energy, expected_energy)) < LIMIT
