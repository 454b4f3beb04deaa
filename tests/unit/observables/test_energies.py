"""Distribution of the potential energy."""

import pytest
import torch

from mdsim.losses import sum_squared_error
from mdsim.observables import EnergyDistribution, EnergyPerMolecule, EnthalpyOfVaporization
from mdsim.state import System, Trajectory
from mdsim.training.terms import Target

OBSERVABLE = EnergyDistribution(center_eV=-3.0, half_range_eV=1.0, bin_width_eV=0.25)


def trajectory_of(energy: torch.Tensor) -> Trajectory:
    return Trajectory(torch.zeros(*energy.shape, 2, 3, dtype=energy.dtype), None, energy, 1.0)


@pytest.mark.parametrize(("energy", "filled"), [(-3.9, 0), (-3.01, 3), (-2.99, 4), (-2.0, 7), (50.0, 7), (-90.0, 0)])
def test_one_energy_fills_one_bin(aspirin, energy, filled):
    """Energies beyond the range are in the first and last bin."""
    values = OBSERVABLE(aspirin, trajectory_of(torch.tensor([[energy]])))[0, 0]
    assert values.nonzero().flatten().tolist() == [filled]
    assert values.sum() * 0.25 == pytest.approx(1.0)


def test_normal_energies(aspirin, generator):
    energy = -3.0 + 0.3 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    mean = OBSERVABLE(aspirin, trajectory_of(energy)).mean((0, 1))
    edges = torch.distributions.Normal(0.0, 0.3).cdf(torch.arange(-1.0, 1.01, 0.25).double())
    expected = edges.diff()
    expected[0], expected[-1] = edges[1], 1 - edges[-2]
    error = (expected * (1 - expected) / len(energy)).sqrt()
    assert ((0.25 * mean - expected).abs() < 4 * error + 1e-12).all()


def test_energies_that_are_not_finite(aspirin):
    energy = torch.tensor([[0.0, torch.nan], [torch.inf, -3.0]])
    assert OBSERVABLE(aspirin, trajectory_of(energy)).isnan().all(-1).tolist() == [[False, True], [True, False]]


def test_a_trajectory_without_energies(aspirin):
    with pytest.raises(ValueError, match="needs a trajectory with energies"):
        OBSERVABLE(aspirin, Trajectory(torch.zeros(2, 1, 21, 3), None, None, 1.0))


def test_it_is_no_target():
    with pytest.raises(ValueError, match="potential_energy depends on the parameters of the force field"):
        Target(OBSERVABLE, OBSERVABLE.bin_centers, sum_squared_error)


def test_energies_per_molecule_in_kilojoule_per_mole():
    """Two molecules at -0.5 eV in all, with 0.1 eV each in the gas: 96.4853 kJ/mol per eV."""
    system = System.from_bonds(torch.tensor([8, 8]), torch.empty(0, 2).long(), dtype=torch.float64)
    trajectory = Trajectory(
        torch.zeros(2, 1, 2, 3).double(), None, torch.tensor([[-2.5], [torch.nan]]).double(), frame_interval_fs=1.0
    )
    energy = EnergyPerMolecule(2.0)(system, trajectory)
    assert float(energy[0, 0, 0]) == pytest.approx(-0.25 * 96.48533)
    assert energy[1].isnan().all()
    enthalpy = EnthalpyOfVaporization(2.0, 0.1, 300.0)(system, trajectory)
    assert float(enthalpy[0, 0, 0]) == pytest.approx(0.35 * 96.48533 + 8.314463e-3 * 300)
