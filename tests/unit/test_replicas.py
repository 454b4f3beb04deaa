"""Simulations in one call: equal to the steps by hand, statistics of stable frames, and errors."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import tiny
import torch
from ase import Atoms
from ase.units import kB

import mdsim
from mdsim.dynamics.simulate import simulate as run_steps
from mdsim.dynamics.stretch import initial_conditions

LANGEVIN = mdsim.LangevinBAOAB(timestep_fs=0.5, temperature_K=300.0, friction_per_ps=50.0)
MOLECULE = Atoms(tiny.NUMBERS.numpy(), tiny.GEOMETRY.numpy())


def springs_run(start=MOLECULE, integrator=LANGEVIN, **changes) -> mdsim.Simulation:
    arguments = {"length_ps": 0.05, "n_replicas": 4, "frame_interval_fs": 5.0} | changes
    return mdsim.simulate(tiny.Springs(), start, integrator, **arguments)


def test_it_is_what_the_pieces_do_by_hand():
    system, field = tiny.water(), tiny.Springs()
    generator = torch.Generator().manual_seed(3)
    positions, velocities = initial_conditions(system, tiny.GEOMETRY[None], 4, 300.0, generator)
    potential = field.bind(system)
    state = LANGEVIN.init(system, potential, positions, velocities)
    state, trajectory = run_steps(system, potential, LANGEVIN, state, 100, 10, generator)
    simulation = springs_run(seed=3)
    torch.testing.assert_close(simulation.trajectory.positions, trajectory.positions, rtol=0, atol=1e-12)
    torch.testing.assert_close(simulation.state.velocities, state.velocities, rtol=0, atol=1e-12)
    assert simulation.trajectory.frame_interval_fs == 5.0 and simulation.trajectory.n_frames == 10


def test_the_seed_says_everything():
    first, again, other = (springs_run(seed=seed).trajectory.positions for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_replicas_have_the_temperature_of_the_bath():
    """Equipartition: <U> = (3N - 6) kT/2 of a stiff molecule, whose bonds are nearly harmonic."""
    simulation = springs_run(length_ps=0.6, n_replicas=128, seed=5)
    energy = simulation.trajectory.energy[40:].double()
    expected = 3 * kB * 300 / 2
    error = float(energy.mean(0).std() / 128**0.5)
    assert abs(float(energy.mean()) - expected) < 4 * error + 0.01 * expected


@pytest.fixture
def data(tmp_path) -> mdsim.Dataset:
    tiny.write_data(tmp_path)
    return mdsim.load_dataset(tmp_path, "toy", "water", "20")


def test_a_data_set_gives_system_and_held_out_starts(data):
    simulation = springs_run(data, n_replicas=len(data.test), length_ps=1e-3, frame_interval_fs=0.5)
    assert torch.equal(simulation.system.bonds, data.system().bonds)
    distance = (simulation.trajectory.positions[0][:, None] - data.test.positions).abs().amax((-1, -2))
    assert (distance.amin(-1) < 0.05).all()  # each replica has hardly left its own test frame
    assert sorted(distance.argmin(-1).tolist()) == list(range(len(data.test)))


def test_structures_may_come_from_anywhere(tmp_path, data):
    path = tmp_path / "water.pt"
    mdsim.save_force_field(tiny.schnet(), path, {"seed": 0})
    ase.io.write(tmp_path / "water.xyz", [MOLECULE, MOLECULE])
    short = {"length_ps": 0.002, "frame_interval_fs": 1.0, "n_replicas": 2, "fast": False}
    from_file = mdsim.simulate(path, ase.io.read(tmp_path / "water.xyz", index=":"), LANGEVIN, **short)
    given = tiny.GEOMETRY.float().repeat(2, 1, 1)
    from_system = mdsim.simulate(tiny.schnet(), tiny.water(), LANGEVIN, positions=given, **short)
    assert from_file.trajectory.positions.dtype == torch.float32
    torch.testing.assert_close(from_file.trajectory.positions, from_system.trajectory.positions, rtol=0, atol=1e-5)
    moved = mdsim.simulate(tiny.schnet(), data, LANGEVIN, positions=given, **short)
    torch.testing.assert_close(moved.trajectory.positions, from_system.trajectory.positions, rtol=0, atol=1e-5)


class Frames:
    """An observable with the values it is given."""

    name = "given"

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __call__(self, system, trajectory) -> torch.Tensor:
        return self.values


def test_broken_replicas_leave_the_averages_alone():
    from mdsim.stability.verdict import Verdict

    whole = springs_run(length_ps=0.02)  # 4 frames of 4 replicas
    first = torch.tensor([4, 0, 2, 4])
    verdict = Verdict(first, first < 4, (None, "bond", "bond", None))
    broken = mdsim.Simulation(whole.system, whole.trajectory, whole.state, verdict)
    assert broken.stable_ps.tolist() == pytest.approx([0.02, 0.0, 0.01, 0.02])
    assert broken.lifetimes.broken.tolist() == [False, True, True, False]
    assert broken.stable_frames.sum(0).tolist() == first.tolist()
    values = torch.full((4, 4, 1), torch.nan)
    values[:, 0], values[:2, 2], values[:, 3] = 1.0, 4.0, 1.0
    assert float(broken.mean(Frames(values))) == pytest.approx((4 + 2 * 4 + 4) / 10)
    lagged = torch.tensor([[2.0], [torch.nan], [torch.nan], [6.0]])
    assert float(broken.mean(Frames(lagged))) == 4.0
    none = mdsim.Simulation(whole.system, whole.trajectory, whole.state, Verdict(0 * first, first < 9, ("bond",) * 4))
    with pytest.raises(ValueError, match="given: no frame of this simulation is stable"):
        none.mean(Frames(values))


def test_criteria_judge_every_frame(data):
    criterion = mdsim.BondLengthDeviation(data.reference_bond_lengths(), tolerance_A=1e-4)
    simulation = springs_run(data, criteria=[criterion])
    assert simulation.verdict.reason == ("bond_length_deviation",) * 4
    assert (simulation.lifetimes.times < 0.05).all()
    assert mdsim.kaplan_meier(simulation.lifetimes).survival[-1] == 0
    assert mdsim.restricted_mean(simulation.lifetimes, 0.05).value == pytest.approx(simulation.lifetimes.times.mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_interval_fs": 0.7}, "frame_interval_fs must be a multiple of the time step, but they are 0.7 and 0.5"),
        ({"length_ps": 0.0123}, "length_ps, in fs, must be a multiple of frame_interval_fs"),
        ({"length_ps": 0.0}, "length_ps"),
        ({"n_replicas": 0}, "n_replicas must be at least 1"),
        ({"integrator": mdsim.VelocityVerlet(0.5)}, "VelocityVerlet has no temperature"),
        ({"start": []}, "list of Atoms is empty"),
        ({"start": [MOLECULE, Atoms("H2O", np.eye(3))]}, "structure 1 has other elements"),
        ({"start": tiny.water()}, "a System has no structure to start from"),
        ({"start": Atoms("OH2", np.eye(3), cell=[9, 9, 9], pbc=[True, False, True])}, "open along b"),
    ],
)
def test_mistakes_say_what_to_do(changes, message):
    with pytest.raises(ValueError, match=message):
        springs_run(**changes)


def test_energy_is_conserved_at_constant_energy():
    integrator = mdsim.VelocityVerlet(0.1)
    simulation = springs_run(integrator=integrator, temperature_K=300.0, frame_interval_fs=1.0)
    start = springs_run(integrator=integrator, temperature_K=300.0, frame_interval_fs=1.0, length_ps=1e-3)
    before, after = (integrator.conserved(one.system, one.state) for one in (start, simulation))
    torch.testing.assert_close(before, after, rtol=2e-3, atol=0)  # fluctuates by (ω Δt)²/8


def test_a_saved_force_field_is_the_same(tmp_path):
    field = tiny.schnet()
    mdsim.save_force_field(field, tmp_path / "a.pt")
    again = mdsim.load_force_field(tmp_path / "a.pt")
    assert all(map(torch.equal, field.state_dict().values(), again.state_dict().values()))
    with pytest.raises(ValueError, match="Springs is neither"):
        mdsim.save_force_field(tiny.Springs(), tmp_path / "b.pt")


def test_results_are_read_from_any_kind_of_path():
    with pytest.raises(ValueError, match="at least one evaluation"):
        mdsim.read_results()
    with pytest.raises(mdsim.ConfigError, match="run the evaluation first"):
        mdsim.read_results("no/such/folder")
