"""Mixed sets: frames of several compositions and cells, and stress labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mixed_frames import geometries, labeled, mixed, write_mixed_data

from mdsim.datasets import Frames, load_dataset, load_mixed_dataset
from mdsim.datasets.mixed import MixedFrames, read_mixed_frames
from mdsim.datasets.npz import read_frames, write_frames, write_npz
from mdsim.datasets.systems import system_of, systems_of
from mdsim.errors import DatasetError


@pytest.fixture(scope="module")
def images():
    return labeled(geometries(3))


@pytest.fixture(scope="module")
def frames(images) -> MixedFrames:
    return mixed(images)


def test_frames_survive_writing(tmp_path, frames):
    write_frames(tmp_path / "x.npz", frames)
    again = read_mixed_frames(tmp_path / "x.npz", require_forces=True)
    for name in ("atomic_numbers", "n_atoms", "energy", "cell"):
        assert torch.equal(getattr(again, name), getattr(frames, name)), name
    for name in ("positions", "forces", "stress"):
        expected = getattr(frames, name)
        torch.testing.assert_close(getattr(again, name).double(), expected, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_open_frames_without_stresses_have_no_such_arrays(frames):
    of_molecules = frames[~frames.is_periodic]
    assert of_molecules.arrays().keys() == {"z", "R", "n_atoms", "E", "F"}


@pytest.mark.parametrize(
    "index", [slice(1, 9, 3), torch.tensor([7, 0, 0]), torch.arange(12) % 4 == 3], ids=["slice", "indices", "mask"]
)
def test_indexing_chooses_whole_frames(frames, images, index):
    chosen, expected = frames[index], [images[i] for i in torch.arange(12)[index].tolist()]
    assert chosen.formulas == [atoms.get_chemical_formula() for atoms in expected]
    np.testing.assert_array_equal(chosen.positions, np.concatenate([atoms.positions for atoms in expected]))
    np.testing.assert_array_equal(chosen.labels, np.concatenate([atoms.get_forces() for atoms in expected]))
    np.testing.assert_array_equal(chosen.energy, [atoms.get_potential_energy() for atoms in expected])
    assert chosen.is_periodic.tolist() == [bool(atoms.pbc.all()) for atoms in expected]


def test_compositions_kinds_and_systems(frames, images):
    assert frames.compositions == {"CH4O": 3, "H2O": 3, "CH4": 3, "H4O2": 3}
    assert [len(kind) for kind in frames.kinds()] == [3, 3, 3, 1, 1, 1]  # every crystal has its own cell
    systems = systems_of(frames, torch.float64)
    assert [system.n_atoms for system in systems] == [len(atoms) for atoms in images]
    assert [system.n_molecules for system in systems[:4]] == [1, 1, 1, 2]
    assert systems[0] is systems[4], "frames of one kind share their system"
    np.testing.assert_array_equal(systems[7].cell, images[7].cell.array)
    assert systems[0].cell is None and len(systems[0].bonds) == 5
    assert not len(systems_of(frames, find_bonds=False)[0].bonds)


def test_frames_of_one_kind(frames, images):
    methanol = frames.alike(frames.kinds()[0])
    np.testing.assert_array_equal(methanol.positions[1], images[4].positions)
    assert methanol.stress is None and methanol.cell is None
    again = MixedFrames.of(methanol)
    assert torch.equal(again.positions, frames[frames.kinds()[0]].positions) and again.compositions == {"CH4O": 3}
    crystal = frames.alike(torch.tensor([7]))
    assert torch.equal(crystal.stress[0], frames.stress[7]) and torch.equal(crystal.cell, frames.cell[7])


def test_joining_sets_with_and_without_cells(frames):
    parts = [frames[~frames.is_periodic], frames[frames.is_periodic]]
    parts[0] = replace(parts[0], cell=None, stress=None)
    joined = MixedFrames.cat(parts)
    assert joined.is_periodic.tolist() == 9 * [False] + 3 * [True]
    assert joined.has_stress.tolist() == joined.is_periodic.tolist()


def _changed(**changes):
    def change(arrays: dict) -> dict:
        return {name: value for name, value in {**arrays, **changes}.items() if value is not None}

    return change


def _edited(name: str, index: tuple, value: float):
    def change(arrays: dict) -> dict:
        array = arrays[name].copy()
        array[index] = value
        return {**arrays, name: array}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_changed(F=None), "misses F"),
        (_changed(V=np.zeros((60, 3))), "does not know the arrays V"),
        (_changed(n_atoms=np.full(12, 4)), "n_atoms must be positive and sum to the 60 atoms"),
        (_edited("n_atoms", (0,), 0), "n_atoms must be positive"),
        (_changed(n_atoms=np.zeros(0, dtype=int)), "shape"),
        (_edited("R", (3, 1), np.nan), "R holds 1 values that are not finite"),
        (_edited("z", (2,), 0), "z of atom 2 is 0"),
        (_changed(E=np.zeros(12, dtype=np.float32)), "expected float64"),
        (
            _edited("cell", (3, 0, slice(None)), 0.0),
            "frame 3: the boundaries are mixed, periodic along b and c and open along a",
        ),
        (_edited("stress", (3, 0, 1), np.nan), "stress of frame 3 is incomplete"),
        (_edited("stress", (3, 0, 1), 0.7), "stress of frame 3 is not symmetric"),
        (_edited("stress", (0,), 0.01 * np.eye(3)), "frame 0 has a stress, but open boundaries"),
        (_edited("stress", (3,), 100 * np.eye(3)), "cannot be eV/Å³"),
        (_edited("F", (slice(None),), 100.0), "cannot be eV/Å"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, frames, change, message):
    write_npz(tmp_path / "x.npz", change(frames.arrays()))
    with pytest.raises(DatasetError, match=message):
        read_mixed_frames(tmp_path / "x.npz", require_forces=True)


def test_readers_of_one_composition_refuse_them(tmp_path, frames):
    write_frames(tmp_path / "x.npz", frames)
    with pytest.raises(DatasetError, match="several compositions or cells"):
        read_frames(tmp_path / "x.npz")


def test_a_data_set_on_disk(tmp_path, frames):
    write_mixed_data(tmp_path)
    dataset = load_mixed_dataset(tmp_path, "toy", "mixed", "all")
    assert len(dataset.train) == 24 and len(dataset.val) == 8 and len(dataset.test) == 12
    assert dataset.metadata.compositions == {"CH4O": 11, "H2O": 11, "CH4": 11, "H4O2": 11}
    with pytest.raises(
        DatasetError, match=r"several compositions or cells.*data.composition chooses one of CH4O \(11 frames\)"
    ):
        load_dataset(tmp_path, "toy", "mixed", "all")
    (tmp_path / "toy/mixed/all/train.npz").write_bytes((tmp_path / "toy/mixed/all/val.npz").read_bytes())
    with pytest.raises(DatasetError, match="was changed"):
        _ = load_mixed_dataset(tmp_path, "toy", "mixed", "all").train


def test_one_composition_of_a_mixed_set(tmp_path):
    write_mixed_data(tmp_path)
    methanol = load_mixed_dataset(tmp_path, "toy", "mixed", "all").of_composition("CH4O")
    assert isinstance(methanol.train, Frames) and len(methanol.train) == 6 and len(methanol.test) == 3
    assert methanol.system().n_atoms == 6 and len(methanol.reference_bond_lengths()) == 5
    assert methanol.metadata.atomic_numbers == methanol.train.atomic_numbers.tolist()
    assert system_of(methanol.train).n_molecules == 1
    with pytest.raises(DatasetError, match=r"no frames of CH3; name one of CH4O \(11 frames\)"):
        load_mixed_dataset(tmp_path, "toy", "mixed", "all").of_composition("CH3")
    with pytest.raises(DatasetError, match=r"has no contiguous.npz"):
        _ = methanol.contiguous


def test_frames_in_other_cells_than_most_are_left_out_with_a_warning(tmp_path, caplog):
    write_mixed_data(tmp_path)
    dataset = load_mixed_dataset(tmp_path, "toy", "mixed", "all")
    crystal = dataset.of_composition("H4O2")
    with caplog.at_level("WARNING", "mdsim"):
        assert len(crystal.train) == 1
    assert "5 of 6 frames of H4O2 in train.npz have another order of atoms or cell" in caplog.text
    with pytest.raises(DatasetError, match=r"no frame of H4O2 in test.npz has the order of atoms and the cell"):
        _ = crystal.test


def test_stresses_of_one_composition(tmp_path, ethanol_frames):
    cell = 12.0 * torch.eye(3, dtype=torch.float64)
    stress = 0.01 * torch.ones(30, 3, 3, dtype=torch.float64)
    stress[7] = torch.nan
    of_crystal = replace(ethanol_frames, cell=cell, stress=stress)
    write_frames(tmp_path / "x.npz", of_crystal)
    again = read_frames(tmp_path / "x.npz")
    torch.testing.assert_close(again.stress.double(), stress, rtol=1e-6, atol=0, equal_nan=True)
    assert torch.equal(again[3:9].stress.isnan(), stress[3:9].isnan())
    write_frames(tmp_path / "y.npz", replace(of_crystal, cell=None))
    with pytest.raises(DatasetError, match="open boundaries"):
        read_frames(tmp_path / "y.npz")
