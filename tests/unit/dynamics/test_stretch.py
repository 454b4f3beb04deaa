from dataclasses import replace

import pytest
import torch
from tiny import GEOMETRY, PAIRS, Springs, frames, water

from mdsim.dynamics.restraint import BondedRestraint
from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.geometry import pair_distances
from mdsim.integrators import LangevinBAOAB, NoseHooverChain, VelocityVerlet
from mdsim.stability.criteria import BondLengthDeviation
from mdsim.state import kinetic_temperature_K
from mdsim.units import kT_eV


@pytest.fixture
def stretch() -> Stretch:
    system = water()
    lengths = torch.linalg.vector_norm(GEOMETRY[1:] - GEOMETRY[0], dim=-1)
    return Stretch(system, VelocityVerlet(0.5), 12, 4, (BondLengthDeviation(lengths, 0.1),))


def _begin(stretch: Stretch, n_replicas: int = 5):
    generator = torch.Generator().manual_seed(1)
    start = initial_conditions(stretch.system, frames(8).positions, n_replicas, 300.0, generator)
    return stretch.begin(Springs(), *start)


def test_frames_end_where_the_state_does(stretch):
    outcome = stretch.run(Springs(), _begin(stretch), torch.Generator())
    assert outcome.trajectory.n_frames == 3
    assert outcome.trajectory.frame_interval_fs == 2.0
    assert torch.equal(outcome.trajectory.positions[-1], outcome.state.positions)
    assert stretch.length_ps == pytest.approx(0.006)


def test_denser_frames_are_of_the_same_dynamics(stretch):
    state = _begin(stretch)
    plain = stretch.run(Springs(), state, torch.Generator())
    dense = stretch.run(Springs(), state, torch.Generator(), keep_every=2)
    assert torch.equal(dense.trajectory.positions[1::2], plain.trajectory.positions)


def test_a_stretch_is_a_function_of_its_arguments(stretch):
    state, model = _begin(stretch), Springs()
    first, second = (stretch.run(model, state, torch.Generator()) for _ in range(2))
    assert torch.equal(first.trajectory.positions, second.trajectory.positions)
    assert model.stiffness.grad is None


def test_a_prior_holds_what_the_force_field_drives_apart(stretch):
    explosive = Springs(torch.full((3,), -1.0, dtype=torch.float64))
    long = replace(stretch, n_steps=200)
    held = replace(long, prior=BondedRestraint.from_frames(water(), frames(50).positions, kT_eV(300.0), 0.0))
    state = _begin(stretch)

    def largest_change(chosen: Stretch) -> float:
        trajectory = chosen.run(explosive, state, torch.Generator()).trajectory
        return float((pair_distances(trajectory.positions, PAIRS) - pair_distances(GEOMETRY, PAIRS)).abs().max())

    assert largest_change(long) > 1.0
    assert largest_change(held) < 0.5


def test_judging_a_state_sees_what_a_frame_shows(stretch):
    state = _begin(stretch, 3)
    positions = GEOMETRY.repeat(3, 1, 1)
    positions[1, 1, 0] += 0.2  # twice the tolerance
    positions[2, 2, 0] = torch.nan
    state = stretch.begin(Springs(), positions, state.velocities)
    verdict = stretch.judge(state)
    assert verdict.unstable.tolist() == [False, True, True]
    assert verdict.reason == (None, "bond_length_deviation", "non_finite")


def test_each_frame_is_used_once_while_they_last(generator):
    system, data = water(), frames(6)
    positions, velocities = initial_conditions(system, data.positions, 6, 300.0, generator)
    used = [int((data.positions.double() == p).all(-1).all(-1).nonzero()) for p in positions]
    assert sorted(used) == list(range(6))
    assert velocities.shape == positions.shape


def test_more_replicas_than_frames_use_each_equally_often(generator):
    system, data = water(), frames(4)
    positions, _ = initial_conditions(system, data.positions, 12, 300.0, generator)
    counts = [(positions == p.double()).all(-1).all(-1).sum().item() for p in data.positions]
    assert counts == [3, 3, 3, 3]


def test_initial_velocities_have_the_temperature():
    system = water()
    n = 4000
    _, velocities = initial_conditions(system, frames(10).positions, n, 300.0, torch.Generator().manual_seed(2))
    free = system.internal_degrees_of_freedom
    temperature = kinetic_temperature_K(velocities, system.masses, free)
    standard_error = 300.0 * (2 / (free * n)) ** 0.5
    assert abs(temperature.mean() - 300.0) < 4 * standard_error


def test_initial_conditions_depend_on_the_generator_alone():
    system, data = water(), frames(6)
    first, second, other = (
        initial_conditions(system, data.positions, 4, 300.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


def test_replicas_keep_their_temperatures(stretch):
    kelvin = torch.tensor([200.0, 300.0, 500.0, 500.0], dtype=torch.float64)
    start = initial_conditions(stretch.system, frames(8).positions, 4, kelvin, torch.Generator().manual_seed(1))
    for integrator in (stretch.integrator, LangevinBAOAB(0.5, 300.0, 10.0), NoseHooverChain(0.5, 300.0, 10.0)):
        own = replace(stretch, integrator=integrator)
        state = own.run(Springs(), own.begin(Springs(), *start, kT_eV(kelvin)), torch.Generator()).state
        assert torch.equal(state.kT, kT_eV(kelvin))


def test_an_integrator_that_drops_the_temperatures_is_refused(stretch):
    class Forgetful(VelocityVerlet):
        def step(self, system, potential, state, noise=None):
            return replace(super().step(system, potential, state), kT=None)

    own = replace(stretch, integrator=Forgetful(0.5))
    start = initial_conditions(stretch.system, frames(8).positions, 2, 300.0, torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match="Forgetful: its step drops the temperature"):
        own.run(Springs(), own.begin(Springs(), *start, torch.full((2,), kT_eV(300.0))), torch.Generator())
