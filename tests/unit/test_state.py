"""Systems, states and trajectories."""

import ase.data
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from mdsim.state import MDState, System, Trajectory, kinetic_energy_eV, kinetic_temperature_K
from mdsim.units import KB_EV_PER_K


def _state(n_replicas: int, n_atoms: int = 3, start: float = 0.0) -> MDState:
    values = torch.arange(n_replicas * n_atoms * 3, dtype=torch.float64).reshape(n_replicas, n_atoms, 3) + start
    return MDState(values, values + 0.1, values + 0.2, values[:, 0, 0], thermostat=values[:, 0, :2])


def _trajectory(n_frames: int, n_replicas: int = 2, start: float = 0.0) -> Trajectory:
    values = torch.arange(n_frames * n_replicas * 6, dtype=torch.float64).reshape(n_frames, n_replicas, 2, 3) + start
    return Trajectory(values, values + 0.1, values[..., 0, 0], frame_interval_fs=2.0)


def test_aspirin_is_one_molecule_of_21_bonds(aspirin):
    assert aspirin.n_atoms == 21
    assert aspirin.bonds.shape == (21, 2)  # 21 atoms and one ring
    assert (aspirin.bonds[:, 0] < aspirin.bonds[:, 1]).all()
    assert aspirin.molecules.unique().tolist() == [0]
    assert aspirin.masses.sum().item() == pytest.approx(180.159, abs=1e-3)
    assert aspirin.internal_degrees_of_freedom == 57


def test_bonds_of_water_across_a_periodic_boundary():
    atoms = molecule("H2O")
    positions = np.concatenate([atoms.positions + 0.1, atoms.positions + 4.0])
    cell = 8.0 * np.eye(3)
    numbers = np.tile(atoms.numbers, 2)
    system = System.from_geometry(numbers, positions % 8.0, cell)
    assert sorted(map(tuple, system.bonds.tolist())) == [(0, 1), (0, 2), (3, 4), (3, 5)]
    assert system.molecules.tolist() == [0, 0, 0, 1, 1, 1]
    assert system.internal_degrees_of_freedom == 15


def test_bonds_to_several_images_are_listed_once():
    diamond = bulk("C", "diamond", a=3.567)  # each of its two atoms is bonded to four images of the other
    system = System.from_geometry(diamond.numbers, diamond.positions, diamond.cell.array)
    assert system.bonds.tolist() == [[0, 1]]


@pytest.mark.parametrize(("n_atoms", "open_boundaries", "periodic"), [(1, 0, 0), (2, 1, 3), (3, 3, 6)])
def test_internal_degrees_of_freedom(n_atoms, open_boundaries, periodic):
    numbers, positions = np.full(n_atoms, 18), 5.0 * np.arange(3 * n_atoms).reshape(-1, 3)
    assert System.from_geometry(numbers, positions).internal_degrees_of_freedom == open_boundaries
    assert System.from_geometry(numbers, positions, 90.0 * np.eye(3)).internal_degrees_of_freedom == periodic


def test_system_changes_type_but_not_integers(aspirin):
    single = aspirin.to(dtype=torch.float32)
    assert single.masses.dtype == torch.float32
    assert single.atomic_numbers.dtype == single.bonds.dtype == torch.int64
    expected = torch.as_tensor(ase.data.atomic_masses[aspirin.atomic_numbers.numpy()], dtype=torch.float32)
    assert torch.equal(single.masses, expected)


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True, False]), slice(1, 3)])
def test_choosing_replicas_of_a_state(index):
    state = _state(4)
    chosen = state[index]
    for name, value in state.tensors().items():
        assert torch.equal(chosen.tensors()[name], value[index])


def test_assigning_replicas_copies():
    state, other = _state(4), _state(2, start=1000.0)
    new = state.assign(torch.tensor([3, 1]), other)
    for name, value in new.tensors().items():
        assert torch.equal(value[[3, 1]], other.tensors()[name])
        assert torch.equal(value[[0, 2]], state.tensors()[name][[0, 2]])
    assert state.energy.max() < 1000


def test_cat_undoes_choosing():
    state = _state(4)
    joined = MDState.cat([state[:1], state[1:]])
    assert all(torch.equal(value, joined.tensors()[name]) for name, value in state.tensors().items())
    bare = MDState(state.positions, state.velocities, state.forces, state.energy)
    assert MDState.cat([bare, bare]).thermostat is None
    assert MDState.cat([bare, bare]).n_replicas == 8


def test_a_state_is_restored_from_its_tensors():
    state = _state(2)
    assert MDState(**state.tensors()).tensors().keys() == state.tensors().keys()
    assert state.to(dtype=torch.float32).forces.dtype == torch.float32
    assert not MDState(*(t.requires_grad_() for t in state.tensors().values())).detach().energy.requires_grad


def test_frames_of_a_trajectory():
    trajectory = _trajectory(7)
    every_third = trajectory[1::3]
    assert torch.equal(every_third.positions, trajectory.positions[[1, 4]])
    assert every_third.frame_interval_fs == 6.0
    assert trajectory[torch.tensor([0, 5])].n_frames == 2
    assert torch.equal(trajectory.replicas(torch.tensor([False, True])).energy, trajectory.energy[:, 1:])


def test_joining_trajectories():
    pieces = [_trajectory(2), _trajectory(3, start=50.0)]
    joined = Trajectory.cat(pieces)
    assert (joined.n_frames, joined.n_replicas, joined.frame_interval_fs) == (5, 2, 2.0)
    assert torch.equal(joined.velocities[2:], pieces[1].velocities)
    bare = Trajectory(pieces[0].positions, None, None, 2.0)
    assert Trajectory.cat([bare, bare]).velocities is None


def test_kinetic_energy_and_temperature():
    masses = torch.tensor([1.0, 4.0], dtype=torch.float64)
    velocities = torch.tensor([[[2.0, 0, 0], [0, 1, 0]]], dtype=torch.float64)
    torch.testing.assert_close(kinetic_energy_eV(velocities, masses), torch.tensor([4.0], dtype=torch.float64))
    temperature = kinetic_temperature_K(velocities, masses, degrees_of_freedom=6)
    torch.testing.assert_close(temperature, torch.tensor([8.0 / (6 * KB_EV_PER_K)], dtype=torch.float64))
