"""GSD files are read back by this package, and by MDAnalysis as an independent program."""

from dataclasses import replace

import MDAnalysis
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import read, write
from gsd import hoomd
from MDAnalysis.lib.distances import distance_array
from MDAnalysis.lib.mdamath import triclinic_vectors

from mdsim.geometry import all_pairs, pair_distances
from mdsim.reporting.trajectories import frames_before_break, read_trajectory, to_ase, write_trajectory
from mdsim.state import System, Trajectory

SINGLE_A = 2e-6  # rounding of a coordinate of some ten Å to single precision
ORTHORHOMBIC = torch.diag(torch.tensor([9.0, 11.0, 13.0], dtype=torch.float64))
TRICLINIC = torch.tensor([[1.0, 9.0, 0.5], [-10.0, 1.0, 2.0], [2.0, -1.0, 12.0]], dtype=torch.float64)


def random_trajectory(system: System, start: torch.Tensor, generator: torch.Generator, drift_A: float) -> Trajectory:
    """Four frames of three replicas that drift through the cell."""
    shape = (4, 3, system.n_atoms, 3)
    steps = torch.randn(shape, generator=generator, dtype=torch.float64)
    drift = drift_A * torch.arange(4.0, dtype=torch.float64)[:, None, None, None]
    velocities = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Trajectory(start + 0.1 * steps + drift, velocities, steps.sum((-1, -2)), frame_interval_fs=12.5)


@pytest.fixture
def ethanol() -> System:
    atoms = molecule("CH3CH2OH")
    return System.from_geometry(atoms.numbers, atoms.positions, dtype=torch.float64)


@pytest.fixture
def ethanol_frames(ethanol, generator) -> Trajectory:
    return random_trajectory(ethanol, torch.from_numpy(molecule("CH3CH2OH").positions), generator, drift_A=0.0)


def read_gsd(path):
    stored = read_trajectory(path)
    return stored.system, stored.trajectory


def two_waters(cell: torch.Tensor) -> tuple[System, torch.Tensor]:
    """Two water molecules, the second of which sits far outside of the cell."""
    water = molecule("H2O")
    positions = np.concatenate([water.positions, water.positions + np.array([25.0, -31.0, 3.0])])
    system = System.from_geometry(np.tile(water.numbers, 2), positions, cell.numpy(), torch.float64)
    return system, torch.from_numpy(positions)


def test_round_trip_of_a_molecule(tmp_path, ethanol, ethanol_frames):
    write_trajectory(tmp_path / "ethanol.gsd", ethanol, ethanol_frames, replica=1)
    system, trajectory = read_gsd(tmp_path / "ethanol.gsd")
    assert list(tmp_path.iterdir()) == [tmp_path / "ethanol.gsd"]
    assert system.cell is None
    torch.testing.assert_close(system.atomic_numbers, ethanol.atomic_numbers)
    torch.testing.assert_close(system.masses, ethanol.masses, rtol=1e-7, atol=0)
    assert torch.equal(system.bonds, ethanol.bonds)
    assert torch.equal(system.molecules, ethanol.molecules)
    torch.testing.assert_close(trajectory.positions, ethanol_frames.positions[:, 1:2], atol=SINGLE_A, rtol=0)
    torch.testing.assert_close(trajectory.velocities, ethanol_frames.velocities[:, 1:2], atol=SINGLE_A, rtol=0)
    assert torch.equal(trajectory.energy, ethanol_frames.energy[:, 1:2])
    assert trajectory.frame_interval_fs == 12.5


def test_round_trip_unwraps_what_left_the_cell(tmp_path, generator):
    system, start = two_waters(ORTHORHOMBIC)
    frames = random_trajectory(system, start, generator, drift_A=7.0)
    write_trajectory(tmp_path / "water.gsd", system, frames, replica=2)
    again, trajectory = read_gsd(tmp_path / "water.gsd")
    torch.testing.assert_close(again.cell, ORTHORHOMBIC)
    assert torch.equal(again.molecules, torch.tensor([0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(trajectory.positions, frames.positions[:, 2:3], atol=SINGLE_A, rtol=0)
    with hoomd.open(str(tmp_path / "water.gsd"), "r") as file:
        for frame in file:
            assert (np.abs(frame.particles.position) <= [4.5, 5.5, 6.5]).all()
            assert (np.abs(frame.particles.image).max(axis=0) >= [3, 2, 0]).all()


def test_triclinic_frames_are_turned_rigidly(tmp_path, generator):
    assert torch.linalg.det(TRICLINIC) > 0
    system, start = two_waters(TRICLINIC)
    frames = random_trajectory(system, start, generator, drift_A=5.0)
    write_trajectory(tmp_path / "water.gsd", system, frames, replica=0)
    again, trajectory = read_gsd(tmp_path / "water.gsd")
    rotation = torch.linalg.solve(TRICLINIC, again.cell)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)
    assert torch.linalg.det(rotation) > 0
    torch.testing.assert_close(again.cell, torch.tril(again.cell))
    # image counts times the single-precision error of the lattice vectors
    torch.testing.assert_close(trajectory.positions, frames.positions[:, :1] @ rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(trajectory.velocities, frames.velocities[:, :1] @ rotation, atol=SINGLE_A, rtol=0)


def test_the_box_of_an_open_molecule_holds_all_frames(tmp_path, ethanol, ethanol_frames):
    moved = Trajectory(ethanol_frames.positions + torch.tensor([8.0, 0.0, 0.0]), None, None, 12.5)
    write_trajectory(tmp_path / "ethanol.gsd", ethanol, moved, replica=0)
    with hoomd.open(str(tmp_path / "ethanol.gsd"), "r") as file:
        for frame in file:
            edges, tilts = np.split(frame.configuration.box, 2)
            assert (np.abs(frame.particles.position) <= edges / 2 - 5 + 1e-4).all()
            assert not tilts.any()
            assert not frame.particles.image.any()
    _, trajectory = read_gsd(tmp_path / "ethanol.gsd")
    assert trajectory.velocities is None
    assert trajectory.energy is None


def test_mdanalysis_reads_topology_and_coordinates(tmp_path, ethanol, ethanol_frames):
    write_trajectory(tmp_path / "ethanol.gsd", ethanol, ethanol_frames, replica=2)
    universe = MDAnalysis.Universe(str(tmp_path / "ethanol.gsd"))
    assert list(universe.atoms.types) == molecule("CH3CH2OH").get_chemical_symbols()
    np.testing.assert_allclose(universe.atoms.masses, ethanol.masses.numpy(), rtol=1e-6)
    assert {tuple(pair) for pair in universe.bonds.indices} == {tuple(pair) for pair in ethanol.bonds.tolist()}
    assert len(universe.trajectory) == 4
    for frame, expected in zip(universe.trajectory, ethanol_frames.positions[:, 2], strict=True):
        np.testing.assert_allclose(frame.positions, expected.numpy(), atol=SINGLE_A)
    assert [frame.data["step"] for frame in universe.trajectory] == [0, 12, 25, 38]


@pytest.mark.parametrize("cell", [ORTHORHOMBIC, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_mdanalysis_finds_the_same_minimum_image_distances(tmp_path, generator, cell):
    system, start = two_waters(cell)
    frames = random_trajectory(system, start, generator, drift_A=5.0)
    write_trajectory(tmp_path / "water.gsd", system, frames, replica=1)
    pairs = all_pairs(system.n_atoms)
    expected = pair_distances(frames.positions[:, 1], pairs, cell).numpy()
    universe = MDAnalysis.Universe(str(tmp_path / "water.gsd"))
    lengths = torch.linalg.vector_norm(cell, dim=1)
    cosines = (cell @ cell.T / torch.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]
    # its reader takes tilt factors for cosines, so that the box is given here
    box = np.concatenate([lengths, torch.rad2deg(torch.arccos(cosines))]).astype(np.float32)
    for frame, distances in zip(universe.trajectory, expected, strict=True):
        found = distance_array(frame.positions, frame.positions, box=box)[pairs[:, 0], pairs[:, 1]]
        np.testing.assert_allclose(found, distances, atol=2e-5)


def test_the_box_is_the_lower_triangular_cell_of_crystallography(tmp_path, generator):
    system, start = two_waters(TRICLINIC)
    write_trajectory(tmp_path / "water.gsd", system, random_trajectory(system, start, generator, 0.0), replica=0)
    lengths = torch.linalg.vector_norm(TRICLINIC, dim=1)
    cosines = (TRICLINIC @ TRICLINIC.T / torch.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]
    expected = triclinic_vectors(np.concatenate([lengths, torch.rad2deg(torch.arccos(cosines))]))
    np.testing.assert_allclose(read_trajectory(tmp_path / "water.gsd").system.cell.numpy(), expected, atol=1e-5)


def test_bond_types_logs_and_comment(tmp_path, ethanol, ethanol_frames):
    write_trajectory(tmp_path / "e.gsd", ethanol, ethanol_frames, 0, comment="SchNet, 500 K, Å", start_time_ps=2.0)
    with hoomd.open(str(tmp_path / "e.gsd"), "r") as file:
        first, last = file[0], file[-1]
        names = [first.bonds.types[kind] for kind in first.bonds.typeid]
        symbols = [first.particles.types[kind] for kind in first.particles.typeid]
        assert names == ["-".join(sorted(symbols[i] for i in pair)) for pair in first.bonds.group]
        assert set(names) == {"C-C", "C-H", "C-O", "H-O"}
        assert bytes(first.log["comment"]).decode() == "SchNet, 500 K, Å"
        assert last.log["time_ps"][0] == pytest.approx(2.0375)
        assert last.log["energy_eV"][0] == ethanol_frames.energy[-1, 0].item()
        assert last.configuration.step == 2038


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e7])
def test_broken_frames_are_refused_by_number_and_leave_no_file(tmp_path, ethanol, ethanol_frames, value):
    ethanol_frames.positions[2, 1, 4, 0] = value
    write_trajectory(tmp_path / "fine.gsd", ethanol, ethanol_frames, replica=0)
    with pytest.raises(ValueError, match="frame 2 of replica 1 has non-finite coordinates"):
        write_trajectory(tmp_path / "broken.gsd", ethanol, ethanol_frames, replica=1)
    write_trajectory(tmp_path / "stable.gsd", ethanol, frames_before_break(ethanol_frames, 2, n_frames=10), replica=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fine.gsd", "stable.gsd"]


def test_a_failed_write_leaves_the_old_file(tmp_path, ethanol, ethanol_frames, monkeypatch):
    path = tmp_path / "e.gsd"
    path.write_bytes(b"old")
    monkeypatch.setattr(hoomd.HOOMDTrajectory, "append", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_trajectory(path, ethanol, ethanol_frames, replica=0)
    assert path.read_bytes() == b"old"


def test_no_frames_flat_cells_and_foreign_files_are_refused(tmp_path, ethanol, ethanol_frames, generator):
    with pytest.raises(ValueError, match="has no frames"):
        write_trajectory(tmp_path / "e.gsd", ethanol, ethanol_frames[:0], replica=0)
    system, start = two_waters(ORTHORHOMBIC)
    flat = replace(system, cell=ORTHORHOMBIC * torch.tensor([1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="flat cell"):
        write_trajectory(tmp_path / "w.gsd", flat, random_trajectory(system, start, generator, 0.0), replica=0)
    with hoomd.open(str(tmp_path / "foreign.gsd"), "w") as file:
        file.append(hoomd.Frame())
    with pytest.raises(ValueError, match="not a file of mdsim"):
        read_gsd(tmp_path / "foreign.gsd")


def test_atoms_without_bonds(tmp_path):
    system = System.from_geometry(np.array([18, 18]), np.array([[0.0, 0, 0], [5.0, 0, 0]]), dtype=torch.float64)
    frames = Trajectory(torch.zeros(1, 1, 2, 3, dtype=torch.float64), None, None, 1.0)
    write_trajectory(tmp_path / "argon.gsd", system, frames, replica=0)
    again, trajectory = read_gsd(tmp_path / "argon.gsd")
    assert again.bonds.shape == (0, 2)
    assert torch.equal(again.molecules, torch.tensor([0, 1]))
    assert trajectory.n_frames == 1


@pytest.mark.parametrize(("broke", "wanted", "kept"), [(3, 2, [1, 2]), (2, 9, [0, 1]), (4, 1, [3]), (0, 5, [])])
def test_frames_before_break(ethanol_frames, broke, wanted, kept):
    assert torch.equal(frames_before_break(ethanol_frames, broke, wanted).positions, ethanol_frames.positions[kept])


def test_frames_before_break_refuses_what_is_not_there(ethanol_frames):
    with pytest.raises(ValueError, match="the trajectory has 4 frames"):
        frames_before_break(ethanol_frames, 5, 1)
    with pytest.raises(ValueError, match="ask for at least one frame"):
        frames_before_break(ethanol_frames, 4, 0)


@pytest.mark.parametrize("cell", [ORTHORHOMBIC, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_ase_writes_and_reads_a_periodic_replica(tmp_path, generator, cell):
    system, start = two_waters(cell)
    frames = random_trajectory(system, start, generator, drift_A=5.0)
    write(tmp_path / "water.extxyz", to_ase(system, frames, replica=2))
    found = read(tmp_path / "water.extxyz", index=":")
    assert len(found) == 4
    for index, atoms in enumerate(found):
        assert atoms.pbc.all() and atoms.get_chemical_formula() == "H4O2"
        np.testing.assert_allclose(atoms.cell.array, cell.numpy(), atol=1e-7)
        np.testing.assert_allclose(atoms.positions, frames.positions[index, 2].numpy(), atol=1e-7)
        np.testing.assert_allclose(atoms.get_velocities(), frames.velocities[index, 2].numpy(), atol=1e-6)
        assert atoms.get_potential_energy() == pytest.approx(float(frames.energy[index, 2]), abs=1e-6)
        assert atoms.info["time_ps"] == pytest.approx(0.0125 * index)
        expected = pair_distances(frames.positions[index, 2], all_pairs(6), cell)
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(6, 1)]
        np.testing.assert_allclose(distances, expected.numpy(), atol=1e-6)


def test_ase_frames_of_an_open_molecule_have_no_cell(ethanol, ethanol_frames):
    bare = Trajectory(ethanol_frames.positions, None, None, 2.0)
    atoms = to_ase(ethanol, bare, replica=0)[1]
    assert not atoms.pbc.any() and atoms.cell.rank == 0 and atoms.calc is None
