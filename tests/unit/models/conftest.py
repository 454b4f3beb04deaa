"""Fixtures for tests of tabulated paths: distorted aspirin, and a measure of energy conservation."""

from collections.abc import Callable

import pytest
import torch

from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.integrators.nve import VelocityVerlet
from mdsim.state import System, kinetic_energy_eV


@pytest.fixture(scope="module")
def system(aspirin_geometry) -> System:
    return System.from_geometry(*aspirin_geometry)


@pytest.fixture
def geometry(aspirin_geometry) -> torch.Tensor:
    return torch.as_tensor(aspirin_geometry[1], dtype=torch.float32)


@pytest.fixture
def positions(geometry, generator) -> torch.Tensor:
    return geometry + 0.1 * torch.randn(5, *geometry.shape, generator=generator)


@pytest.fixture
def energy_fluctuation(system, geometry) -> Callable[..., float]:
    """Largest change in eV of the total energy of several replicas in a number of steps, from the same start always."""

    def fluctuation(potential, n_replicas: int, n_steps: int) -> float:
        start, generator = geometry.repeat(n_replicas, 1, 1), torch.Generator().manual_seed(7)
        velocities = maxwell_boltzmann(system, n_replicas, 300.0, generator, positions=start)
        integrator = VelocityVerlet(0.25)
        state = integrator.init(system, potential, start, velocities)
        _, trajectory = simulate(system, potential, integrator, state, n_steps, 10, generator)
        assert (trajectory.energy - trajectory.energy[0]).abs().max() > 2e-2  # energy did move
        kinetic = kinetic_energy_eV(trajectory.velocities.double(), system.masses.double())
        total = trajectory.energy.double() + kinetic
        return float((total - total[0]).abs().max())

    return fluctuation


@pytest.fixture
def errors_of_rounding(system, positions) -> Callable[..., tuple]:
    """Largest errors of energies and forces against an exact model: of the fast path, then of the plain one."""

    def errors(model, exact) -> tuple:
        expected = exact.bind(system.to(dtype=torch.float64))(positions.double())
        found = model.fast_potential(system)(positions), model.bind(system)(positions)
        return tuple([(new - old).abs().max() for new, old in zip(path, expected, strict=True)] for path in found)

    return errors
