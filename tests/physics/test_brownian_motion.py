"""A free Brownian particle diffuses with Einstein's D = kT/(mγ)."""

import math

import pytest
import torch
from analytic_potentials import free, system_of

from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.integrators import LangevinBAOAB, PaperEuler
from mdsim.units import FS, PS, kT_eV


@pytest.mark.parametrize("scheme", [LangevinBAOAB, PaperEuler])
def test_mean_squared_displacement(scheme):
    """MSD(t) = 6 D (t - (1 - e^(-γt))/γ), from the ballistic to the diffusive regime."""
    timestep_fs, temperature_K, friction_per_ps, mass, n_replicas = 5.0, 300.0, 10.0, 18.0, 4000
    system, integrator = system_of([8], [mass]), scheme(timestep_fs, temperature_K, friction_per_ps)
    generator = torch.Generator().manual_seed(9)
    velocities = maxwell_boltzmann(
        system, n_replicas, temperature_K, generator, remove_momentum=False, remove_rotation=False
    )
    state = integrator.init(system, free, torch.zeros_like(velocities), velocities)
    _, trajectory = simulate(system, free, integrator, state, n_steps=400, dump_every=20, generator=generator)

    squared = trajectory.positions.square().sum(-1)[:, :, 0]
    times = trajectory.frame_interval_fs * FS * torch.arange(1, trajectory.n_frames + 1, dtype=torch.float64)
    gamma = friction_per_ps / PS
    diffusivity = kT_eV(temperature_K) / (mass * gamma)
    expected = 6 * diffusivity * (times - (1 - torch.exp(-gamma * times)) / gamma)
    standard_error = squared.std(1) / math.sqrt(n_replicas)
    assert ((squared.mean(1) - expected).abs() / standard_error).max() < 4
    assert (standard_error / expected).max() < 0.02
