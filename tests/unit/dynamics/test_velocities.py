import math

import numpy as np
import pytest
import torch
from analytic_potentials import system_of
from ase.build import molecule

from mdsim.dynamics.velocities import (
    angular_momentum,
    maxwell_boltzmann,
    remove_center_of_mass_velocity,
    remove_rotation,
)
from mdsim.state import kinetic_energy_eV, kinetic_temperature_K
from mdsim.units import kT_eV

BOX = [[20.0, 0, 0], [0, 20, 0], [0, 0, 20]]
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


def build(name, n_replicas, cell=None, dtype=torch.float64):
    """A molecule in a general orientation, away from the origin."""
    atoms = molecule(name)
    positions = atoms.positions @ ROTATION + [3.0, -2.0, 5.0]
    system = system_of(atoms.numbers.tolist(), atoms.get_masses().tolist(), cell, dtype)
    return system, torch.tensor(positions, dtype=dtype).repeat(n_replicas, 1, 1)


def constrained_modes(system, positions):
    """Orthonormal mass-weighted translations and rotations: (mode, atom, 3)."""
    root = system.masses.sqrt().numpy()[:, None]
    arms = positions[0].numpy()
    modes = [root * axis for axis in np.eye(3)] + [root * np.cross(axis, arms) for axis in np.eye(3)]
    left, singular, _ = np.linalg.svd(np.stack(modes).reshape(6, -1).T, full_matrices=False)
    return left[:, singular > 1e-6 * singular[0]].T.reshape(-1, *arms.shape)


@pytest.mark.parametrize("temperature_K", [50.0, 500.0])
def test_equipartition_of_each_element(generator, temperature_K):
    """m⟨v²⟩ of each atom is kT times its share of the momenta that are left; z-scores for each element."""
    n_replicas = 4000
    system, positions = build("CH3CH2OH", n_replicas)
    velocities = maxwell_boltzmann(system, n_replicas, temperature_K, generator, positions=positions)
    share = 3 - (constrained_modes(system, positions) ** 2).sum((0, 2))
    assert share.sum() == pytest.approx(3 * 9 - 6)
    kinetic = (0.5 * system.masses * velocities.square().sum(-1)).numpy()
    for number in (1, 6, 8):
        chosen = system.atomic_numbers.numpy() == number
        sample = kinetic[:, chosen].sum(1)
        expected = 0.5 * kT_eV(temperature_K) * share[chosen].sum()
        assert abs(sample.mean() - expected) < 4 * sample.std() / math.sqrt(n_replicas)
        assert sample.std() / math.sqrt(n_replicas) < 0.02 * expected


def test_kinetic_energy_has_the_canonical_mean_and_variance(generator):
    """K ~ kT/2 χ² with as many degrees of freedom as momenta are left: mean f/2 kT, variance f/2 (kT)²."""
    n_replicas, free = 20_000, 3 * 9 - 6
    system, positions = build("CH3CH2OH", n_replicas)
    reduced = kinetic_energy_eV(
        maxwell_boltzmann(system, n_replicas, 300.0, generator, positions=positions), system.masses
    ) / kT_eV(300.0)
    squared_deviation = (reduced - free / 2).square()
    assert abs(reduced.mean() - free / 2) < 4 * reduced.std() / math.sqrt(n_replicas)
    assert abs(squared_deviation.mean() - free / 2) < 4 * squared_deviation.std() / math.sqrt(n_replicas)


def test_components_are_normal_and_signed(generator):
    """Each component of a free atom has variance kT/m, kurtosis 3 and no preferred sign."""
    system = system_of([1, 8], [1.008, 15.999])
    velocities = maxwell_boltzmann(system, 30_000, 300.0, generator, remove_momentum=False, remove_rotation=False)
    for atom, mass in enumerate(system.masses):
        sample = (velocities[:, atom] / torch.sqrt(kT_eV(300.0) / mass)).flatten()
        root = math.sqrt(len(sample))
        assert abs(sample.mean()) < 4 / root
        assert abs(sample.square().mean() - 1) < 4 * math.sqrt(2) / root
        assert abs((sample**4).mean() - 3) < 4 * math.sqrt(96) / root


@pytest.mark.parametrize("name", ["CH3CH2OH", "CO2", "HCN", "N2", "H2O"])
def test_momentum_and_angular_momentum_vanish(generator, name):
    system, positions = build(name, 50)
    velocities = maxwell_boltzmann(system, 50, 300.0, generator, positions=positions)
    assert (system.masses[:, None] * velocities).sum(1).abs().max() < 1e-12
    assert angular_momentum(positions, velocities, system.masses).abs().max() < 1e-11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "removed"), [("CO2", 6), ("C2H2", 6), ("H2O", 6), ("N2", 5)])
def test_momenta_that_are_lost(generator, name, removed, dtype):
    n_replicas = 20_000
    system, positions = build(name, n_replicas, dtype=dtype)
    velocities = maxwell_boltzmann(system, n_replicas, 300.0, generator, positions=positions)
    assert velocities.dtype == dtype
    kinetic = kinetic_energy_eV(velocities.double(), system.masses.double())
    expected = 0.5 * kT_eV(300.0) * (3 * system.n_atoms - removed)
    assert abs(kinetic.mean() - expected) < 4 * kinetic.std() / math.sqrt(n_replicas)
    temperature = kinetic_temperature_K(velocities, system.masses, system.internal_degrees_of_freedom)
    assert abs(temperature.mean() - 300.0) < 4 * temperature.std() / math.sqrt(n_replicas)


@pytest.mark.parametrize("bend_A", [0.0, 1e-7, 1e-4, 0.05])
def test_a_line_of_atoms_is_as_warm_as_one_that_is_hardly_bent(generator, bend_A):
    system, positions = build("CO2", 20_000)
    positions = positions.clone()
    positions[:, 0, 0] += bend_A
    velocities = maxwell_boltzmann(system, 20_000, 300.0, generator, positions=positions)
    kinetic = kinetic_energy_eV(velocities, system.masses)
    assert abs(kinetic.mean() - 1.5 * kT_eV(300.0)) < 4 * kinetic.std() / math.sqrt(20_000)
    if bend_A in (0.0, 0.05):  # near the limit the moment about the line is lost in rounding
        assert angular_momentum(positions, velocities, system.masses).abs().max() < 1e-11


def test_removing_rotation_is_a_projection(generator):
    """It changes nothing twice, keeps internal motion, and removes a rigid rotation entirely."""
    system, positions = build("CH3CH2OH", 3)
    velocities = torch.randn(positions.shape, dtype=torch.float64, generator=generator)
    once = remove_rotation(positions, velocities, system.masses)
    torch.testing.assert_close(remove_rotation(positions, once, system.masses), once, rtol=0, atol=1e-13)
    rigid = torch.linalg.cross(torch.tensor([0.3, -0.2, 0.1]).double().expand_as(positions), positions)
    rigid = remove_center_of_mass_velocity(rigid, system.masses)
    torch.testing.assert_close(remove_rotation(positions, velocities + rigid, system.masses), once, rtol=0, atol=1e-12)
    # Orthogonal in the mass metric: the kinetic energies of what is kept and what is removed add up.
    kept, removed, both = (kinetic_energy_eV(v, system.masses) for v in (once, velocities - once, velocities))
    torch.testing.assert_close(kept + removed, both)


def test_periodic_systems_keep_their_rotation(generator):
    system, positions = build("H2O", 5, cell=BOX)
    velocities = maxwell_boltzmann(system, 5, 300.0, generator)
    assert (system.masses[:, None] * velocities).sum(1).abs().max() < 1e-12
    assert angular_momentum(positions, velocities, system.masses).abs().min() > 1e-4


@pytest.mark.parametrize("cell", [None, BOX])
def test_exact_temperature(generator, cell):
    system, positions = build("CH3CH2OH", 7, cell=cell)
    velocities = maxwell_boltzmann(system, 7, 500.0, generator, positions=positions, exact_temperature=True)
    temperature = kinetic_temperature_K(velocities, system.masses, system.internal_degrees_of_freedom)
    torch.testing.assert_close(temperature, torch.full((7,), 500.0, dtype=torch.float64))


def test_a_broken_replica_leaves_the_others_alone():
    system, positions = build("H2O", 3)
    whole = maxwell_boltzmann(system, 3, 300.0, torch.Generator().manual_seed(1), positions=positions)
    positions[1, 0] = torch.nan
    mixed = maxwell_boltzmann(system, 3, 300.0, torch.Generator().manual_seed(1), positions=positions)
    assert torch.equal(mixed[[0, 2]], whole[[0, 2]])
    assert mixed[1].isnan().all()


def test_the_seed_decides_the_bits():
    system, positions = build("H2O", 3)
    first, again, other = (
        maxwell_boltzmann(system, 3, 300.0, torch.Generator().manual_seed(seed), positions=positions)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_wrong_input(generator):
    system, positions = build("H2O", 3)
    with pytest.raises(ValueError, match="positions of all 3 replicas, but none were given"):
        maxwell_boltzmann(system, 3, 300.0, generator)
    with pytest.raises(ValueError, match="positions of all 4 replicas, but those of 3 were given"):
        maxwell_boltzmann(system, 4, 300.0, generator, positions=positions)
    with pytest.raises(ValueError, match="remove_momentum=False"):
        maxwell_boltzmann(
            system_of([6], [12.0]), 1, 300.0, generator, positions=torch.zeros(1, 1, 3), exact_temperature=True
        )
