"""Custom frames in common formats, and one clear error for each fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase_ethanols import N_FRAMES, assert_same, images, labels, periodic, prepared

from mdsim.datasets.sources.ase_files import Reading, read_ase
from mdsim.datasets.sources.cleaning import check_bonds, first_of_each, join
from mdsim.datasets.sources.deepmd import read_deepmd
from mdsim.datasets.sources.own import read
from mdsim.datasets.sources.raw import RawFrames, Units
from mdsim.datasets.sources.sgdml import read_sgdml
from mdsim.errors import DatasetError
from mdsim.units import FS


@pytest.mark.parametrize("name", ["frames.extxyz", "frames.traj", "frames.db", "frames.json"])
def test_formats_of_ase(tmp_path, name):
    frames = images()
    path = tmp_path / name
    if name.endswith((".db", ".json")):  # databases know no lists of images
        from ase.db import connect

        with connect(path) as database:
            for atoms in frames:
                database.write(atoms)
    else:
        write(path, frames)
    assert_same(prepared(path).raw, frames)


@pytest.mark.parametrize("asked", [True, False])
def test_labels_under_names_of_their_own(tmp_path, asked):
    frames = images()
    for atoms in frames:
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
    write(tmp_path / "mace.xyz", frames, format="extxyz")
    reading = Reading("REF_energy", "REF_forces") if asked else Reading()
    raw = prepared(tmp_path / "mace.xyz", reading=reading).raw
    assert_same(raw, images())
    assert dict(raw.found)["labels"] == "REF_energy and REF_forces"


def test_two_energies_must_be_chosen_from(tmp_path):
    frames = images()
    for atoms in frames:
        atoms.info["REF_energy"] = 2 * atoms.get_potential_energy()
    write(tmp_path / "two.xyz", frames, format="extxyz")
    with pytest.raises(DatasetError, match="energy and REF_energy may each be the energy: choose with --energy-key"):
        read_ase(tmp_path / "two.xyz", Reading())
    doubled = read_ase(tmp_path / "two.xyz", Reading(energy_key="REF_energy"))
    np.testing.assert_allclose(doubled.energy, 2 * labels(frames)[1])


def test_a_missing_label_is_named_with_what_is_there(tmp_path):
    frames = images(3)
    for atoms in frames:
        atoms.calc = None
        atoms.info["remark"] = "x"
    write(tmp_path / "none.xyz", frames, format="extxyz")
    with pytest.raises(DatasetError, match="have no energy; they have remark"):
        read_ase(tmp_path / "none.xyz", Reading())
    with pytest.raises(DatasetError, match="frame 0 has no energy named 'E0'; it has remark"):
        read_ase(tmp_path / "none.xyz", Reading("E0", "F0"))


def test_isolated_atoms_are_left_out_and_frames_keep_their_numbers(tmp_path):
    single = Atoms("C", positions=[[0, 0, 0]])
    single.calc = SinglePointCalculator(single, energy=-1.0, forces=np.zeros((1, 3)))
    frames = images()
    write(tmp_path / "with.xyz", [single, single, *frames], format="extxyz")
    raw = prepared(tmp_path / "with.xyz").raw
    assert_same(raw, frames)
    assert raw.place[0] == 2 and dict(raw.found)["isolated atoms"] == "2 frames of one atom left out"


def test_repeated_frames_are_left_out(tmp_path):
    frames = images()
    write(tmp_path / "a.xyz", [*frames, frames[3], frames[0]], format="extxyz")
    write(tmp_path / "b.xyz", [frames[5], *images(4, seed=1)], format="extxyz")
    found = prepared(tmp_path / "a.xyz", tmp_path / "b.xyz")
    assert found.lengths == [N_FRAMES, 4] and dict(found.raw.found)["repeated frames"] == "3 left out"
    assert found.raw.place.tolist() == [*range(N_FRAMES), *range(N_FRAMES + 3, N_FRAMES + 7)]


def test_one_geometry_with_two_energies_is_refused(tmp_path):
    raw = RawFrames(np.array([1, 1]), np.zeros((2, 2, 3)), np.array([0.0, 0.5]))
    with pytest.raises(DatasetError, match=r"frames 0 and 1 have the same positions but energies of 0.0+ and 0.50+:"):
        first_of_each("file", raw)


def test_compositions_are_told_apart(tmp_path):
    other = molecule("H2O")
    other.calc = SinglePointCalculator(other, energy=-1.0, forces=np.zeros((3, 3)))
    frames = images()
    write(tmp_path / "mixed.xyz", [other, *frames], format="extxyz")
    with pytest.raises(DatasetError, match=r"C2H6O \(12 frames\), H2O \(1 frames\); .* choose it with --formula"):
        read_ase(tmp_path / "mixed.xyz", Reading())
    raw = read_ase(tmp_path / "mixed.xyz", Reading(formula="CH3CH2OH"))
    assert len(raw) == N_FRAMES and raw.place[0] == 1
    with pytest.raises(DatasetError, match="has no frames of CH4"):
        read_ase(tmp_path / "mixed.xyz", Reading(formula="CH4"))


def reordered(atoms: Atoms, order: list[int]) -> Atoms:
    moved = atoms[order]
    moved.calc = SinglePointCalculator(moved, energy=atoms.get_potential_energy(), forces=atoms.get_forces()[order])
    return moved


def test_elements_in_another_order_are_refused(tmp_path):
    frames = images()
    order = [0, 2, 1, *range(3, 9)]  # oxygen before the second carbon
    frames[7] = reordered(frames[7], order)
    write(tmp_path / "order.xyz", frames, format="extxyz")
    with pytest.raises(DatasetError, match=r"frame 7 lists its atoms in another order than frame 0 \(atom 1 is"):
        read_ase(tmp_path / "order.xyz", Reading())


def hydrogens_exchanged() -> list[Atoms]:
    """The hydrogen of the OH group and one of the CH3 group change their numbers in one frame."""
    frames = images()
    order = list(range(9))
    on_oxygen = int(frames[0].get_distances(2, range(3, 9)).argmin()) + 3
    on_carbon = int(frames[0].get_distances(1, range(3, 9)).argmin()) + 3
    order[on_oxygen], order[on_carbon] = on_carbon, on_oxygen
    frames[5] = reordered(frames[5], order)
    return frames


def test_atoms_of_one_element_that_change_places_are_refused(tmp_path):
    write(tmp_path / "order.xyz", hydrogens_exchanged(), format="extxyz")
    with pytest.raises(DatasetError, match=r"in 1 frames, the first of them 5, the same molecule .*--allow-reactions"):
        prepared(tmp_path / "order.xyz")
    raw = prepared(tmp_path / "order.xyz", allow_relabeled=True).raw
    assert "1 frames have other bonds than most (frame 5)" in dict(raw.found)["warning"]


def test_a_broken_bond_is_no_renumbering(tmp_path):
    frames = images()
    away = frames[4].positions[8] - frames[4].get_center_of_mass()
    frames[4].positions[8] += 3 * away / np.linalg.norm(away)
    frames[4].calc.atoms.positions[:] = frames[4].positions
    write(tmp_path / "broken.xyz", frames, format="extxyz")
    raw = read_ase(tmp_path / "broken.xyz", Reading())
    known = prepared(tmp_path / "broken.xyz").raw
    assert len(raw) == N_FRAMES and "(frame 4)" in dict(known.found)["warning"]
    assert np.flatnonzero(check_bonds("file", known)).tolist() == [4]


def test_cells(tmp_path):
    write(tmp_path / "box.xyz", periodic(), format="extxyz")
    assert np.array_equal(read_ase(tmp_path / "box.xyz", Reading()).cell, 8 * np.eye(3))
    assert read_ase(tmp_path / "box.xyz", Reading(open_boundaries=True)).cell is None
    write(tmp_path / "pressure.xyz", periodic(0.01), format="extxyz")
    with pytest.raises(DatasetError, match=r"the cell changes between frames, by up to 0.11 Å"):
        read_ase(tmp_path / "pressure.xyz", Reading())
    slab = periodic()
    for atoms in slab:
        atoms.pbc = (True, True, False)
    write(tmp_path / "slab.xyz", slab, format="extxyz")
    with pytest.raises(DatasetError, match=r"frame 0: the boundaries are mixed.*center\(vacuum=10, axis=2\)"):
        read_ase(tmp_path / "slab.xyz", Reading())
    write(tmp_path / "both.xyz", [*periodic(), *images()], format="extxyz")
    with pytest.raises(DatasetError, match="must be periodic in three directions, or none"):
        read_ase(tmp_path / "both.xyz", Reading())


def test_velocities_of_ase_are_kept(tmp_path):
    frames = images()
    for atoms in frames:
        atoms.set_velocities(np.full((9, 3), 0.01 / FS))
    write(tmp_path / "md.traj", frames)
    velocities = prepared(tmp_path / "md.traj").raw.frames().velocities
    assert velocities is not None
    np.testing.assert_allclose(velocities.numpy() * FS, 0.01, rtol=1e-12)


def test_forces_of_a_free_energy_are_pointed_out(tmp_path):
    frames = images()
    rng = np.random.default_rng(1)
    for atoms in frames:
        atoms.calc.results["free_energy"] = atoms.get_potential_energy() + 0.1 * rng.random()
    write(tmp_path / "smeared.traj", frames)
    assert "(--energy-key free_energy)" in dict(read_ase(tmp_path / "smeared.traj", Reading()).found)["warning"]


def test_failed_calculations_are_named(tmp_path):
    frames = images()
    frames[2].calc.results["energy"] = float("nan")
    write(tmp_path / "nan.traj", frames)
    with pytest.raises(DatasetError, match=r"energies of 1 frames \(2\) are not finite"):
        read_ase(tmp_path / "nan.traj", Reading())


@pytest.mark.parametrize(("name", "content"), [("x.xyz", b"\xff\xfe\x00"), ("x.traj", b"no"), ("x.unknown", b"")])
def test_unreadable_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=r"ASE cannot read it|has no frames|should be the number of atoms"):
        read_ase(tmp_path / name, Reading())
    with pytest.raises(DatasetError, match="no such file"):
        read_ase(tmp_path / "absent.xyz", Reading())


def test_positions_and_forces_of_cp2k(tmp_path):
    from mdsim.units import BOHR, HARTREE

    frames = images()
    positions, energies, forces = labels(frames)
    symbols = frames[0].get_chemical_symbols()
    for name, values, unit in (("pos", positions, 1.0), ("frc", forces, HARTREE / BOHR)):
        lines = []
        for step in range(N_FRAMES):
            lines += ["9", f" i = {step:8d}, time = {0.5 * step:12.3f}, E = {energies[step] / HARTREE:20.10f}"]
            lines += [
                f"{s} {x:.10f} {y:.10f} {z:.10f}" for s, (x, y, z) in zip(symbols, values[step] / unit, strict=True)
            ]
        (tmp_path / f"run-{name}-1.xyz").write_text("\n".join(lines) + "\n")
    reading = Reading(cell=np.diag([9.0, 9.0, 9.0]))
    raw = prepared(tmp_path / "run-pos-1.xyz", reading=reading).raw
    assert_same(raw, frames, atol=1e-6)
    assert np.array_equal(raw.cell, np.diag([9.0, 9.0, 9.0]))
    (tmp_path / "run-frc-1.xyz").write_text("\n".join(lines[: 11 * 5]) + "\n")
    with pytest.raises(DatasetError, match="has other steps than the file of positions"):
        read_ase(tmp_path / "run-pos-1.xyz", reading)


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling><kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
<parameters/><atominfo><atoms>2</atoms><types>1</types>
<array name="atoms"><field type="string">element</field>
<set><rc><c>H </c><c>1</c></rc><rc><c>H </c><c>1</c></rc></set></array>
<array name="atomtypes"><set><rc><c>2</c><c>H </c><c>1.0</c><c>1.0</c><c>PAW</c></rc></set></array></atominfo>
<structure name="initialpos"><crystal><varray name="basis"><v>8 0 0</v><v>0 8 0</v><v>0 0 8</v></varray></crystal>
<varray name="positions"><v>0.1 0.1 0.1</v><v>0.2 0.1 0.1</v></varray></structure>
{steps}</modeling>
"""
STEP = """<calculation><scstep><energy><i name="e_fr_energy">{free}</i><i name="e_wo_entrp">{energy}</i>
<i name="e_0_energy">{energy}</i></energy></scstep>
<structure><crystal><varray name="basis"><v>8 0 0</v><v>0 8 0</v><v>0 0 8</v></varray></crystal>
<varray name="positions"><v>0.1 0.1 0.1</v><v>{x} 0.1 0.1</v></varray></structure>
<varray name="forces"><v>{minus} 0 0</v><v>{force} 0 0</v></varray>
<energy><i name="e_fr_energy">{free}</i><i name="e_wo_entrp">{energy}</i><i name="e_0_energy">{energy}</i></energy>
</calculation>
"""


def test_vasp(tmp_path):
    """A trajectory of two hydrogen atoms, as VASP writes it into vasprun.xml."""
    lengths = np.linspace(0.70, 0.80, 5)
    steps = [
        STEP.format(x=0.1 + r / 8, force=-35 * (r - 0.74), minus=35 * (r - 0.74), energy=-6.7 + r, free=-6.7 + r)
        for r in lengths
    ]
    (tmp_path / "vasprun.xml").write_text(VASPRUN.format(steps="".join(steps)))
    raw = prepared(tmp_path / "vasprun.xml").raw
    assert raw.units == Units("angstrom", "eV", "eV/angstrom", "ase") and np.array_equal(raw.cell, 8 * np.eye(3))
    np.testing.assert_allclose(raw.positions[:, 1, 0] - raw.positions[:, 0, 0], lengths, atol=1e-9)
    np.testing.assert_allclose(raw.energy, -6.7 + lengths, atol=1e-9)
    np.testing.assert_allclose(raw.forces[:, 1, 0], -35 * (lengths - 0.74), atol=1e-9)


def write_deepmd(folder: Path, frames: list[Atoms], **arrays: np.ndarray) -> None:
    positions, energy, forces = labels(frames)
    numbers = frames[0].numbers
    kinds = sorted(set(numbers.tolist()))
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join(str(kinds.index(n)) for n in numbers))
    (folder / "type_map.raw").write_text("\n".join({1: "H", 6: "C", 8: "O"}[n] for n in kinds))
    boxes = np.tile(8 * np.eye(3).reshape(1, 9), (len(frames), 1))
    content = {"coord": positions.reshape(len(frames), -1), "force": forces.reshape(len(frames), -1)}
    for name, values in (content | {"energy": energy, "box": boxes} | arrays).items():
        np.save(folder / "set.000" / f"{name}.npy", values)


def test_deepmd_systems(tmp_path):
    frames = images()
    write_deepmd(tmp_path / "one", frames[:8])
    write_deepmd(tmp_path / "two", frames[8:])
    found = prepared(tmp_path)
    assert_same(found.raw, frames)
    assert found.lengths == [8, 4] and np.array_equal(found.raw.cell, 8 * np.eye(3))
    for system in ("one", "two"):
        (tmp_path / system / "nopbc").touch()
    assert prepared(tmp_path).raw.cell is None


def test_single_precision_energies_are_pointed_out(tmp_path):
    frames = images()
    write_deepmd(tmp_path, frames, energy=(labels(frames)[1] - 30_000).astype(np.float32))
    assert "energies have single precision: steps of 0.002 eV" in dict(prepared(tmp_path).raw.found)["warning"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "type_map.raw").unlink(), "name the elements of its types with --type-map"),
        (lambda folder: (folder / "type_map.raw").write_text("H C Xy"), "Xy in the type map is not an element"),
        (
            lambda folder: (folder / "type_map.raw").write_text("H C"),
            r"type.raw has the types 0 to 2, the map \['H', 'C'\]",
        ),
        (lambda folder: (folder / "type.raw").write_text("0 1 x"), "not a list of types"),
        (lambda folder: (folder / "set.000" / "force.npy").unlink(), "force.npy: missing or damaged"),
        (lambda folder: np.save(folder / "set.000" / "coord.npy", np.zeros((12, 5))), "expected 9 atoms a frame"),
        (lambda folder: np.save(folder / "set.000" / "box.npy", np.arange(108.0).reshape(12, 9)), "the cell changes"),
        (lambda folder: np.save(folder / "set.000" / "real_atom_types.npy", np.zeros(1)), "mixes compositions"),
    ],
)
def test_damaged_deepmd_systems(tmp_path, spoil, message):
    write_deepmd(tmp_path, images())
    spoil(tmp_path)
    with pytest.raises(DatasetError, match=message):
        read_deepmd(tmp_path)


def test_deepmd_types_can_be_named(tmp_path):
    write_deepmd(tmp_path, images())
    (tmp_path / "type_map.raw").unlink()
    assert read_deepmd(tmp_path, ["H", "C", "O"])[0].atomic_numbers.tolist() == images()[0].numbers.tolist()


def sgdml_arrays() -> dict[str, np.ndarray]:
    positions, energy, forces = labels(images())
    return {"z": images()[0].numbers.astype(np.uint8), "R": positions, "E": energy[:, None], "F": forces}


def test_sgdml(tmp_path):
    arrays = sgdml_arrays()
    text = {"name": np.array("x", dtype=object), "theory": np.array("PBE"), "md5": np.array("0")}  # a pickle among them
    np.savez(tmp_path / "a.npz", **arrays, **text, r_unit=np.array("Ang"), e_unit=np.array(b"kcal/mol"))
    raw = read_sgdml(tmp_path / "a.npz")
    assert raw.units == Units("angstrom", "kcal/mol", "kcal/mol/angstrom") and raw.energy.shape == (N_FRAMES,)
    np.savez(tmp_path / "b.npz", **arrays)
    assert_same(prepared(tmp_path / "b.npz").raw, images())
    revised = {"nuclear_charges": "z", "coords": "R", "energies": "E", "forces": "F"}
    np.savez(tmp_path / "c.npz", **{name: arrays[ours] for name, ours in revised.items()})
    assert_same(prepared(tmp_path / "c.npz").raw, images())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"F": None}, "misses the arrays F; it holds z, R, E"),
        ({"F": np.zeros((12, 8, 3))}, r"F has shape \(12, 8, 3\), but R \(12, 9, 3\)"),
        ({"E": np.zeros(5)}, "holds 5 energies for 12 frames"),
        ({"z": np.array([1, 2])}, "expected .frame, 2 atoms of z, 3."),
        ({"R": np.full((12, 9, 3), np.nan)}, "positions of 12 frames .* are not finite"),
        ({"e_unit": np.array("furlong")}, "e_unit is 'furlong'"),
        ({"R": np.array([None])}, "not a readable npz file of plain arrays"),
    ],
)
def test_damaged_sgdml_files(tmp_path, change, message):
    arrays = {name: array for name, array in (sgdml_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        read_sgdml(tmp_path / "x.npz")


def test_files_that_do_not_belong_together(tmp_path):
    frames = images()
    write(tmp_path / "a.xyz", frames, format="extxyz")
    write(tmp_path / "b.xyz", [reordered(atoms, [0, 2, 1, *range(3, 9)]) for atoms in frames], format="extxyz")
    write(tmp_path / "c.xyz", periodic(), format="extxyz")
    for other, message in (("b", "the order of its atoms"), ("c", "its cell")):
        with pytest.raises(DatasetError, match=f"{other}.xyz: differs from .*a.xyz in {message}"):
            prepared(tmp_path / "a.xyz", tmp_path / f"{other}.xyz")


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(DatasetError, match="not a DeePMD-kit system; name a file"):
        read(tmp_path, Reading())


def test_one_file_joins_to_itself():
    raw = RawFrames(np.array([1]), np.zeros((2, 1, 3)), np.zeros(2), np.zeros((2, 1, 3)))
    joined, owner = join(["a"], [raw])
    assert len(joined) == 2 and owner.tolist() == [0, 0]
