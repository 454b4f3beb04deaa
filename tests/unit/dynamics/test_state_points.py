"""Replicas at several state points: how they are divided, and that nothing moves one to another."""

from dataclasses import replace

import pytest
import torch
from smooth_lennard_jones import SmoothLennardJones
from tiny import GEOMETRY, Springs, frames, water

from mdsim.dynamics.state_points import Conditions, StatePoint, begin, begin_again, by_state_point
from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.integrators import LangevinBAOAB, StochasticCellRescaling
from mdsim.stability.criteria import BondLengthDeviation
from mdsim.state import MDState, System
from mdsim.training.chains import move_chains
from mdsim.training.explore import Replicas, explore, rewind
from mdsim.training.restarts import Restarts
from mdsim.units import BAR, kT_eV

KELVIN = (200.0, 300.0, 500.0)
LENGTHS = torch.linalg.vector_norm(GEOMETRY[1:] - GEOMETRY[0], dim=-1)


def points() -> list[StatePoint]:
    """Each with structures that are shifted as a whole, by which they are known."""
    return [StatePoint(Conditions(kelvin), frames(6).positions.double() + 10.0 * i) for i, kelvin in enumerate(KELVIN)]


@pytest.fixture
def stretch() -> Stretch:
    return Stretch(water(), LangevinBAOAB(0.5, 300.0, 10.0), 8, 4, (BondLengthDeviation(LENGTHS, 0.08),))


def place(state) -> list[int]:
    """The number of the state point whose structures a replica is near."""
    return (state.positions.mean((1, 2)) / 10.0).round().int().tolist()


def expected_kT(*numbers: int) -> torch.Tensor:
    return kT_eV(torch.tensor(KELVIN, dtype=torch.float64))[list(numbers)]


def test_replicas_are_divided_evenly(stretch):
    state = begin(points(), 6, Springs(), stretch, torch.Generator().manual_seed(0))
    assert place(state) == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(state.kT, expected_kT(0, 0, 1, 1, 2, 2), rtol=0, atol=0)


def test_a_single_state_point_has_the_draws_of_initial_conditions(stretch):
    only = points()[:1]
    state = begin(only, 4, Springs(), stretch, torch.Generator().manual_seed(0))
    drawn = initial_conditions(water(), only[0].structures, 4, 200.0, torch.Generator().manual_seed(0))
    assert state.kT is None
    assert torch.equal(state.positions, drawn[0]) and torch.equal(state.velocities, drawn[1])
    assert begin_again(only, state, Springs(), stretch, torch.Generator()).kT is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replicas_begin_again_at_their_state_points(stretch, dtype):
    state = begin(points(), 6, Springs(), stretch, torch.Generator().manual_seed(0)).to(dtype=dtype)
    some = state[torch.tensor([5, 1, 2])]
    again = begin_again(points(), some, Springs(), stretch, torch.Generator().manual_seed(1))
    assert place(again) == [2, 0, 1]
    assert torch.equal(again.kT.to(dtype), some.kT)
    assert not torch.equal(again.positions.to(dtype), some.positions)


def test_a_state_point_that_is_not_listed_is_refused(stretch):
    state = begin(points(), 6, Springs(), stretch, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="replicas are at 200K, 300K, 500K, but the state points are 200K, 300K"):
        begin_again(points()[:2], state, Springs(), stretch, torch.Generator())


def test_exploring_and_restarting_keep_state_points(stretch):
    """Moved, parked, rewound to earlier states, restarted with a cycle, and as chains: for many epochs."""
    generator, restarts = torch.Generator().manual_seed(2), Restarts(points())
    chains = replicas = Replicas.at(begin(points(), 12, Springs(), stretch, generator))
    home, n_parked, n_rewound, n_restarted = place(replicas.state), 0, 0, 0
    for _ in range(12):
        replicas, rewound = rewind(replicas, 0.5, generator)
        replicas, _ = explore(replicas, Springs(), stretch, generator)
        n_parked, n_rewound = max(n_parked, int(replicas.parked.sum())), n_rewound + rewound
        chains, outcome = move_chains(chains, Springs(), stretch, restarts, generator)
        n_restarted += int(outcome.verdict.unstable.sum())
        if replicas.fraction_parked > 0.5:
            replicas = restarts.of_some(replicas.released(), 0.5, Springs(), stretch, generator)
        saved = Replicas.from_state_dict(replicas.state_dict())
        for state in (replicas.state, chains.state, outcome.state, saved.state, *saved.past):
            assert place(state) == home
            assert torch.equal(state.kT, expected_kT(*home))
    assert min(n_parked, n_rewound, n_restarted) > 3


def test_numbers_by_state_point(stretch):
    state = begin(points(), 6, Springs(), stretch, torch.Generator().manual_seed(0)).to(dtype=torch.float32)
    values = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.bool)
    assert by_state_point("unstable", state, values) == {
        "unstable_200K": 0.5,
        "unstable_300K": 1.0,
        "unstable_500K": 0.0,
    }
    some = MDState(**state.tensors(), pressure=BAR * torch.tensor([1.0, 1.0, 1.0, 5000.0, -20.0, -20.0]))
    assert by_state_point("unstable", some, values) == {
        "unstable_200K_1bar": 0.5,
        "unstable_300K_1bar": 1.0,
        "unstable_300K_5000bar": 1.0,
        "unstable_500K_-20bar": 0.0,
    }
    assert Conditions(298.15).label == "298.15K"
    assert Conditions(300.0).among(state.kT, None).tolist() == [False, False, True, True, False, False]


def gas() -> tuple[list[StatePoint], Stretch]:
    """Two pressures at one temperature. Replicas of the second begin in a cell of their own."""
    cell = 9.0 * torch.eye(3, dtype=torch.float64)
    system = System.from_bonds(torch.tensor([18, 18]), torch.zeros(0, 2, dtype=torch.long), cell, dtype=torch.float64)
    some = torch.tensor([[[0.0, 0.0, 0.0], [3.8, 0.0, 0.0]]], dtype=torch.float64)
    own = (None, 0.8 * cell)
    points = [StatePoint(Conditions(300.0, bar), some, of) for bar, of in zip((1.0, 5000.0), own, strict=True)]
    barostat = StochasticCellRescaling(LangevinBAOAB(0.5, 300.0, 10.0), 1.0, 100.0)
    return points, Stretch(system, barostat, 8, 4, ())


def test_replicas_begin_at_the_pressures_and_in_the_cells_of_their_state_points():
    points, stretch = gas()
    field, generator = SmoothLennardJones(), torch.Generator().manual_seed(3)
    state = begin(points, 6, field, stretch, generator)
    torch.testing.assert_close(state.pressure / BAR, torch.tensor([1.0, 5000.0]).double().repeat_interleave(3))
    edges = state.cell[:, 0, 0].tolist()
    assert edges == [9.0, 9.0, 9.0, 7.2, 7.2, 7.2]
    moved = stretch.run(field, state, generator).state
    again = begin_again(points, moved[torch.tensor([4, 0])], field, stretch, generator)
    assert again.cell[:, 0, 0].tolist() == [7.2, 9.0]
    assert torch.equal(again.pressure, moved.pressure[[4, 0]])
    with pytest.raises(ValueError, match="replicas are at 300K_1bar, 300K_5000bar, but the state points are 300K_1bar"):
        begin_again(points[:1] * 2, moved, field, stretch, generator)


def test_a_single_state_point_begins_in_its_cell():
    points, stretch = gas()
    state = begin(points[1:], 2, SmoothLennardJones(), stretch, torch.Generator().manual_seed(3))
    assert state.pressure is None and state.kT is None
    assert state.cell[:, 1, 1].tolist() == [7.2, 7.2]


def test_pressures_need_a_barostat():
    points, stretch = gas()
    fixed = replace(stretch, integrator=LangevinBAOAB(0.5, 300.0, 10.0))
    with pytest.raises(ValueError, match="LangevinBAOAB is at constant volume"):
        begin(points, 4, SmoothLennardJones(), fixed, torch.Generator())
