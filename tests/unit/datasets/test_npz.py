from dataclasses import replace

import ase.units
import numpy as np
import pytest
import torch

from mdsim.datasets.npz import read_frames, write_frames
from mdsim.errors import DatasetError
from mdsim.state import kinetic_energy_eV


def arrays_of(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture
def written(tmp_path, ethanol_frames):
    path = tmp_path / "train.npz"
    write_frames(path, ethanol_frames)
    return path


def test_frames_survive_writing(written, ethanol_frames):
    frames = read_frames(written)
    assert torch.equal(frames.atomic_numbers, ethanol_frames.atomic_numbers)
    assert torch.equal(frames.energy, ethanol_frames.energy)  # double precision, to the last bit
    torch.testing.assert_close(frames.positions.double(), ethanol_frames.positions, rtol=0, atol=5e-7)
    torch.testing.assert_close(frames.forces.double(), ethanol_frames.forces, rtol=1e-6, atol=0)
    torch.testing.assert_close(frames.velocities.double(), ethanol_frames.velocities, rtol=1e-6, atol=0)
    assert frames.cell is None


def test_velocities_in_files_are_angstrom_per_fs(written, ethanol_frames):
    in_file = arrays_of(written)["V"]
    np.testing.assert_allclose(in_file, ethanol_frames.velocities.numpy() * ase.units.fs, rtol=1e-6)
    # Independently: in SI, 1 amu (Å/fs)² is 1.66054e-27 kg · (1e5 m/s)², and 1 eV is 1.60218e-19 J.
    masses = torch.tensor([12.011, 12.011, 15.999] + [1.008] * 6, dtype=torch.float64)
    joule = 0.5 * (masses.numpy()[:, None] * 1.66053907e-27 * (in_file * 1e5) ** 2).sum((1, 2))
    inside = kinetic_energy_eV(read_frames(written).velocities.double(), masses)
    np.testing.assert_allclose(inside.numpy(), joule / 1.602176634e-19, rtol=1e-5)


def test_cell_survives_writing(tmp_path, ethanol_frames):
    cell = torch.tensor([[9.0, 0, 0], [1.0, 8.0, 0], [0, 0.5, 7.0]], dtype=torch.float64)
    write_frames(tmp_path / "x.npz", replace(ethanol_frames, cell=cell))
    assert torch.equal(read_frames(tmp_path / "x.npz").cell, cell)


def test_equal_frames_give_equal_bytes_and_no_temporary_file_stays(tmp_path, written, ethanol_frames):
    write_frames(tmp_path / "again.npz", ethanol_frames)
    assert (tmp_path / "again.npz").read_bytes() == written.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "train.npz"]


def test_a_failed_writing_leaves_the_old_file(tmp_path, written, ethanol_frames, monkeypatch):
    before = written.read_bytes()

    def fails(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="disk full"):
        write_frames(written, ethanol_frames)
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    "index", [slice(2, 12, 3), torch.tensor([4, 1, 1]), torch.arange(30) % 3 == 0], ids=["slice", "indices", "mask"]
)
def test_indexing_chooses_the_same_frames_of_every_field(ethanol_frames, index):
    chosen = ethanol_frames[index]
    for name in ("positions", "energy", "forces", "velocities"):
        assert torch.equal(getattr(chosen, name), getattr(ethanol_frames, name)[index])
    assert len(chosen) == len(torch.arange(30)[index])
    assert torch.equal(chosen.atomic_numbers, ethanol_frames.atomic_numbers)


def test_conversion_leaves_atomic_numbers_and_absent_fields(ethanol_frames):
    frames = replace(ethanol_frames, velocities=None).to(dtype=torch.float32)
    assert frames.positions.dtype == frames.energy.dtype == frames.forces.dtype == torch.float32
    assert frames.atomic_numbers.dtype == torch.int64
    assert frames.velocities is None


def test_a_trajectory_has_one_replica(ethanol_frames):
    trajectory = ethanol_frames.as_trajectory(2.0)
    assert (trajectory.n_frames, trajectory.n_replicas, trajectory.frame_interval_fs) == (30, 1, 2.0)
    assert torch.equal(trajectory.velocities[:, 0], ethanol_frames.velocities)


DAMAGE = {
    "missing": (lambda a: a.pop("F"), "misses F"),
    "unknown": (lambda a: a.update(forces=a["F"]), "does not know the arrays forces"),
    "sGDML energies": (lambda a: a.update(E=a["E"][:, None]), r"E has shape \(30, 1\), expected \(frame\)"),
    "other atoms": (lambda a: a.update(z=a["z"][:-1]), "R has shape"),
    "fewer forces": (lambda a: a.update(F=a["F"][:-1]), r"F has shape \(29, 9, 3\)"),
    "flat positions": (lambda a: a.update(R=a["R"].reshape(30, 27)), "R has shape"),
    "cell per frame": (lambda a: a.update(cell=np.ones((30, 3, 3))), "cell has shape"),
    "single energies": (lambda a: a.update(E=a["E"].astype(np.float32)), "E is float32"),
    "numbers as floats": (lambda a: a.update(z=a["z"].astype(float)), "z is float64, expected integers"),
    "nan": (lambda a: a["F"].__setitem__((3, 0, 0), np.nan), "F holds 1 values that are not finite"),
    "inf": (lambda a: a["R"].__setitem__((3, 0), np.inf), "R holds 3 values that are not finite"),
    "kcal/mol": (lambda a: a.update(F=a["F"] / 0.0433641), "kcal/mol"),
    "meV": (lambda a: a.update(F=a["F"] * 1000), "cannot be eV/Å"),
    "zero forces": (lambda a: a.update(F=a["F"] * 0), "root mean square of 0"),
    "no frames": (lambda a: a.update({key: a[key][:0] for key in "REFV"}), "0 frames of 9 atoms"),
    "pickles": (lambda a: a.update(R=np.array([None] * 30, dtype=object)), "plain arrays"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_wrong_arrays_are_one_clear_error(written, kind):
    damage, message = DAMAGE[kind]
    arrays = arrays_of(written)
    damage(arrays)
    np.savez(written, **arrays)
    with pytest.raises(DatasetError, match=message) as caught:
        read_frames(written, require_forces=True)
    assert str(written) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_truncated_file_is_one_clear_error(written, keep):
    written.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(DatasetError, match="not a readable npz file"):
        read_frames(written)


def test_flipped_bits_are_one_clear_error(written):
    content = bytearray(written.read_bytes())
    content[1000:1100] = bytes(100)
    written.write_bytes(content)
    with pytest.raises(DatasetError, match="not a readable npz file"):
        read_frames(written)


def test_a_bare_array_is_not_a_data_set(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(DatasetError, match="not a readable npz file"):
        read_frames(tmp_path / "x.npy")
