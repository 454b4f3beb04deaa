import json
import shutil
from dataclasses import replace

import pytest
import torch

from mdsim.datasets import Frames, load_dataset, write_dataset
from mdsim.datasets.folder import read_metadata
from mdsim.datasets.systems import system_of
from mdsim.errors import DatasetError
from mdsim.geometry import pair_distances, wrap


@pytest.fixture
def root(tmp_path, ethanol_frames, metadata):
    own = {"train": ethanol_frames[:20], "val": ethanol_frames[20:24]}
    shared = {"test": ethanol_frames[24:], "contiguous": replace(ethanol_frames[:10], forces=None)}
    for size in ("10", "24"):
        write_dataset(tmp_path / "toy" / "ethanol" / size, own, shared, metadata)
    return tmp_path


@pytest.fixture
def dataset(root):
    return load_dataset(root, "toy", "ethanol", "24")


def test_every_split_is_found_own_or_shared(root, dataset, ethanol_frames):
    assert [len(frames) for frames in (dataset.train, dataset.val, dataset.test, dataset.contiguous)] == [20, 4, 6, 10]
    assert (root / "toy" / "ethanol" / "test.npz").is_file()
    assert torch.equal(dataset.test.energy, ethanol_frames.energy[24:])
    assert dataset.contiguous.forces is None
    assert dataset.metadata.n_frames == {"train": 20, "val": 4, "test": 6, "contiguous": 10}


def test_the_folder_of_the_size_goes_before_the_one_above(root, dataset):
    shared = root / "toy" / "ethanol" / "test.npz"
    shutil.copy(shared, dataset.folder / "test.npz")
    shared.write_bytes(b"not looked at")
    assert len(dataset.test) == 6


def test_files_are_read_once_and_only_when_used(dataset):
    (dataset.folder / "val.npz").unlink()
    assert dataset.train is dataset.train
    with pytest.raises(DatasetError, match=r"val\.npz is neither in"):
        _ = dataset.val


def test_metadata_survives_writing(dataset, metadata):
    assert replace(dataset.metadata, n_frames={}, sha256={}) == metadata


def test_contiguous_frames_carry_their_interval(dataset):
    trajectory = dataset.contiguous_trajectory()
    assert trajectory.frame_interval_fs == 2.0
    assert trajectory.n_frames == 10


def test_a_missing_data_set_lists_those_that_exist(root):
    with pytest.raises(DatasetError, match="toy/ethanol/10, toy/ethanol/24") as caught:
        load_dataset(root, "toy", "ethanol", "1k")
    assert "generate.py --molecule ethanol --name toy" in str(caught.value)


def test_an_empty_root_says_so(tmp_path):
    with pytest.raises(DatasetError, match="there are: none"):
        load_dataset(tmp_path / "nowhere", "toy", "ethanol", "10")


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_changed_file_is_noticed(root, dataset, name):
    path = next(root.rglob(f"24/{name}.npz"), root / "toy" / "ethanol" / f"{name}.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="truncated or was changed"):
        getattr(dataset, name)


def test_a_file_of_another_molecule_is_refused(root, dataset):
    path = dataset.folder / "metadata.json"
    content = json.loads(path.read_text())
    content["atomic_numbers"] = [8, 1, 1]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="holds 9 atoms with other atomic numbers than the 3"):
        _ = load_dataset(root, "toy", "ethanol", "24").train


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("license"), "misses the keys license"),
        (lambda c: c.update(temperature=300), "unknown key 'temperature'; the nearest known one is 'temperature_K'"),
        (lambda c: c["units"].update(E="kcal/mol"), "units are"),
    ],
)
def test_wrong_metadata_are_one_clear_error(dataset, change, message):
    path = dataset.folder / "metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        read_metadata(path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_metadata_that_are_no_json_object(dataset, text):
    (dataset.folder / "metadata.json").write_text(text)
    with pytest.raises(DatasetError, match="JSON"):
        load_dataset(dataset.folder.parents[2], "toy", "ethanol", "24")


def test_whole_numbers_in_metadata_are_read_as_floats(dataset):
    path = dataset.folder / "metadata.json"
    content = json.loads(path.read_text()) | {"temperature_K": 300}
    path.write_text(json.dumps(content))
    assert isinstance(read_metadata(path).temperature_K, float)


ETHANOL_BONDS = {(0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8)}


def test_the_system_has_the_bonds_of_the_molecule(dataset):
    system = dataset.system()
    assert set(map(tuple, system.bonds.tolist())) == ETHANOL_BONDS
    assert system.molecules.unique().numel() == 1
    assert system.cell is None


def test_bonds_do_not_hang_on_the_first_frame(ethanol_frames):
    positions = ethanol_frames.positions.clone()
    positions[0, 3] += torch.tensor([-4.0, 0.0, 0.0], dtype=torch.float64)  # the hydroxyl H has left ...
    positions[1:8, 5] = positions[1:8, 4] + 0.5  # ... and two H are too close in a few frames
    system = system_of(replace(ethanol_frames, positions=positions))
    assert set(map(tuple, system.bonds.tolist())) == ETHANOL_BONDS


def test_molecules_are_the_connected_components(ethanol_frames):
    apart = ethanol_frames.positions + torch.tensor([20.0, 0.0, 0.0], dtype=torch.float64)
    pair = replace(
        ethanol_frames,
        atomic_numbers=ethanol_frames.atomic_numbers.repeat(2),
        positions=torch.cat([ethanol_frames.positions, apart], dim=1),
        forces=None,
        velocities=None,
    )
    assert system_of(pair).molecules.tolist() == [0] * 9 + [1] * 9


def test_bonds_across_a_periodic_boundary(ethanol_frames):
    cell = 12.0 * torch.eye(3, dtype=torch.float64)
    wrapped = ethanol_frames.positions % 12.0
    assert (wrapped - ethanol_frames.positions).abs().max() > 10
    system = system_of(replace(ethanol_frames, positions=wrapped, cell=cell), torch.float64)
    assert set(map(tuple, system.bonds.tolist())) == ETHANOL_BONDS
    assert torch.equal(system.cell, cell)


def test_reference_bond_lengths_are_means_over_the_training_frames(dataset, ethanol_frames):
    i, j = dataset.system().bonds.T
    expected = (ethanol_frames.positions[:20, i] - ethanol_frames.positions[:20, j]).norm(dim=-1).mean(0)
    torch.testing.assert_close(dataset.reference_bond_lengths(), expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------ periodic systems


@pytest.fixture
def two_waters(metadata) -> tuple:
    """Forty frames of two molecules that drift across a triclinic cell, and their metadata."""
    generator = torch.Generator().manual_seed(2)
    cell = torch.tensor([[6.5, 0, 0], [1.0, 7.0, 0], [-0.5, 0.8, 6.8]], dtype=torch.float64)
    molecule = torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], dtype=torch.float64)
    start = torch.cat([molecule, molecule + torch.tensor([2.9, 2.2, 3.1])])
    drift = 0.4 * torch.arange(40, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, -0.7, 0.3])
    positions = start + drift + 0.02 * torch.randn(40, 6, 3, generator=generator, dtype=torch.float64)
    forces = torch.randn(40, 6, 3, generator=generator, dtype=torch.float64)
    frames = Frames(torch.tensor([8, 1, 1] * 2), positions.float(), torch.zeros(40).double(), forces, cell=cell)
    return frames, replace(metadata, atomic_numbers=[8, 1, 1] * 2)


def _read_back(root, frames, metadata):
    own = {"train": frames[::2], "val": frames[1::2]}
    write_dataset(root / "toy" / "dimer" / "40", own, {"test": frames[:6], "contiguous": frames}, metadata)
    return load_dataset(root, "toy", "dimer", "40")


def test_unwrapped_frames_come_back_bit_for_bit(tmp_path, two_waters):
    frames, metadata = two_waters
    dataset = _read_back(tmp_path, frames, metadata)
    assert torch.equal(dataset.train.positions, frames.positions[::2])
    assert torch.equal(dataset.contiguous.positions, frames.positions)


def test_wrapped_frames_are_made_whole_and_paths_continuous(tmp_path, two_waters):
    frames, metadata = two_waters
    wrapped = replace(frames, positions=wrap(frames.positions, frames.cell))
    cut = (wrapped.positions[:, 1] - wrapped.positions[:, 0]).norm(dim=-1) > 2.0
    assert 0 < cut.sum() < 40, "the faces of the cell cut molecules in some of the frames"
    dataset = _read_back(tmp_path, wrapped, metadata)
    system = dataset.system(torch.float64)
    assert system.bonds.tolist() == [[0, 1], [0, 2], [3, 4], [3, 5]]
    for split in (dataset.train, dataset.val, dataset.test, dataset.contiguous):
        direct = pair_distances(split.positions.double(), system.bonds)  # without the minimum image
        assert (direct - 0.96).abs().max() < 0.2
    path = dataset.contiguous.positions
    torch.testing.assert_close(path - path[0], frames.positions - frames.positions[0], rtol=0, atol=1e-4)
