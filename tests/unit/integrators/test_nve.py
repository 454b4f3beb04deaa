import math

import numpy as np
import torch
from analytic_potentials import lennard_jones, system_of, wells
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet as AseVelocityVerlet

from mdsim.integrators import VelocityVerlet
from mdsim.units import FS


def test_harmonic_well_follows_the_closed_form_of_verlet(generator):
    """x_n = x0 cos nφ + v0 sin nφ / (ω√(1 - ω²Δt²/4)), with cos φ = 1 - ω²Δt²/2."""
    mass, stiffness, timestep_fs, n_steps = 3.0, 5.0, 1.0, 137
    system, integrator = system_of([6], [mass]), VelocityVerlet(timestep_fs)
    x0, v0 = torch.randn(2, 4, 1, 3, dtype=torch.float64, generator=generator)
    state = integrator.init(system, wells(stiffness), x0, v0)
    for _ in range(n_steps):
        state = integrator.step(system, wells(stiffness), state)

    omega, dt = math.sqrt(stiffness / mass), timestep_fs * FS
    phase, root = math.acos(1 - (omega * dt) ** 2 / 2), math.sqrt(1 - (omega * dt) ** 2 / 4)
    cosine, sine = math.cos(n_steps * phase), math.sin(n_steps * phase)
    torch.testing.assert_close(state.positions, x0 * cosine + v0 * sine / (omega * root), rtol=0, atol=1e-12)
    torch.testing.assert_close(state.velocities, v0 * cosine - x0 * omega * root * sine, rtol=0, atol=1e-12)


def test_agrees_with_ase_step_by_step():
    rng = np.random.default_rng(3)
    positions = np.argwhere(np.ones((2, 2, 2))) * 3.8 + rng.normal(scale=0.1, size=(8, 3))
    atoms = Atoms("Ar4Ne4", positions)
    atoms.set_velocities(rng.normal(scale=0.01, size=(8, 3)))
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=1e3)

    system, integrator = system_of(atoms.numbers.tolist(), atoms.get_masses().tolist()), VelocityVerlet(5.0)
    potential = lennard_jones(0.0104, 3.4)
    state = integrator.init(
        system, potential, torch.tensor(atoms.positions)[None], torch.tensor(atoms.get_velocities())[None]
    )
    reference = AseVelocityVerlet(atoms, timestep=5.0 * FS)
    for _ in range(60):
        reference.run(1)
        state = integrator.step(system, potential, state)
        np.testing.assert_allclose(state.positions[0], atoms.positions, rtol=0, atol=1e-11)
        np.testing.assert_allclose(state.velocities[0], atoms.get_velocities(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(integrator.conserved(system, state)[0], atoms.get_total_energy(), rtol=0, atol=1e-9)
