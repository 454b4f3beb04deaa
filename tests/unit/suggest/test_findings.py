"""Findings in a data set: closed forms, and one clear line for unusable data."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import units
from toy_frames import BOX_A, SPRING_EV_PER_A2, argon, labeled, liquid, molecule, vibrating

from mdsim.assembly.references import reference
from mdsim.datasets.npz import Frames, write_frames
from mdsim.errors import DatasetError
from mdsim.observables.rdf import RDF
from mdsim.suggest.choices import bond_tolerance_A
from mdsim.suggest.findings import inspect
from mdsim.suggest.place import place_of
from mdsim.units import KB_EV_PER_K


def test_the_fastest_vibration_has_the_period_of_the_spring(write_set):
    fastest = inspect(write_set(n=1500)).fastest_vibration
    reduced_amu = 15.999 * 1.008 / (15.999 + 1.008)
    period_fs = 2 * math.pi * math.sqrt(reduced_amu / SPRING_EV_PER_A2) / units.fs
    assert fastest.bond == "O-H" and fastest.period_fs == pytest.approx(period_fs, rel=0.03)


def test_deviations_are_those_from_the_means_over_the_training_frames(write_set):
    found = inspect(write_set())
    lengths = torch.cat([vibrating(n, seed)[:, 1:].norm(dim=-1) for n, seed in ((40, 0), (5, 1), (20, 2))])
    assert found.bonds.largest_deviation == pytest.approx(float((lengths - lengths[:40].mean(0)).abs().max()), abs=1e-5)
    assert 4.0 < found.angles.largest_deviation < 10.0  # of a standard deviation of 2 degrees, in 65 frames


def test_a_larger_size_beside_it_gives_the_references(write_set):
    write_set(n=80, size="80")
    found = inspect(write_set())
    assert found.reference.folder.name == "80" and found.n_train == 40
    assert len(found.structures) == 40 + 5 + 20 + 80


def test_contacts_and_pairs_of_a_liquid(write_set):
    found = inspect(write_set(liquid))
    assert found.is_liquid and found.system.n_molecules == 8
    assert found.half_height_A == pytest.approx(BOX_A / 2)
    brute = min(float(_distances(frame)) for frame in found.structures)
    assert found.closest_contact_A == pytest.approx(brute, abs=1e-4)
    assert found.pairs_within(4.0) == round(0.5 * 24**2 * (4 / 3 * math.pi * 4.0**3) / BOX_A**3)


def _distances(positions: torch.Tensor) -> torch.Tensor:
    """Closest approach of two molecules, over all images by hand."""
    images = BOX_A * torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 3).double()
    arms = positions[:, None, None] - positions[None, :, None] + images
    apart = torch.arange(24)[:, None] // 3 != torch.arange(24)[None, :] // 3
    return arms.norm(dim=-1).amin(-1)[apart].min()


def test_pairs_of_a_molecule_are_counted(write_set):
    found = inspect(write_set())
    assert found.pairs_within(1.3) == 2 and found.pairs_within(5.0) == 3
    longest = max(float(torch.pdist(frame).max()) for frame in found.structures)
    assert found.longest_distance_A == pytest.approx(longest)


def test_molecules_far_apart_are_in_contact_somewhere(write_set):
    """The search for the closest contact grows until it finds one."""

    def pair(n: int, seed: int) -> Frames:
        apart = torch.tensor([17.0, 0.0, 0.0]).double()
        positions = torch.cat([vibrating(n, seed), vibrating(n, seed + 100) + apart], dim=1)
        return labeled(torch.tensor([8, 1, 1, 8, 1, 1]), positions)

    found = inspect(write_set(pair))
    first, second = found.structures[:, :3], found.structures[:, 3:]
    assert found.closest_contact_A == pytest.approx(float(torch.cdist(first, second).min()))


def test_fewer_frames_of_large_systems_are_looked_at(write_set):
    found = inspect(write_set())
    assert len(found._some(3, 10**6)) == 105
    assert len(found._some(3, 30)) == 10 and len(found._some(10**9, 30)) == 2


def moving(temperature_K: float) -> Frames:
    """Contiguous frames whose momenta are thermal and free."""
    frames = molecule(400, 4)
    masses = torch.tensor([15.999, 1.008, 1.008])[:, None]
    noise = torch.randn(frames.positions.shape, generator=torch.Generator().manual_seed(1))
    return replace(frames, velocities=noise * (KB_EV_PER_K * temperature_K / masses).sqrt())


def test_the_temperature_is_asked_for_or_stated_or_from_velocities(write_set):
    contiguous = {"contiguous": moving(450.0), "contiguous_frame_interval_fs": 1.0}
    stated = write_set(**contiguous)
    assert inspect(stated).temperature.value_K == 300
    asked = inspect(stated, 350.0).temperature
    assert (asked.value_K, asked.of_data_K) == (350.0, 300.0)
    unstated = inspect(write_set(size="41", temperature_K=None, **contiguous)).temperature
    assert unstated.value_K == pytest.approx(450, rel=0.05) and "equipartition" in unstated.source


def test_a_wrong_temperature_shows_in_bonds_to_hydrogen(write_set):
    assert inspect(write_set()).doubts() == []
    (doubt,) = inspect(write_set(size="41", temperature_K=900.0)).doubts()
    assert "O-H bonds" in doubt and "is 900 K the temperature" in doubt


def test_the_place_is_found_from_within(write_set, monkeypatch):
    folder = write_set()
    root = folder.parents[2]
    monkeypatch.chdir(root.parent)
    assert place_of(Path("data/mine/x/40")).root == "data"
    monkeypatch.chdir(folder.parent)
    assert place_of(Path("40")).root == str(root)
    monkeypatch.chdir(folder)
    assert place_of(Path()).molecule == "x"


def _without_forces() -> Frames:
    return replace(molecule(40, 0), forces=None)


def _torn() -> Frames:
    frames = vibrating(40, 0)
    frames[7, 2] *= 2.5
    return labeled(molecule(1, 0).atomic_numbers, frames)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "has 1 training frame, and at least 5 are needed"),
        ({"n": 4}, "has 4 training frames"),
        ({"temperature_K": None}, "--temperature-K"),
        ({"train": _without_forces()}, "misses F"),
        ({"train": _torn()}, "the bond between atoms 0 and 2, 1.01 Å on average, is 2"),
    ],
)
def test_what_cannot_be_used_is_one_line(write_set, changes, message):
    with pytest.raises(DatasetError, match=message.replace("(", r"\(")) as raised:
        _ = inspect(write_set(**changes)).bonds
    assert "\n" not in str(raised.value)


def test_reactions_are_taken_where_it_is_said(write_set):
    found = inspect(write_set(train=_torn()), allow_reactions=True)
    assert found.bonds is not None and found.bonds.largest_deviation > 1.0
    assert found.bonds.largest_deviation < bond_tolerance_A(found.bonds, training=True).value


@pytest.mark.parametrize("n", [5, 8, 10])
def test_few_frames_give_references(write_set, n):
    """`init` takes five frames or more, and so must what comes after."""
    dataset = inspect(write_set(n=n)).dataset
    values = reference(RDF(3.0, 0.1), dataset.system(), dataset)
    assert values.isfinite().all() and values.sum() > 0


def test_one_atom_has_nothing_to_learn_from(write_set):
    def single(n: int, seed: int) -> Frames:
        return labeled(torch.tensor([18]), torch.randn(n, 1, 3).double())

    with pytest.raises(DatasetError, match="holds one atom"):
        inspect(write_set(single))


def test_paths_that_are_no_data_set(write_set, tmp_path):
    folder = write_set()
    with pytest.raises(DatasetError, match="no such folder"):
        inspect(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="is a file"):
        inspect(folder / "train.npz")
    with pytest.raises(DatasetError, match=r"is no data set.*name one of .*mine/x/40"):
        inspect(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="data convert"):
        inspect(tmp_path / "empty")


def test_damaged_files_are_found(write_set):
    folder = write_set()
    write_frames(folder.parent / "test.npz", molecule(3, 7))
    with pytest.raises(DatasetError, match="sha256"):
        inspect(folder)
    (folder.parent / "test.npz").unlink()
    with pytest.raises(DatasetError, match=r"test\.npz is neither"):
        inspect(folder)
    (folder / "metadata.json").write_text(json.dumps({"source": "?"}))
    with pytest.raises(DatasetError, match="misses the keys"):
        inspect(folder)


def test_atoms_without_bonds(write_set):
    found = inspect(write_set(argon))
    assert found.bonds is None and found.angles is None and found.fastest_vibration is None
    assert 3.0 < found.closest_contact_A < 4.0
