"""Stability criteria on trajectories with known answers, non-finite numbers, and the verdict."""

import math
from dataclasses import replace

import pytest
import torch

import mdsim.stability.criteria
from mdsim.interfaces import StabilityCriterion
from mdsim.observables.density import density_g_per_cm3
from mdsim.stability.criteria import (
    AngleDeviation,
    BondLengthDeviation,
    DensityDeviation,
    MinimumIntermolecularDistance,
    RDFDeviation,
    TemperatureExplosion,
)
from mdsim.stability.verdict import first_unstable, non_finite
from mdsim.state import System, Trajectory, kinetic_temperature_K

N_FRAMES, N_REPLICAS = 6, 3
BOX = 10.0


@pytest.fixture
def system() -> System:
    """Two hydrogen molecules in a box; the second one lies across its boundary."""
    return System(
        atomic_numbers=torch.ones(4, dtype=torch.long),
        masses=torch.ones(4, dtype=torch.float64),
        cell=BOX * torch.eye(3, dtype=torch.float64),
        bonds=torch.tensor([[0, 1], [2, 3]]),
        molecules=torch.tensor([0, 0, 1, 1]),
    )


@pytest.fixture
def trajectory() -> Trajectory:
    positions = torch.zeros(N_FRAMES, N_REPLICAS, 4, 3, dtype=torch.float64)
    positions[..., 0] = torch.tensor([2.0, 2.75, 9.75, 0.5])
    velocities = torch.full_like(positions, 0.01)
    return Trajectory(positions, velocities, torch.zeros(N_FRAMES, N_REPLICAS, dtype=torch.float64), 1.0)


BONDS = BondLengthDeviation(torch.tensor([0.75, 0.75]), tolerance_A=0.25)


class FirstCoordinate:
    """An "RDF" of two bins, each 2.5 Å wide, that is simply the x coordinates of the first two atoms."""

    name = "first_coordinate"
    bin_centers = torch.tensor([1.25, 3.75])

    def __call__(self, system, trajectory):
        return trajectory.positions[..., :2, 0]


def test_bonds_are_measured_across_the_boundary(system, trajectory):
    assert BONDS.measure(system, trajectory).abs().max() < 1e-12
    trajectory.positions[3, 1, 3, 0] += 0.3
    trajectory.positions[4, 2, 0, 0] += 0.2  # shorter, within the tolerance
    measure = BONDS.measure(system, trajectory)
    assert float(measure[3, 1]) == pytest.approx(0.3)
    assert float(measure[4, 2]) == pytest.approx(0.2)
    assert BONDS(system, trajectory).nonzero().tolist() == [[3, 1]]


def test_the_density_of_moving_cells(system, trajectory):
    """Twice the volume is half the density. A cell of the system that does not move is compared, too."""
    at_rest = density_g_per_cm3(system, system.cell)
    criterion = DensityDeviation(float(at_rest), 0.4 * float(at_rest))
    assert not criterion(system, trajectory).any()
    cells = system.cell.expand(N_FRAMES, N_REPLICAS, 3, 3).clone()
    cells[2, 1] *= 2 ** (1 / 3)
    cells[4, 2] *= 1.1 ** (1 / 3)
    moving = replace(trajectory, cell=cells)
    assert criterion(system, moving).nonzero().tolist() == [[2, 1]]
    assert float(criterion.measure(system, moving)[2, 1]) == pytest.approx(0.5 * float(at_rest))
    cells[5, 0] = torch.nan
    assert bool(criterion(system, moving)[5, 0])


def test_angles_are_compared_each_with_its_own_reference():
    bent = System.from_geometry(torch.tensor([8, 1, 1]), torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]]))
    opening_deg = torch.tensor([90.0, 134.0, 136.0, 44.0, 180.0])
    positions = torch.zeros(5, 1, 3, 3)
    positions[..., 1, 0] = 0.96
    positions[:, 0, 2, 0] = 0.96 * torch.cos(torch.deg2rad(opening_deg))
    positions[:, 0, 2, 1] = 0.96 * torch.sin(torch.deg2rad(opening_deg))
    criterion = AngleDeviation(torch.tensor([90.0]), tolerance_deg=45.0)
    trajectory = Trajectory(positions, None, None, 1.0)
    torch.testing.assert_close(criterion.measure(bent, trajectory)[:, 0], (opening_deg - 90).abs(), rtol=0, atol=1e-2)
    assert criterion(bent, trajectory)[:, 0].tolist() == [False, False, True, True, True]
    with pytest.raises(ValueError, match="1 bonded angles, but 2 references"):
        AngleDeviation(torch.tensor([90.0, 90.0]), 45.0).measure(bent, trajectory)


def test_bonds_far_outside_the_box_are_the_same(system, trajectory):
    trajectory.positions[2, 0, 1] += torch.tensor([3 * BOX, -2 * BOX, BOX])
    assert not BONDS(system, trajectory).any()


def test_intermolecular_distance_ignores_the_bond_and_sees_images(system, trajectory):
    criterion = MinimumIntermolecularDistance(tolerance_A=1.2)
    assert float(criterion.measure(system, trajectory)[0, 0]) == pytest.approx(1.5)  # not the bond of 0.75
    trajectory.positions[1, 0, :2, 0] += 6.0  # the first molecule now faces the other end of the second
    trajectory.positions[5, 2, 3, 0] += 0.4 - 5 * BOX
    assert float(criterion.measure(system, trajectory)[1, 0]) == pytest.approx(1.0)
    assert float(criterion.measure(system, trajectory)[5, 2]) == pytest.approx(1.1)
    assert criterion(system, trajectory).nonzero().tolist() == [[1, 0], [5, 2]]


def test_pieces_do_not_change_the_measure(system, trajectory, monkeypatch, generator):
    positions = trajectory.positions + torch.randn(trajectory.positions.shape, generator=generator)
    moved = replace(trajectory, positions=positions)
    criteria = (BONDS, MinimumIntermolecularDistance(1.2))
    whole = [criterion.measure(system, moved) for criterion in criteria]
    monkeypatch.setattr(mdsim.stability.criteria, "DISTANCES_AT_ONCE", 1)
    for criterion, expected in zip(criteria, whole, strict=True):
        assert torch.equal(criterion.measure(system, moved), expected)


def test_rdf_deviation_is_the_range_times_the_mean_over_bins_of_the_window_average(system, trajectory):
    x = torch.tensor([0.0, 6.0, 0.0, 0.0, 9.0, 0.0], dtype=torch.float64)
    trajectory.positions[:, 0, 0, 0] = x
    criterion = RDFDeviation(FirstCoordinate(), torch.tensor([0.0, 2.75]), tolerance_A=6.0, window_frames=3)
    measure = criterion.measure(system, trajectory)
    windows = torch.tensor([2.0, 2.0, 2.0, 2.0, 3.0, 3.0], dtype=torch.float64)  # of the first bin
    torch.testing.assert_close(measure[:, 0], 5.0 * windows / 2)
    torch.testing.assert_close(measure[:, 1], torch.full((N_FRAMES,), 5.0, dtype=torch.float64))
    assert criterion(system, trajectory)[:, 0].tolist() == [False, False, False, False, True, True]


def test_rdf_deviation_of_a_window_longer_than_the_trajectory_is_that_of_all_frames(system, trajectory):
    trajectory.positions[:, 0, 0, 0] = torch.arange(6.0)
    for window_frames in (50, None):
        criterion = RDFDeviation(FirstCoordinate(), torch.tensor([0.0, 2.75]), 1.0, window_frames)
        torch.testing.assert_close(criterion.measure(system, trajectory)[:, 0], torch.full((6,), 6.25).double())


def test_a_broken_frame_does_not_enter_the_rdf_of_others(system, trajectory):
    clean = RDFDeviation(FirstCoordinate(), torch.tensor([2.0, 2.75]), tolerance_A=1.0, window_frames=4)
    trajectory.positions[2, 0] = math.nan
    assert clean(system, trajectory).nonzero().tolist() == [[2, 0]]
    trajectory.positions[:, 1] = math.nan
    assert clean(system, trajectory)[:, 1].all()
    assert not clean(system, trajectory)[:, 2].any()


def test_temperature(system, trajectory):
    trajectory.velocities[4, 1] *= 10
    degrees_of_freedom = system.internal_degrees_of_freedom
    expected = kinetic_temperature_K(trajectory.velocities, system.masses, degrees_of_freedom)
    criterion = TemperatureExplosion(10 * float(expected[0, 0]), degrees_of_freedom)
    assert torch.equal(criterion.measure(system, trajectory), expected)
    assert criterion(system, trajectory).nonzero().tolist() == [[4, 1]]
    with pytest.raises(ValueError, match="needs velocities"):
        criterion(system, replace(trajectory, velocities=None))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["positions", "velocities", "energy"])
def test_every_criterion_counts_non_finite_numbers(system, trajectory, field, bad):
    getattr(trajectory, field)[2, 1] = bad
    criteria = [
        BONDS,
        MinimumIntermolecularDistance(1.2),
        RDFDeviation(FirstCoordinate(), torch.tensor([2.0, 2.75]), tolerance_A=1.0, window_frames=2),
        TemperatureExplosion(1e6, 6),
    ]
    assert non_finite(trajectory).nonzero().tolist() == [[2, 1]]
    for criterion in criteria:
        assert isinstance(criterion, StabilityCriterion)
        assert criterion(system, trajectory).nonzero().tolist() == [[2, 1]]
    verdict = first_unstable(criteria, system, trajectory)
    assert verdict.first_frame.tolist() == [N_FRAMES, 2, N_FRAMES]
    assert verdict.reason == (None, "non_finite", None)


def test_the_verdict_names_the_first_frame_and_its_cause(system, trajectory):
    trajectory.positions[4:, 0, 1, 0] += 0.5  # bond breaks, and the molecules stay apart
    trajectory.positions[1, 1, :2, 0] += 6.0  # molecules touch, for one frame only
    trajectory.positions[3:, 1] = math.nan
    criteria = [MinimumIntermolecularDistance(1.2), BONDS]
    verdict = first_unstable(criteria, system, trajectory)
    assert verdict.first_frame.tolist() == [4, 1, N_FRAMES]
    assert verdict.unstable.tolist() == [True, True, False]
    assert verdict.reason == ("bond_length_deviation", "minimum_intermolecular_distance", None)
    assert verdict.fraction_unstable == pytest.approx(2 / 3)


def test_several_causes_in_one_frame_keep_the_order_of_the_criteria(system, trajectory):
    trajectory.positions[2, 0, 1, 0] = 9.6
    both = [MinimumIntermolecularDistance(1.2), BONDS]
    assert first_unstable(both, system, trajectory).reason[0] == "minimum_intermolecular_distance"
    assert first_unstable(both[::-1], system, trajectory).reason[0] == "bond_length_deviation"


def test_no_criterion_at_all_still_sees_non_finite_numbers(system, trajectory):
    trajectory.positions[5, 2, 0, 0] = math.nan
    assert first_unstable([], system, trajectory).first_frame.tolist() == [6, 6, 5]


def test_refusals(system, trajectory):
    lonely = replace(system, bonds=system.bonds[:0], molecules=torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="the system has none"):
        BONDS(lonely, trajectory)
    with pytest.raises(ValueError, match="2 bonds, but 1 reference"):
        BondLengthDeviation(torch.ones(1), 0.5)(system, trajectory)
    with pytest.raises(ValueError, match="at least two molecules"):
        MinimumIntermolecularDistance(1.2)(lonely, trajectory)
    with pytest.raises(ValueError, match=r"found \(6, 3, 2\)"):
        RDFDeviation(FirstCoordinate(), torch.ones(3), 1.0, 2)(system, trajectory)
    with pytest.raises(ValueError, match="window_frames"):
        RDFDeviation(FirstCoordinate(), torch.ones(2), 1.0, 0)
