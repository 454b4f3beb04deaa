from dataclasses import replace

import pytest
import torch
from tiny import GEOMETRY, Springs, same_bits, water

from mdsim.dynamics.stretch import Stretch
from mdsim.geometry import pair_distances
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.nve import VelocityVerlet
from mdsim.stability.criteria import BondLengthDeviation
from mdsim.state import MDState
from mdsim.training.explore import REMEMBERED_STRETCHES, Replicas, explore, rewind

TOLERANCE_A = 0.15
BONDS = torch.tensor([[0, 1], [0, 2]])


def _stretch(integrator=None) -> Stretch:
    lengths = pair_distances(GEOMETRY, BONDS)
    return Stretch(water(), integrator or VelocityVerlet(0.5), 20, 2, (BondLengthDeviation(lengths, TOLERANCE_A),))


def _start(stretch: Stretch, speeds: list[float]) -> MDState:
    """One replica a speed, with which the first hydrogen leaves along its bond."""
    velocities = torch.zeros(len(speeds), 3, 3, dtype=torch.float64)
    velocities[:, 1, 0] = torch.tensor(speeds, dtype=torch.float64)
    return stretch.begin(Springs(), GEOMETRY.repeat(len(speeds), 1, 1), velocities)


@pytest.fixture
def nve() -> Stretch:
    return _stretch()


SPEEDS = [0.05, 2.0, 0.1, 1.2]  # the second and the fourth break


def test_a_broken_replica_parks_where_its_stretch_began(nve):
    start = _start(nve, SPEEDS)
    replicas, outcome = explore(Replicas.at(start), Springs(), nve, torch.Generator())
    assert replicas.parked.tolist() == [False, True, False, True]
    assert replicas.fraction_parked == 0.5
    for name, value in replicas.state.tensors().items():
        assert torch.equal(value[replicas.parked], start.tensors()[name][replicas.parked]), name
        moved = outcome.state.tensors()[name]
        assert torch.equal(value[~replicas.parked], moved[~replicas.parked]), name


def test_survivors_go_on_and_parked_ones_wait(nve):
    once, _ = explore(Replicas.at(_start(nve, SPEEDS)), Springs(), nve, torch.Generator())
    twice, outcome = explore(once, Springs(), nve, torch.Generator())
    assert outcome.state.n_replicas == 2
    assert torch.equal(twice.state.positions[once.parked], once.state.positions[once.parked])
    alone = replace(nve, n_steps=40).run(Springs(), _start(nve, SPEEDS), torch.Generator())
    survivors = ~twice.parked
    assert survivors.tolist() == [True, False, True, False]
    torch.testing.assert_close(twice.state.positions[survivors], alone.state.positions[survivors], rtol=0, atol=1e-12)


def test_time_is_credited_up_to_the_last_stable_frame(nve):
    replicas, outcome = explore(Replicas.at(_start(nve, SPEEDS)), Springs(), nve, torch.Generator())
    deviation = (pair_distances(outcome.trajectory.positions, BONDS) - pair_distances(GEOMETRY, BONDS)).abs().amax(-1)
    expected = []
    for column in deviation.T.tolist():
        stable = next((i for i, d in enumerate(column) if d > TOLERANCE_A), len(column))
        expected.append(stable * 2 * 0.5 / 1000)
    assert replicas.stable_ps.tolist() == pytest.approx(expected)
    assert 0 < replicas.stable_ps[3] < 0.01
    assert replicas.stable_ps[1] < replicas.stable_ps[3]


def test_released_replicas_start_counting_anew(nve):
    replicas, _ = explore(Replicas.at(_start(nve, SPEEDS)), Springs(), nve, torch.Generator())
    released = replicas.released()
    assert not released.parked.any()
    assert not released.stable_ps.any()
    assert torch.equal(released.state.positions, replicas.state.positions)


@pytest.mark.parametrize("integrator", [VelocityVerlet(0.5), LangevinBAOAB(0.5, 300.0, 5.0)])
def test_a_replica_that_is_nan_from_the_start_touches_no_other(integrator):
    stretch = _stretch(integrator)
    start = _start(stretch, [0.05, 0.08, 0.1])
    positions = start.positions.clone()
    positions[1] = torch.nan
    spoiled = stretch.begin(Springs(), positions, start.velocities)
    results = []
    for state in (start, spoiled):
        generator = torch.Generator().manual_seed(3)
        replicas = Replicas.at(state)
        outcomes = []
        for _ in range(2):
            replicas, outcome = explore(replicas, Springs(), stretch, generator)
            outcomes.append(outcome)
        results.append((replicas, outcomes))
    (clean, _), (dirty, outcomes) = results
    assert dirty.parked.tolist() == [False, True, False]
    assert outcomes[0].verdict.reason[1] == "non_finite"
    assert dirty.stable_ps[1] == 0
    others = torch.tensor([0, 2])
    assert torch.isfinite(dirty.state.positions[others]).all()
    if isinstance(integrator, VelocityVerlet):  # with noise, a parked replica changes who gets which draw
        assert torch.equal(dirty.state.positions[others], clean.state.positions[others])
        assert torch.equal(dirty.stable_ps[others], clean.stable_ps[others])


def _explored(stretch: Stretch, times: int) -> Replicas:
    replicas = Replicas.at(_start(stretch, SPEEDS))
    for _ in range(times):
        replicas, _ = explore(replicas, Springs(), stretch, torch.Generator())
    return replicas


def test_rewinding_reaches_remembered_states_of_moving_replicas_only(nve, generator):
    replicas = _explored(nve, 3)
    seen = set()
    for _ in range(20):
        back, count = rewind(replicas, 1.0, generator)
        assert count == 2
        assert torch.equal(back.state.positions[replicas.parked], replicas.state.positions[replicas.parked])
        for i in (0, 2):
            here = back.state[slice(i, i + 1)].tensors()
            ages = [age for age, past in enumerate(replicas.past) if same_bits(past[slice(i, i + 1)].tensors(), here)]
            assert len(ages) == 1, "a rewound replica is completely at one of its earlier starts"
            seen.add((i, ages[0]))
    assert len(seen) == 6, "every remembered start is reached"


def test_the_probability_is_that_of_each_replica(nve):
    replicas = Replicas.at(_start(nve, [0.05] * 400))
    replicas = replace(replicas, past=(replicas.state,))
    _, count = rewind(replicas, 0.3, torch.Generator().manual_seed(1))
    assert abs(count - 120) < 4 * (400 * 0.3 * 0.7) ** 0.5


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_nothing_is_rewound_without_chance_or_past(nve, generator, probability):
    replicas = _explored(nve, 2) if probability == 0 else Replicas.at(_start(nve, SPEEDS))
    back, count = rewind(replicas, probability, generator)
    assert count == 0
    assert back.state is replicas.state


def test_drawing_does_not_depend_on_the_outcome(nve):
    """A resumed run must find the generator at the same place, whoever was rewound."""
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    rewind(_explored(nve, 1), 0.0, generators[0])
    rewind(_explored(nve, 1), 1.0, generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_only_recent_starts_are_remembered(nve):
    short = replace(nve, n_steps=2)
    replicas = Replicas.at(_start(short, [0.01]))
    starts = []
    for _ in range(REMEMBERED_STRETCHES + 3):
        starts.append(replicas.state.positions)
        replicas, _ = explore(replicas, Springs(), short, torch.Generator())
    assert len(replicas.past) == REMEMBERED_STRETCHES
    assert torch.equal(replicas.past[0].positions, starts[3])
    assert torch.equal(replicas.past[-1].positions, starts[-1])


def test_state_dict_round_trip(nve, tmp_path):
    replicas = _explored(nve, 2)
    torch.save(replicas.state_dict(), tmp_path / "replicas.pt")
    restored = Replicas.from_state_dict(torch.load(tmp_path / "replicas.pt", weights_only=True))
    assert same_bits(restored.state_dict(), replicas.state_dict())
    once, again = (explore(r, Springs(), nve, torch.Generator())[0] for r in (replicas, restored))
    assert same_bits(once.state_dict(), again.state_dict())
