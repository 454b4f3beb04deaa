"""Trajectory files of all formats, read by MDAnalysis, MDTraj, ASE and this package."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace

import h5py
import MDAnalysis
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import read
from MDAnalysis.lib.distances import distance_array
from MDAnalysis.units import convert

from mdsim.errors import ConfigError
from mdsim.geometry import all_pairs, angles, is_orthorhombic, pair_distances
from mdsim.reporting.trajectories import (
    FORMATS,
    FileSettings,
    Header,
    ReplicaFrames,
    formats,
    read_trajectory,
    write_frames,
    write_stretches,
    write_trajectory,
)
from mdsim.reporting.trajectories.dcd import AKMA_FS
from mdsim.state import System, Trajectory
from mdsim.units import PS

warnings.filterwarnings("ignore", module="MDAnalysis")
ROUNDING_A = {"gsd": 1e-5, "extxyz": 1e-8, "xtc": 5.1e-3, "dcd": 4e-6, "h5md": 4e-6}  # of some ten Å
TIME_PS = {"gsd": 1e-12, "extxyz": 1e-12, "xtc": 3e-7, "dcd": 3e-6, "h5md": 1e-12}
ORTHORHOMBIC = np.diag([9.0, 11.0, 13.0])
TRICLINIC = np.array([[1.0, 9.0, 0.5], [-10.0, 1.0, 2.0], [2.0, -1.0, 12.0]])
CELLS = {"open": None, "orthorhombic": ORTHORHOMBIC, "triclinic": TRICLINIC, "left-handed": TRICLINIC[[1, 0, 2]]}
START_PS, INTERVAL_FS, N_FRAMES = 2.0, 12.5, 7


@pytest.fixture(params=CELLS)
def case(request, generator):
    """Waters, of which the last drifts far out of the cell, and frames of three replicas."""
    cell, water = CELLS[request.param], molecule("H2O")
    shifts = np.array([[0.0, 0, 0], [4.0, 1, 0], [0.5, 4, 1], [1.0, 0, 5], [25.0, -31, 3]])
    positions = np.concatenate([water.positions + shift for shift in shifts])
    system = System.from_geometry(np.tile(water.numbers, 5), positions, cell, torch.float64)
    shape = (N_FRAMES, 3, system.n_atoms, 3)
    noise, velocities = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    moved = torch.from_numpy(positions) + 0.1 * noise
    moved[:, :, -3:] += 3.0 * torch.arange(N_FRAMES)[:, None, None, None]
    return system, Trajectory(moved, velocities, -100 + noise.sum((-1, -2)), INTERVAL_FS)


def _written(tmp_path, name, case, **options):
    path = tmp_path / f"water.{name}"
    write_trajectory(path, *case, replica=1, start_time_ps=START_PS, **options)
    assert not list(tmp_path.glob("*.tmp"))
    return path


def _universe(path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "gsd":
            return MDAnalysis.Universe(str(path))
        if name == "extxyz":
            return MDAnalysis.Universe(str(path), format="XYZ", topology_format="XYZ")
        return MDAnalysis.Universe(str(path.with_suffix(".pdb")), str(path), format=name.upper())


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(tmp_path, name, case):
    system, trajectory = case
    stored = read_trajectory(_written(tmp_path, name, case))
    assert torch.equal(stored.system.atomic_numbers, system.atomic_numbers)
    assert torch.equal(stored.system.bonds, system.bonds)
    assert torch.equal(stored.system.molecules, system.molecules)
    torch.testing.assert_close(stored.system.masses, system.masses, rtol=1e-7, atol=0)
    times = START_PS + INTERVAL_FS / 1000 * np.arange(N_FRAMES)
    np.testing.assert_allclose(stored.times_ps, times, rtol=0, atol=TIME_PS[name])
    assert stored.trajectory.frame_interval_fs == pytest.approx(INTERVAL_FS, rel=1e-4)
    found, expected = stored.trajectory.positions[:, 0], trajectory.positions[:, 1]
    rotation = torch.eye(3, dtype=torch.float64)
    if system.cell is None:
        assert stored.cell is None and stored.system.cell is None
    else:
        handedness = 1.0 if name == "extxyz" else torch.linalg.det(system.cell).sign()
        rotation = torch.linalg.solve(handedness * system.cell, stored.system.cell)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
        assert torch.linalg.det(rotation) > 0
        assert stored.cell.shape == (N_FRAMES, 3, 3)
        assert name != "extxyz" or torch.allclose(rotation, torch.eye(3, dtype=torch.float64), atol=1e-7)
    # unwrapped: no lattice vector is lost, only rounding (of the cell, too, times the distance)
    torch.testing.assert_close(found, expected @ rotation, atol=3 * ROUNDING_A[name] + 3e-5, rtol=0)
    if name in ("gsd", "extxyz", "h5md"):
        torch.testing.assert_close(
            stored.trajectory.velocities[:, 0], trajectory.velocities[:, 1] @ rotation, atol=2e-6, rtol=0
        )
        torch.testing.assert_close(stored.trajectory.energy, trajectory.energy[:, 1:2], atol=1e-8, rtol=0)
    else:
        assert stored.trajectory.velocities is None and stored.trajectory.energy is None


@pytest.mark.parametrize("name", FORMATS)
def test_mdanalysis_finds_the_same_times_names_bonds_and_distances(tmp_path, name, case):
    system, trajectory = case
    universe = _universe(_written(tmp_path, name, case), name)
    assert universe.trajectory.n_frames == N_FRAMES
    if name in ("xtc", "dcd", "h5md"):
        assert universe.atoms.elements.tolist() == ["O", "H", "H"] * 5
        assert universe.atoms.names.tolist() == ["O1", "H1", "H2"] * 5
        assert set(universe.residues.resnames) == {"HOH"} and universe.residues.n_residues == 5
    if name != "extxyz":
        assert {frozenset(bond) for bond in universe.bonds.indices.tolist()} == {
            frozenset(bond) for bond in system.bonds.tolist()
        }
    pairs = all_pairs(system.n_atoms)
    for index, frame in enumerate(universe.trajectory):
        if name not in ("gsd", "extxyz"):  # MDAnalysis counts frames in these
            assert frame.time == pytest.approx(START_PS + index * INTERVAL_FS / 1000, abs=TIME_PS[name] + 2e-6)
        if name == "extxyz":
            np.testing.assert_allclose(frame.positions, trajectory.positions[index, 1].numpy(), atol=4e-6)
            continue
        expected = pair_distances(trajectory.positions[index, 1], pairs, system.cell)
        if name == "gsd" and system.cell is not None and not is_orthorhombic(system.cell):
            continue  # its reader takes tilt factors for cosines
        if system.cell is not None:
            lengths = torch.linalg.vector_norm(system.cell, dim=1).sort().values
            np.testing.assert_allclose(np.sort(frame.dimensions[:3]), lengths.numpy(), rtol=1e-6)
        elif name != "gsd":
            assert frame.dimensions is None
        box = None if system.cell is None else frame.dimensions
        distances = distance_array(frame.positions, frame.positions, box=box)[np.triu_indices(system.n_atoms, 1)]
        np.testing.assert_allclose(distances, expected.numpy(), atol=2 * 3**0.5 * ROUNDING_A[name] + 4e-5)
        if name == "h5md":
            assert frame.data["potential_energy"] == pytest.approx(float(trajectory.energy[index, 1]), abs=1e-10)
            assert abs(frame.data["step"] - (1000 * START_PS + index * INTERVAL_FS)) < 0.501  # whole fs
            speeds = np.linalg.norm(frame.velocities, axis=1)  # Å/ps, and rotations keep them
            wanted = torch.linalg.vector_norm(trajectory.velocities[index, 1], dim=-1) * PS
            np.testing.assert_allclose(speeds, wanted.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["xtc", "dcd"])
def test_mdtraj_finds_the_same_times_and_distances(tmp_path, name, case):
    mdtraj = pytest.importorskip("mdtraj")
    system, trajectory = case
    path = _written(tmp_path, name, case)
    found = mdtraj.load(str(path), top=str(path.with_suffix(".pdb")))
    assert [atom.element.symbol for atom in found.topology.atoms] == ["O", "H", "H"] * 5
    assert found.topology.n_bonds == 10 and found.n_frames == N_FRAMES
    if name == "xtc":  # MDTraj leaves out the times of DCD files
        np.testing.assert_allclose(found.time, START_PS + INTERVAL_FS / 1000 * np.arange(N_FRAMES), atol=3e-7)
    pairs = all_pairs(system.n_atoms)
    # MDTraj searches only the nearest images, which is exact for distances within half of the shortest cell vector
    expected = pair_distances(trajectory.positions[:, 1], pairs, system.cell).numpy()
    near = expected < 4.0
    distances = 10 * mdtraj.compute_distances(found, pairs.numpy(), periodic=system.cell is not None)
    np.testing.assert_allclose(distances[near], expected[near], atol=2 * ROUNDING_A[name] + 6e-5)


def test_ase_finds_everything_in_extended_xyz(tmp_path, case):
    system, trajectory = case
    images = read(_written(tmp_path, "extxyz", case, comment='a "quoted" comment'), index=":")
    assert images[0].info["comment"] == 'a "quoted" comment' and "bonds" not in images[1].info
    for index, atoms in enumerate(images):
        assert atoms.symbols.get_chemical_formula() == "H10O5" and not atoms.has("masses")
        assert atoms.info["time_ps"] == pytest.approx(START_PS + index * INTERVAL_FS / 1000)
        np.testing.assert_allclose(atoms.positions, trajectory.positions[index, 1].numpy(), atol=1e-8)
        np.testing.assert_allclose(atoms.get_velocities(), trajectory.velocities[index, 1].numpy(), atol=1e-7)
        assert atoms.get_potential_energy() == pytest.approx(float(trajectory.energy[index, 1]), abs=1e-8)
        if system.cell is None:
            assert not atoms.pbc.any()
        else:
            assert atoms.pbc.all()
            np.testing.assert_allclose(atoms.cell.array, system.cell.numpy(), atol=1e-8)


@pytest.mark.parametrize("name", FORMATS)
def test_each_frame_has_its_own_cell(tmp_path, name, case):
    system, trajectory = case
    if system.cell is None:
        pytest.skip("open boundaries")
    scale = 1 + 0.02 * np.arange(N_FRAMES)[:, None, None]
    cell = system.cell.numpy() * scale
    cell[:, 0] += 0.3 * scale[:, 0] * cell[:, 1]
    positions = trajectory.positions[:, 1].numpy()
    times = INTERVAL_FS / 1000 * np.arange(N_FRAMES)
    path = tmp_path / f"water.{name}"
    frames = ReplicaFrames(times, positions, None, None, cell)
    assert write_frames(path, Header(system, INTERVAL_FS), [frames[:3], frames[3:]])
    stored = read_trajectory(path)
    gram = lambda rows: rows @ rows.swapaxes(1, 2)  # noqa: E731  does not change by rotations
    np.testing.assert_allclose(gram(stored.cell), gram(cell), rtol=2e-6, atol=1e-4)
    # unwrapped positions keep their distances
    pairs = all_pairs(system.n_atoms).numpy()
    lengths = [
        np.linalg.norm(x[:, pairs[:, 0]] - x[:, pairs[:, 1]], axis=-1)
        for x in (stored.trajectory.positions[:, 0].numpy(), positions)
    ]
    np.testing.assert_allclose(*lengths, atol=4 * ROUNDING_A[name] + 4e-5)


def test_xtc_rounds_as_asked(tmp_path, case):
    system, trajectory = case
    if system.cell is not None:
        pytest.skip("one case is enough")
    errors = {}
    for precision in (100.0, 1000.0, 10000.0):
        stored = read_trajectory(_written(tmp_path, "xtc", case, xtc_precision_per_nm=precision))
        errors[precision] = float((stored.trajectory.positions[:, 0] - trajectory.positions[:, 1]).abs().max())
        assert 2 / precision < errors[precision] < 5 / precision + 1e-5  # half of 10 Å / precision


def test_akma_time_is_that_of_mdanalysis():
    assert convert(1.0, "AKMA", "fs") == pytest.approx(AKMA_FS, rel=3e-7)  # which has seven digits


@pytest.mark.parametrize("start_fs", [0.0, 12.5, 100.0, 6.25, 4.0])
def test_dcd_starts_at_any_time(tmp_path, case, start_fs):
    path = tmp_path / "water.dcd"
    write_trajectory(path, *case, replica=0, start_time_ps=start_fs / 1000)
    universe = _universe(path, "dcd")
    times = [frame.time for frame in universe.trajectory]
    np.testing.assert_allclose(times, (start_fs + INTERVAL_FS * np.arange(N_FRAMES)) / 1000, atol=1e-6)


def test_h5md_has_what_the_specification_asks_for(tmp_path, case):
    system, _ = case
    with h5py.File(_written(tmp_path, "h5md", case, comment="SchNet, Å")) as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert {"name", "version"} <= set(file["h5md/creator"].attrs) and "name" in file["h5md/author"].attrs
        atoms = file["particles/all"]
        assert atoms.attrs["comment"] == "SchNet, Å"
        assert atoms["box"].attrs["dimension"] == 3
        boundary = b"none" if system.cell is None else b"periodic"
        assert atoms["box"].attrs["boundary"].tolist() == [boundary] * 3
        assert atoms["species"][:].tolist() == [8, 1, 1] * 5
        for element in ("position", "velocity", *(() if system.cell is None else ("box/edges",))):
            assert set(atoms[element]) == {"step", "time", "value"}
            assert len(atoms[element]["value"]) == len(atoms[element]["time"]) == N_FRAMES
            assert atoms[element]["time"] == atoms["position/time"]  # one data set, linked
        assert file["connectivity/bonds"].shape == (10, 2)
        assert file[file["connectivity/bonds"].attrs["particles_group"]].name == "/particles/all"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e7])
def test_frames_end_before_what_no_file_can_hold(tmp_path, name, value, case):
    system, trajectory = case
    trajectory.positions[4, 1, 0, 2] = value
    with pytest.raises(ValueError, match="frame 4 of replica 1"):
        _written(tmp_path, name, case)
    assert not list(tmp_path.iterdir())
    path = tmp_path / f"cut.{name}"
    assert write_stretches(path, system, [trajectory[:3], trajectory[3:]], 1, None, FileSettings(name))
    assert read_trajectory(path).trajectory.n_frames == 4
    assert not write_stretches(tmp_path / f"none.{name}", system, [trajectory[4:]], 1, None, FileSettings(name))
    assert not (tmp_path / f"none.{name}").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_large_coordinates_are_written(tmp_path, name, case):
    system, trajectory = case
    far = replace(trajectory, positions=trajectory.positions + 9.0e5)
    stored = read_trajectory(_written(tmp_path, name, (system, far)))
    assert stored.trajectory.n_frames == N_FRAMES
    shifts = stored.trajectory.positions[:, 0] - stored.trajectory.positions[:1, 0, :1]
    expected = far.positions[:, 1] - far.positions[:1, 1, :1]
    norms = [torch.linalg.vector_norm(x, dim=-1) for x in (shifts, expected)]
    torch.testing.assert_close(*norms, atol=0.3, rtol=0)  # single precision at 1e6 Å


@pytest.mark.parametrize("name", FORMATS)
def test_one_frame_one_atom_and_special_masses(tmp_path, name):
    system = System.from_geometry(np.array([1]), np.zeros((1, 3)), masses=np.array([2.014]), dtype=torch.float64)
    frames = Trajectory(torch.ones(1, 1, 1, 3, dtype=torch.float64), None, None, 2.0)
    write_trajectory(tmp_path / f"d.{name}", system, frames, replica=0)
    stored = read_trajectory(tmp_path / f"d.{name}")
    torch.testing.assert_close(stored.trajectory.positions, frames.positions, atol=1e-6, rtol=0)
    if name in ("gsd", "extxyz", "h5md"):
        assert float(stored.system.masses) == pytest.approx(2.014)


@pytest.mark.parametrize("name", FORMATS)
def test_stretches_become_the_file_of_all_frames(tmp_path, name, case):
    system, trajectory = case
    parts = [trajectory[:2], trajectory[2:3], trajectory[3:]]
    assert write_stretches(tmp_path / f"parts.{name}", system, iter(parts), 2, 6, FileSettings(name))
    write_trajectory(tmp_path / f"whole.{name}", system, trajectory[:6], 2, start_time_ps=INTERVAL_FS / 1000)
    parts, whole = (read_trajectory(tmp_path / f"{stem}.{name}") for stem in ("parts", "whole"))
    torch.testing.assert_close(parts.trajectory.positions, whole.trajectory.positions, atol=1e-6, rtol=0)
    np.testing.assert_allclose(parts.times_ps, whole.times_ps, rtol=1e-12)


def test_uneven_times_do_not_fit_into_dcd(tmp_path, case):
    system, trajectory = case
    frames = ReplicaFrames(np.array([0.0, 1.0, 3.0]), trajectory.positions[:3, 0].numpy(), None, None, None)
    with pytest.raises(ValueError, match="evenly spaced"):
        write_frames(tmp_path / "x.dcd", Header(system, 1000.0), [frames])
    assert not (tmp_path / "x.dcd").exists()


def test_a_missing_library_is_one_clear_error(monkeypatch, tmp_path, case):
    monkeypatch.setattr(formats, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"xtc needs MDAnalysis.*pip install 'mdsim\[trajectories\]'"):
        _written(tmp_path, "xtc", case)
    with pytest.raises(ConfigError, match="h5md needs h5py and MDAnalysis"):
        FORMATS["h5md"].check_available()
    FORMATS["gsd"].check_available()


def test_unknown_suffixes_and_missing_topologies_are_refused(tmp_path, case):
    with pytest.raises(ConfigError, match=r"\.trr is no format of trajectories; use gsd, extxyz"):
        _written(tmp_path, "trr", case)
    path = _written(tmp_path, "xtc", case)
    path.with_suffix(".pdb").unlink()
    with pytest.raises(ValueError, match=r"water\.pdb beside it is missing"):
        read_trajectory(path)


def test_libraries_are_imported_only_where_used():
    code = "import sys, mdsim.reporting.trajectories as t; assert not {'MDAnalysis', 'h5py', 'gsd'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_angles_of_molecules_survive(tmp_path, case):
    _, trajectory = case
    triple = torch.tensor([[1, 0, 2]])
    expected = angles(trajectory.positions[:, 1], triple, None)
    for name in FORMATS:
        stored = read_trajectory(_written(tmp_path, name, case))
        found = angles(stored.trajectory.positions[:, 0], triple, None)
        torch.testing.assert_close(found, expected, atol=3e-2 if name == "xtc" else 2e-5, rtol=0)
