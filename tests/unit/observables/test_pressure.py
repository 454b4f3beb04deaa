"""Pressure against the ideal gas law and ASE's stress, and the bulk modulus of given volumes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from smooth_lennard_jones import argon

from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.evaluation.measures import Measure
from mdsim.evaluation.observable_metrics import bulk_modulus, observable_errors
from mdsim.force_field import ForceField
from mdsim.moving_cells import bind_in_cells
from mdsim.observables import BulkModulus, Pressure, bulk_modulus_GPa
from mdsim.state import Trajectory
from mdsim.training.terms import Target
from mdsim.units import BAR, GPA, KB_EV_PER_K, kT_eV

EPSILON_EV, SIGMA_A, CUTOFF_A = 0.0104, 3.4, 5.2


class Pairs(ForceField):
    """Lennard-Jones pairs without a switch, as ASE has them. Depth zero is an ideal gas."""

    def __init__(self, depth_eV: float) -> None:
        super().__init__(cutoff=CUTOFF_A)
        self.depth_eV = depth_eV

    def atomic_energies(self, system, positions, neighbors):
        squared = neighbors.displacements(positions).square().sum(-1)
        sixth = (SIGMA_A**2 / squared) ** 3 * (squared < CUTOFF_A**2)  # listed pairs may be farther apart
        half = 2 * self.depth_eV * (sixth.square() - sixth)
        atoms = half.new_zeros(len(positions) * system.n_atoms)
        atoms = atoms.index_add(0, neighbors.first, half).index_add(0, neighbors.second, half)
        return atoms.reshape(len(positions), -1)


def rattled(moving: bool = True):
    """Two replicas of argon, three frames, with strained cells that differ."""
    system, start = argon("fcc", 2, 5.4, torch.float64)
    generator = torch.Generator().manual_seed(2)
    shape = (3, 2, system.n_atoms, 3)
    strain = 0.04 * torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    strain = torch.eye(3, dtype=torch.float64) + (strain if moving else torch.zeros_like(strain))
    positions = start @ strain + 0.15 * torch.randn(shape, generator=generator, dtype=torch.float64)
    drawn = [maxwell_boltzmann(system, 2, 120.0, generator, positions=frame) for frame in positions]
    cells = system.cell @ strain if moving else None
    return system, Trajectory(positions, torch.stack(drawn), None, 1.0, cells)


def pressure(depth_eV: float, system) -> Pressure:
    return Pressure(partial(bind_in_cells, Pairs(depth_eV), system))


@pytest.mark.parametrize("moving", [True, False])
def test_an_ideal_gas_has_its_kinetic_pressure(moving):
    """P = N k T / V with the kinetic temperature T of each frame over 3N momenta."""
    system, trajectory = rattled(moving)
    found = pressure(0.0, system)(system, trajectory)[..., 0]
    masses = system.masses[:, None]
    temperature = (masses * trajectory.velocities.square()).sum((-2, -1)) / (3 * system.n_atoms * KB_EV_PER_K)
    cells = system.cell.expand(3, 2, 3, 3) if trajectory.cell is None else trajectory.cell
    expected = system.n_atoms * KB_EV_PER_K * temperature / torch.linalg.det(cells) / BAR
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("moving", [True, False])
def test_pairs_have_the_stress_of_ase(moving):
    system, trajectory = rattled(moving)
    still = replace(trajectory, velocities=torch.zeros_like(trajectory.velocities))
    found = pressure(EPSILON_EV, system)(system, still)[..., 0]
    cells = system.cell.expand(3, 2, 3, 3) if trajectory.cell is None else trajectory.cell
    for frame in range(3):
        for replica in range(2):
            atoms = Atoms(
                system.atomic_numbers.numpy(),
                trajectory.positions[frame, replica].numpy(),
                cell=cells[frame, replica].numpy(),
                pbc=True,
                calculator=LennardJones(epsilon=EPSILON_EV, sigma=SIGMA_A, rc=CUTOFF_A),
            )
            expected = -np.trace(atoms.get_stress(voigt=False)) / 3 / BAR
            assert abs(expected) > 50, "nothing was tested"
            assert float(found[frame, replica]) == pytest.approx(expected, rel=1e-9)


def test_a_lost_replica_is_nan_and_changes_no_other():
    system, trajectory = rattled()
    expected = pressure(EPSILON_EV, system)(system, trajectory)
    broken = trajectory.positions.clone()
    broken[1, 0, 3] = torch.nan
    found = pressure(EPSILON_EV, system)(system, replace(trajectory, positions=broken))
    assert found[..., 0].isnan().tolist() == [[False, False], [True, False], [False, False]]
    torch.testing.assert_close(found[:, 1], expected[:, 1])


def test_what_the_pressure_lacks_is_said():
    system, trajectory = rattled()
    with pytest.raises(ValueError, match="needs a trajectory with velocities"):
        pressure(0.0, system)(system, replace(trajectory, velocities=None))
    with pytest.raises(ValueError, match="needs the volume of a periodic system"):
        pressure(0.0, system)(replace(system, cell=None), replace(trajectory, cell=None))
    with pytest.raises(ValueError, match="pressure depends on the parameters"):
        Target(pressure(0.0, system), torch.zeros(1), torch.dist)
    with pytest.raises(ValueError, match="cells do not move"):
        BulkModulus()(system, replace(trajectory, cell=None))


def test_the_bulk_modulus_is_that_of_the_volumes():
    system, trajectory = rattled()
    moments = BulkModulus()(system, trajectory).mean(0).numpy()
    volumes = torch.linalg.det(trajectory.cell).numpy()
    expected = kT_eV(120.0) * volumes.mean(0) / volumes.var(0) / GPA
    np.testing.assert_allclose(bulk_modulus_GPa(moments, 120.0), expected, rtol=1e-8)
    found = bulk_modulus(moments, np.ones(2), 120.0)
    pooled = kT_eV(120.0) * volumes.mean() / volumes.var() / GPA
    assert found["bulk_modulus_GPa"] == pytest.approx(pooled, rel=1e-8)
    assert found["bulk_modulus_GPa_low"] < pooled < found["bulk_modulus_GPa_high"]
    assert np.isnan(bulk_modulus_GPa(np.array([[2.0, 4.0]]), 120.0)).all()
    assert bulk_modulus(np.full((2, 2), np.nan), np.zeros(2), 120.0) == {"bulk_modulus_GPa": None}


def test_a_value_without_a_reference_has_an_interval_and_no_error():
    measure = Measure.of(pressure(0.0, argon("fcc", 2, 5.4)[0]), True, has_reference=False)
    values, weights = np.array([[10.0], [14.0], [12.0]]), np.ones(3)
    found = observable_errors("pressure", np.zeros(1), np.array([np.nan]), values, weights, measure)
    assert list(found) == ["pressure_mean_bar", "pressure_mean_bar_low", "pressure_mean_bar_high"]
    assert found["pressure_mean_bar"] == pytest.approx(12.0)
    assert Measure.read({"observables": {"pressure": measure.stated()}}, "pressure", np.zeros(1)) == measure
    known = replace(measure, has_reference=True)
    assert "has_reference" not in known.stated()
    with_error = observable_errors("pressure", np.zeros(1), np.array([1.0]), values, weights, known)
    assert with_error["pressure_mae"] == pytest.approx(11.0)
    assert with_error["pressure_mean_reference_bar"] == 1.0
