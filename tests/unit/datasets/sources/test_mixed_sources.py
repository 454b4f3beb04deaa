"""Conversion of files of several compositions and cells, and of stress labels."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase_ethanols import DESCRIPTION, periodic
from sprung_molecules import ATOM_EV, isolated_atoms, many_molecules, sprung

from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.sources import mixed, own
from mdsim.datasets.sources.ase_files import Reading
from mdsim.datasets.sources.own import Conversion
from mdsim.datasets.sources.raw import Units
from mdsim.datasets.sources.stress_labels import stresses_of
from mdsim.errors import DatasetError
from mdsim.units import KCAL_PER_MOL


def _written(path, images):
    ase.io.write(path, images)
    return path


def _prepared(*paths, reading: Reading | None = None, units: Units | None = None, **options):
    conversion = Conversion(tuple(paths), DESCRIPTION, reading or Reading(), units or Units(), mixed=True, **options)
    return mixed.prepare(conversion)


def _assert_same(frames: MixedFrames, images: list[Atoms]) -> None:
    assert frames.formulas == [atoms.get_chemical_formula() for atoms in images]
    for index, atoms in enumerate(images):
        one = frames[index : index + 1]
        np.testing.assert_allclose(one.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(one.labels, atoms.get_forces(), atol=1e-7)
        assert abs(float(one.energy[0]) - atoms.get_potential_energy()) < 1e-6
        assert bool(one.is_periodic[0]) == bool(atoms.pbc.all())
        if atoms.pbc.all():
            np.testing.assert_allclose(one.cell[0], atoms.cell.array, atol=1e-9)
            np.testing.assert_allclose(one.stress[0], atoms.get_stress(voigt=False), atol=1e-9)


def test_all_frames_in_their_order(tmp_path):
    images = many_molecules()
    found = _prepared(_written(tmp_path / "x.extxyz", images))
    _assert_same(found.frames, images)
    assert found.place.tolist() == list(range(36)) and found.lengths == [36]
    assert dict(found.found)["units"].startswith("eV, eV/angstrom, angstrom: detected")
    rows = dict(found.table())
    assert rows["compositions"] == "3: C2H6O 12, CH4 12, H3N 12" and rows["frames"] == "36; 12 periodic"
    assert rows["stress"].startswith("12 frames, root mean square")


def test_several_files(tmp_path):
    images = many_molecules()
    paths = [_written(tmp_path / f"{i}.extxyz", part) for i, part in enumerate((images[:15], images[15:]))]
    found = _prepared(*paths)
    _assert_same(found.frames, images)
    assert found.lengths == [15, 21] and found.place.tolist() == list(range(36))


def test_without_the_flag_the_error_names_it(tmp_path):
    path = _written(tmp_path / "x.extxyz", many_molecules())
    with pytest.raises(DatasetError, match=r"compositions found are .*--formula; or --mixed"):
        own.prepare(Conversion((path,), DESCRIPTION))
    cells = _written(tmp_path / "y.extxyz", periodic(change=0.1))
    with pytest.raises(DatasetError, match=r"the cell changes.*--mixed makes"):
        own.prepare(Conversion((cells,), DESCRIPTION))
    others = _written(tmp_path / "z.extxyz", sprung("CH4", 12))
    with pytest.raises(DatasetError, match=r"composition \(--mixed"):
        own.prepare(Conversion((_written(tmp_path / "a.extxyz", sprung("CH3CH2OH", 12)), others), DESCRIPTION))


def test_isolated_atoms_give_reference_energies(tmp_path):
    images = many_molecules()
    found = _prepared(_written(tmp_path / "x.extxyz", [*images[:5], *isolated_atoms(), *images[5:]]))
    _assert_same(found.frames, images)
    assert found.atoms_eV == {"H": ATOM_EV[1], "C": ATOM_EV[6], "N": ATOM_EV[7], "O": ATOM_EV[8]}
    low, _, high, *unit = dict(found.found)["binding energy"].split()
    assert 2.9 < float(low) < float(high) < 3.0 and unit == ["eV", "per", "atom"]
    assert found.place.tolist() == [*range(5), *range(9, 40)]


def test_crystals_of_one_atom_are_kept(tmp_path):
    crystals = []
    for length in (2.4, 2.5, 2.6):
        atoms = Atoms("N", cell=length * np.eye(3), pbc=True)
        stress = 0.01 * (length - 2.5) * np.eye(3)
        atoms.calc = SinglePointCalculator(atoms, energy=ATOM_EV[7] - 1.0, forces=np.zeros((1, 3)), stress=stress)
        crystals.append(atoms)
    found = _prepared(_written(tmp_path / "x.extxyz", [*many_molecules(), *crystals]))
    assert found.frames.compositions["N"] == 3
    assert found.frames.has_stress.sum() == 14, "an exact zero is a missing label"


def test_units_are_detected_where_bonds_tell_them(tmp_path):
    images = many_molecules()
    for atoms in images:
        results = {"energy": atoms.get_potential_energy() / KCAL_PER_MOL, "forces": atoms.get_forces() / KCAL_PER_MOL}
        atoms.calc = SinglePointCalculator(atoms, **results)
    found = _prepared(_written(tmp_path / "x.extxyz", images))
    expected = torch.tensor([atoms.get_potential_energy() for atoms in many_molecules()])
    torch.testing.assert_close(found.frames.energy, expected, rtol=1e-7, atol=1e-5, check_dtype=False)


def test_repeats_are_left_out(tmp_path):
    images = many_molecules()
    turned = images[4].copy()
    turned.calc = images[4].calc
    found = _prepared(_written(tmp_path / "x.extxyz", [*images, turned]))
    assert len(found.frames) == 36 and ("repeated frames", "1 left out") in found.found


def test_labels_of_another_method_are_found(tmp_path):
    images = many_molecules()
    rng = np.random.default_rng(0)
    for atoms in images:
        energy = atoms.get_potential_energy() + 3.0 * rng.standard_normal()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.get_forces())
    path = _written(tmp_path / "x.extxyz", images)
    with pytest.raises(DatasetError, match="energy differences of similar frames"):
        _prepared(path)
    assert any(label == "warning" for label, _ in _prepared(path, allow_inconsistent=True).found)


def test_filters_and_open_boundaries(tmp_path):
    path = _written(tmp_path / "x.extxyz", many_molecules())
    assert _prepared(path, reading=Reading(formula="CH4")).frames.compositions == {"CH4": 12}
    opened = _prepared(path, reading=Reading(open_boundaries=True)).frames
    assert not opened.is_periodic.any() and not opened.has_stress.any()


# ---------------------------------------------------------------------------------------------------- stress labels


def _crystal(**info) -> Atoms:
    return Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]], cell=np.diag([3.0, 4.0, 5.0]), pbc=True, info=info)


STRESS = np.array([[0.01, 0.002, 0.0], [0.002, -0.03, 0.004], [0.0, 0.004, 0.05]])
VOIGT = STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


@pytest.mark.parametrize(
    "info",
    [
        {"REF_stress": STRESS},
        {"REF_stress": STRESS.ravel()},
        {"dft_stress": VOIGT},
        {"virial": -60.0 * STRESS},
        {"REF_virials": -60.0 * VOIGT},
        {"stress": STRESS, "virial": -60.0 * STRESS},
        {"stress": STRESS, "stress_weight": 1.0, "stress_std": STRESS},
    ],
)
def test_stresses_and_virials(tmp_path, info):
    _, (stress, none), _ = stresses_of(tmp_path, [_crystal(**info), _crystal()], None)
    np.testing.assert_allclose(stress, STRESS, atol=1e-12)
    assert none is None


def test_those_of_files_of_ase(tmp_path):
    atoms = _crystal()
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, stress=VOIGT)
    _, (stress,), _ = stresses_of(tmp_path, ase.io.read(_written(tmp_path / "x.extxyz", atoms), ":"), None)
    np.testing.assert_allclose(stress, STRESS, atol=1e-7)


def test_the_choice_between_several(tmp_path):
    images = [_crystal(stress=STRESS, REF_stress=2 * STRESS)]
    with pytest.raises(DatasetError, match=r"stress and REF_stress may each be the stress.*--stress-key"):
        stresses_of(tmp_path, images, None)
    assert np.allclose(stresses_of(tmp_path, images, "REF_stress")[1][0], 2 * STRESS)
    assert stresses_of(tmp_path, images, "none") == (None, [None], [])
    with pytest.raises(DatasetError, match="no periodic frame has a stress named 'x'"):
        stresses_of(tmp_path, images, "x")


def test_molecules_and_zeros_have_none(tmp_path):
    molecule = Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]], info={"stress": STRESS})
    _, found, remarks = stresses_of(tmp_path, [molecule, _crystal(stress=0 * STRESS), _crystal(stress=STRESS)], None)
    assert found[0] is None and found[1] is None and found[2] is not None
    assert remarks == ["1 stresses of exactly zero are taken for missing ones"]


def test_sets_of_one_composition_keep_their_stresses(tmp_path):
    cell = np.diag([6.0, 6.5, 7.0])
    images = [atoms for atoms in sprung("NH3", 36, cell=cell) if np.allclose(atoms.cell.array, cell)]
    raw = own.prepare(Conversion((_written(tmp_path / "x.extxyz", images),), DESCRIPTION)).raw
    np.testing.assert_allclose(raw.frames().stress, [atoms.get_stress(voigt=False) for atoms in images], atol=1e-9)
    assert dict(raw.found)["labels"] == "energy, forces and stress"
