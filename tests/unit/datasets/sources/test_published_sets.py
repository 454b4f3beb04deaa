"""Published data sets: their records, and rejection of wrong files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.formula import Formula
from file_server import FileServer
from toy_sources import archive, ethanol, water

from mdsim.datasets.folder import load_dataset, write_dataset
from mdsim.datasets.npz import holds
from mdsim.datasets.sources import md17, md22
from mdsim.datasets.sources import water as water_set
from mdsim.datasets.sources.convert import Excerpt
from mdsim.datasets.sources.published import PublishedSet, Request, find, make
from mdsim.datasets.sources.raw import Units
from mdsim.datasets.sources.water import read_water
from mdsim.datasets.splits import parse_indices
from mdsim.errors import DatasetError
from mdsim.units import FS, KCAL_PER_MOL

N_FRAMES = 400
ARRAYS = ethanol(N_FRAMES)
CONTENT = archive(ARRAYS)
MD22_ATOMS = (42, 56, 87, 60, 118, 148, 370)


@pytest.fixture
def served():
    """Ethanol of MD17, as small as the tests need it, on a server."""
    ethanol_set = find(md17.MOLECULES, "ethanol")
    with FileServer({ethanol_set.remote.name: CONTENT}) as server:
        yield replace(ethanol_set, n_frames=N_FRAMES, remote=ethanol_set.remote.at([server.url])), server


def request(size: str = "100", **options) -> Request:
    return Request(size, test_frames=50, **options)


def test_all_sets_of_the_collections_are_known():
    atoms = [sum(Formula(one.formula).count().values()) for one in md22.MOLECULES]
    assert tuple(atoms) == MD22_ATOMS
    assert sum(Formula(find(md17.MOLECULES, "aspirin").formula).count().values()) == 21
    for one in (*md17.MOLECULES, *md22.MOLECULES):
        assert one.remote.urls[0] == f"http://www.quantum-machine.org/gdml/data/npz/{one.remote.name}"
    assert find(md22.MOLECULES, "Ac-Ala3-NHMe").molecule == "ac_Ala3_NHMe"
    assert find(md17.MOLECULES, "Salicylic acid").remote.name == "md17_salicylic.npz"
    with pytest.raises(DatasetError, match=r"--molecule caffeine: md17 has aspirin, benzene"):
        find(md17.MOLECULES, "caffeine")


def test_a_set_is_fetched_converted_and_left_alone(served, tmp_path):
    published, server = served
    dataset = make(published, request(contiguous=Excerpt(300, 10)), tmp_path / "files", tmp_path)
    assert dataset is not None
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test, dataset.contiguous)] == [95, 5, 50, 300]
    for name, frames in (("train", dataset.train), ("test", dataset.test)):
        index = parse_indices(dataset.metadata.split["indices"][name])
        np.testing.assert_allclose(frames.positions.numpy(), ARRAYS["R"][index], rtol=0, atol=1e-6)
        np.testing.assert_allclose(frames.energy.numpy(), ARRAYS["E"][index, 0] * KCAL_PER_MOL, rtol=1e-14)
        np.testing.assert_allclose(frames.labels.numpy(), ARRAYS["F"][index] * KCAL_PER_MOL, rtol=1e-6, atol=1e-6)
    assert make(published, request(contiguous=Excerpt(300, 10)), tmp_path / "files", tmp_path) is None
    assert len(server.requests) == 1


def test_contiguous_frames_are_in_time_order_with_velocities(served, tmp_path):
    make(served[0], request(contiguous=Excerpt(300, 10)), tmp_path / "files", tmp_path)
    trajectory = load_dataset(tmp_path, "md17", "ethanol", "100").contiguous_trajectory()
    assert trajectory.frame_interval_fs == 0.5
    np.testing.assert_allclose(trajectory.positions[:, 0].numpy(), ARRAYS["R"][13:313], rtol=0, atol=1e-6)
    central = (ARRAYS["R"][14:314] - ARRAYS["R"][12:312]) / (2 * 0.5 * FS)
    assert trajectory.velocities is not None
    difference = np.linalg.norm(trajectory.velocities[:, 0].numpy() - central) / np.linalg.norm(central)
    assert difference < 0.03  # of second order only


def test_sizes_share_the_file_and_the_test_frames(served, tmp_path):
    published, server = served
    for size in ("40", "100"):
        make(published, request(size, contiguous=Excerpt(100)), tmp_path / "files", tmp_path)
    small, large = (load_dataset(tmp_path, "md17", "ethanol", size) for size in ("40", "100"))
    assert torch.equal(small.test.positions, large.test.positions)
    assert torch.equal(small.contiguous.positions, large.contiguous.positions)
    assert len(server.requests) == 1


def test_shared_files_keep_their_bytes(served, tmp_path):
    """Another program compresses differently: what other sizes already vouch for with a sha256 is not written again."""
    published, _ = served
    first = make(published, request("40"), tmp_path / "files", tmp_path)
    path = tmp_path / "md17" / "ethanol" / "test.npz"
    with np.load(path) as arrays:
        np.savez(path, **dict(arrays))
    assert first is not None and holds(path, first.test)
    before = path.read_bytes()
    write_dataset(tmp_path / "md17" / "ethanol" / "60", {"train": first.train}, {"test": first.test}, first.metadata)
    assert path.read_bytes() == before and not holds(path, first.train)


def test_contiguous_frames_can_be_added_later(served, tmp_path):
    published, _ = served
    first = make(published, request(), tmp_path / "files", tmp_path)
    assert first is not None and "contiguous.npz" not in first.metadata.sha256
    second = make(published, request(contiguous=Excerpt(50)), tmp_path / "files", tmp_path)
    assert second is not None and second.metadata.sha256["train.npz"] == first.metadata.sha256["train.npz"]
    assert make(published, request(), tmp_path / "files", tmp_path) is None
    assert load_dataset(tmp_path, "md17", "ethanol", "100").contiguous_trajectory().n_frames == 50
    with pytest.raises(DatasetError, match=r"other settings .contiguous: .*'frames': 50.* now .*'frames': 60"):
        make(published, request(contiguous=Excerpt(60)), tmp_path / "files", tmp_path)


def test_other_settings_are_not_mixed_in(served, tmp_path):
    published, _ = served
    make(published, request(), tmp_path / "files", tmp_path)
    for other in (request("40", seed=1), replace(request("40"), test_frames=60)):
        with pytest.raises(DatasetError, match=r"was made with other settings \((seed|test_frames): .*, now "):
            make(published, other, tmp_path / "files", tmp_path)
    another = tmp_path / "another.npz"
    another.write_bytes(archive(ethanol(N_FRAMES, seed=1)))
    with pytest.raises(DatasetError, match=r"other settings .source_sha256"):
        make(published, request("40", from_file=another), tmp_path / "files", tmp_path)


def test_a_damaged_size_is_noticed(served, tmp_path):
    published, _ = served
    make(published, request(), tmp_path / "files", tmp_path)
    path = tmp_path / "md17" / "ethanol" / "100" / "val.npz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DatasetError, match=r"val.npz: sha256 is .* the file is truncated or was changed"):
        make(published, request(), tmp_path / "files", tmp_path)


def test_a_file_at_hand_is_taken(served, tmp_path, caplog):
    published, server = served
    (tmp_path / "mine.npz").write_bytes(archive({name: a[:300] if len(a) > 9 else a for name, a in ARRAYS.items()}))
    logging.getLogger("mdsim").propagate = True
    with caplog.at_level(logging.WARNING, "mdsim"):
        dataset = make(published, request(from_file=tmp_path / "mine.npz"), tmp_path / "files", tmp_path)
    assert dataset is not None and not server.requests
    assert "holds 300 frames, published were 400" in caplog.text
    with pytest.raises(DatasetError, match="no such file"):
        make(published, request("40", from_file=tmp_path / "absent.npz"), tmp_path / "files", tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.full(9, 6)}, "holds C9, but ethanol is C2H6O"),
        ({"R": ARRAYS["R"][:99], "E": ARRAYS["E"][:99], "F": ARRAYS["F"][:99]}, "holds 99 frames, published were 400"),
        (
            {"F": ARRAYS["F"] * KCAL_PER_MOL},
            r"bonds to hydrogen have 1.\d+ eV/Å² in kcal/mol/angstrom, instead of 30 to 48",
        ),
        ({"F": -ARRAYS["F"]}, "these are gradients of the energy"),
        ({"E": np.full((N_FRAMES, 1), np.inf)}, "energies of 400 frames"),
        ({"R": ARRAYS["R"] / 0.529}, "nearest neighbors are 1.9.* times the sum of their covalent radii"),
    ],
)
def test_a_file_of_something_else_is_refused(served, tmp_path, change, message):
    published, server = served
    server.files[published.remote.name] = archive(ARRAYS | change)
    with pytest.raises(DatasetError, match=message):
        make(published, request(), tmp_path / "files", tmp_path)
    assert not (tmp_path / "md17").exists()


def test_shuffled_frames_give_no_contiguous_ones(served, tmp_path):
    published, server = served
    order = np.random.default_rng(0).permutation(N_FRAMES)
    shuffled = {name: array[order] if len(array) == N_FRAMES else array for name, array in ARRAYS.items()}
    server.files[published.remote.name] = archive(shuffled)
    with pytest.raises(DatasetError, match="frames are not in time order"):
        make(published, request(contiguous=Excerpt(100)), tmp_path / "files", tmp_path)
    assert make(published, request(), tmp_path / "files", tmp_path) is not None


def save_water(path: Path, **change: np.ndarray) -> Path:
    np.save(path, water(30) | change)  # type: ignore[arg-type]
    return path


def small_water(n_frames: int) -> PublishedSet:
    return replace(water_set.MOLECULES[0], n_frames=n_frames)


def test_water_is_read_whole(tmp_path):
    arrays = water(30)
    raw = read_water(save_water(tmp_path / "water.npy"))
    assert raw.units == Units("angstrom", "kcal/mol", "kcal/mol/angstrom", "angstrom/fs")
    frames = raw.frames()
    assert frames.cell is not None and torch.equal(frames.cell, 12.42 * torch.eye(3, dtype=torch.float64))
    np.testing.assert_array_equal(frames.positions.numpy(), arrays["unwrapped_coords"])
    np.testing.assert_allclose(frames.energy.numpy(), arrays["energy"] * KCAL_PER_MOL)


@pytest.mark.parametrize("numbers", [(8, 1), (1, 2), (0, 1), (2, 1)])
def test_labels_of_elements_do_not_matter(tmp_path, numbers):
    types = np.tile([numbers[0], numbers[1], numbers[1]], 64)
    raw = read_water(save_water(tmp_path / "water.npy", atom_types=types))
    assert raw.atomic_numbers.tolist() == [8, 1, 1] * 64


@pytest.mark.parametrize(("unit", "factor"), [("angstrom/fs", 1.0), ("angstrom/ps", 1e3), ("ase", 1 / FS)])
def test_the_unit_of_velocities_is_told_by_the_temperature(tmp_path, unit, factor):
    raw = read_water(save_water(tmp_path / "water.npy", velocities=water(30)["velocities"] * factor))
    assert raw.units.velocities == unit
    velocities = raw.frames().velocities
    assert velocities is not None
    np.testing.assert_allclose(velocities.numpy() * FS, water(30)["velocities"], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"velocities": 3 * water(30)["velocities"]}, "in none of .* do velocities have 300 K"),
        ({"angles": np.array([90.0, 90.0, 60.0])}, "not orthorhombic"),
        ({"lengths": 12 + np.random.default_rng(0).random((30, 3))}, "the cell changes"),
        ({"atom_types": np.ones(192)}, "which is not water"),
        ({"forces": np.zeros((29, 192, 3))}, "forces has shape"),
        ({"energy": np.zeros(29)}, "holds 29 energies for 30 frames"),
    ],
)
def test_other_water_is_refused(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        read_water(save_water(tmp_path / "water.npy", **change))


def test_water_becomes_a_set(tmp_path):
    path = save_water(tmp_path / "water.npy")
    chosen = Request("20", Excerpt(30), test_frames=5, from_file=path)
    dataset = make(small_water(30), chosen, tmp_path / "files", tmp_path)
    assert dataset is not None
    assert dataset.metadata.contiguous_frame_interval_fs == 10.0 and len(dataset.contiguous) == 30
    assert "not density-functional theory" in dataset.metadata.level_of_theory
    system = dataset.system()
    assert system.n_molecules == 64 and len(system.bonds) == 128
    np.testing.assert_allclose(dataset.contiguous.positions.numpy(), water(30)["unwrapped_coords"], rtol=0, atol=1e-5)
