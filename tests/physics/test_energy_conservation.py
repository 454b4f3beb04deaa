"""Newtonian and extended energies: their drift, the order of their error, and time reversal."""

import pytest
import torch
from analytic_potentials import lennard_jones, system_of
from ase.cluster import Octahedron

from mdsim.dynamics.velocities import angular_momentum, maxwell_boltzmann
from mdsim.integrators import NoseHooverChain, VelocityVerlet
from mdsim.state import MDState

POTENTIAL = lennard_jones(0.0104, 3.4)
TEMPERATURE_K = 20.0


@pytest.fixture(scope="module")
def cluster():
    atoms = Octahedron("Ar", 3, cutoff=1, latticeconstant=5.4)
    system = system_of(atoms.numbers.tolist(), atoms.get_masses().tolist())
    positions = torch.tensor(atoms.positions).expand(4, -1, -1).contiguous()
    generator = torch.Generator().manual_seed(1)
    return system, positions, maxwell_boltzmann(system, 4, TEMPERATURE_K, generator, positions=positions)


def conserved_along(cluster, integrator, n_steps):
    system, positions, velocities = cluster
    state = integrator.init(system, POTENTIAL, positions, velocities)
    energies = [integrator.conserved(system, state)]
    for _ in range(n_steps):
        state = integrator.step(system, POTENTIAL, state)
        energies.append(integrator.conserved(system, state))
    return torch.stack(energies), state


INTEGRATORS = {
    "nve": VelocityVerlet,
    "nose_hoover": lambda dt: NoseHooverChain(dt, TEMPERATURE_K, 200.0, chain_length=1),
    "nose_hoover_chain": lambda dt: NoseHooverChain(dt, TEMPERATURE_K, 200.0, chain_length=3),
}


@pytest.mark.parametrize("name", INTEGRATORS)
def test_conserved_energy_has_an_error_of_second_order(cluster, name):
    """Halving the time step divides the fluctuation over the same 2 ps by four."""
    spread = [conserved_along(cluster, INTEGRATORS[name](dt), int(2000 / dt))[0].std(0) for dt in (20.0, 10.0)]
    torch.testing.assert_close(spread[0] / spread[1], torch.full((4,), 4.0, dtype=torch.float64), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_conserved_energy_does_not_drift(cluster, name):
    """Over 12 ps the means of both halves agree within a small part of the fluctuation of the kinetic energy."""
    energies, _ = conserved_along(cluster, INTEGRATORS[name](10.0), 1200)
    first, second = energies[:600].mean(0), energies[600:].mean(0)
    assert (energies - energies[0]).abs().max() < 1e-4  # eV, of a kinetic energy of 0.04 eV
    assert (second - first).abs().max() < 3e-5


@pytest.mark.parametrize("name", INTEGRATORS)
def test_positions_converge_at_second_order(cluster, name):
    """Halving the time step divides the distance between successive solutions at 1 ps by four."""
    coarse, middle, fine = (
        conserved_along(cluster, INTEGRATORS[name](dt), int(1000 / dt))[1].positions for dt in (10.0, 5.0, 2.5)
    )
    ratio = (coarse - middle).norm() / (middle - fine).norm()
    assert 3.7 < ratio < 4.3


@pytest.mark.parametrize("name", INTEGRATORS)
def test_momenta_stay_at_zero(cluster, name):
    system = cluster[0]
    _, state = conserved_along(cluster, INTEGRATORS[name](10.0), 200)
    momentum = (system.masses[:, None] * state.velocities).sum(1)
    spin = angular_momentum(state.positions, state.velocities, system.masses)
    assert momentum.abs().max() < 1e-11
    assert spin.abs().max() < 1e-10


def test_verlet_is_time_reversible(cluster):
    system, positions, velocities = cluster
    _, state = conserved_along(cluster, VelocityVerlet(10.0), 300)
    state = MDState(state.positions, -state.velocities, state.forces, state.energy)
    for _ in range(300):
        state = VelocityVerlet(10.0).step(system, POTENTIAL, state)
    torch.testing.assert_close(state.positions, positions, rtol=0, atol=1e-9)
    torch.testing.assert_close(state.velocities, -velocities, rtol=0, atol=1e-9)
