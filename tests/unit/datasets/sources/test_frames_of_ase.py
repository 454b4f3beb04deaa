"""ASE frames with masses, charges and constraints, and ASE databases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCom
from ase.db import connect
from ase.io import write
from ase_ethanols import DESCRIPTION, N_FRAMES, assert_same, images, labels, periodic, prepared

from mdsim.datasets.npz import read_frames, write_frames
from mdsim.datasets.sources.ase_files import Reading, read_ase
from mdsim.datasets.sources.labels import words
from mdsim.datasets.sources.own import Conversion, prepare
from mdsim.datasets.sources.raw import Units
from mdsim.datasets.systems import system_of
from mdsim.errors import DatasetError
from mdsim.units import BOHR, KB_EV_PER_K, KCAL_PER_MOL, RYDBERG


def relabeled(energy_name: str, **others: object) -> list[Atoms]:
    frames = images()
    for atoms in frames:
        atoms.info[energy_name] = atoms.get_potential_energy()
        atoms.arrays["forces"] = atoms.get_forces()
        atoms.info |= others
        atoms.calc = None
    return frames


@pytest.mark.parametrize("energy_name", ["Etot", "U", "E0", "total_energy", "TotEnergy", "dft-energy", "REF_energy"])
@pytest.mark.parametrize("other", ["energy_weight", "kinetic_energy", "elec_energy_tol", "energy_sigma", "EnergyStd"])
def test_numbers_about_the_energy_are_not_the_energy(tmp_path, energy_name, other):
    write(tmp_path / "a.xyz", relabeled(energy_name, **{other: 0.04}), format="extxyz")
    raw = read_ase(tmp_path / "a.xyz", Reading())
    np.testing.assert_allclose(raw.energy, labels(images())[1], atol=1e-7)
    assert dict(raw.found)["labels"] == f"{energy_name} and forces" and other in dict(raw.found)["left aside"]


def test_without_a_label_the_names_are_listed(tmp_path):
    frames = relabeled("energy_weight", kinetic_energy=0.1)
    write(tmp_path / "a.xyz", frames, format="extxyz")
    with pytest.raises(DatasetError, match=r"no energy; they have energy_weight, forces, kinetic_energy.*--energy-key"):
        read_ase(tmp_path / "a.xyz", Reading())


def test_words():
    assert words("REF_energyPerAtom-2") == ["ref", "energy", "per", "atom"]


def test_masses_of_isotopes_are_kept(tmp_path):
    frames = images()
    masses = frames[0].get_masses()
    masses[3:] = 2.014
    for atoms in frames:
        atoms.set_masses(masses)
    write(tmp_path / "heavy.traj", frames)
    found = prepared(tmp_path / "heavy.traj").raw.frames()
    write_frames(tmp_path / "train.npz", found)
    again = read_frames(tmp_path / "train.npz")
    torch.testing.assert_close(system_of(again, torch.float64).masses, torch.from_numpy(masses))
    frames[2].set_masses("defaults")
    write(tmp_path / "mixed.traj", frames)
    with pytest.raises(DatasetError, match="frame 2 has other masses than frame 0"):
        read_ase(tmp_path / "mixed.traj", Reading())


def test_ordinary_masses_are_not_written(tmp_path):
    frames = images()
    for atoms in frames:
        atoms.set_masses(np.round(atoms.get_masses(), 2))
    write(tmp_path / "a.traj", frames)
    assert read_ase(tmp_path / "a.traj", Reading()).masses is None


@pytest.mark.parametrize("name", ["charge", "spin", "total_charge", "spin_multiplicity"])
def test_frames_of_different_charge_are_chosen_from(tmp_path, name):
    frames = images()
    for index, atoms in enumerate(frames):
        atoms.info[name] = int(index >= 5)
    write(tmp_path / "a.xyz", frames, format="extxyz")
    with pytest.raises(DatasetError, match=rf"differ in {name}: 1 \(7 frames\), 0 \(5 frames\).*--where {name}=1"):
        read_ase(tmp_path / "a.xyz", Reading())
    assert read_ase(tmp_path / "a.xyz", Reading(where=((name, "1.0"),))).place.tolist() == list(range(5, N_FRAMES))
    with pytest.raises(DatasetError, match=f"has no frames with {name} = 2; found"):
        read_ase(tmp_path / "a.xyz", Reading(where=((name, "2"),)))


def test_constraints_and_masks_are_refused(tmp_path):
    frames = images()
    for atoms in frames:
        atoms.set_constraint(FixCom())
    write(tmp_path / "center.traj", frames)
    assert len(read_ase(tmp_path / "center.traj", Reading())) == N_FRAMES
    frames[4].set_constraint(FixAtoms([0, 1]))
    write(tmp_path / "fixed.traj", frames)
    with pytest.raises(DatasetError, match=r"frame 4 has constraints \(FixAtoms\)"):
        read_ase(tmp_path / "fixed.traj", Reading())
    masked = images()
    masked[1].arrays["force_mask"] = np.arange(9) > 0
    write(tmp_path / "masked.xyz", masked, format="extxyz")
    with pytest.raises(DatasetError, match="frame 1 has atoms left out by force_mask"):
        read_ase(tmp_path / "masked.xyz", Reading())


def test_an_atom_that_is_no_element(tmp_path):
    frames = images()
    for atoms in frames:
        atoms.numbers[2] = 0
        atoms.calc.atoms = atoms.copy()
    write(tmp_path / "x.traj", frames)
    with pytest.raises(DatasetError, match="atom 2 has the atomic number 0, which is not an element"):
        read_ase(tmp_path / "x.traj", Reading())


@pytest.mark.parametrize("units", [None, ("kcal/mol", "kcal/mol/Ang", "Ang")])
def test_databases_of_schnetpack(tmp_path, units):
    """Scalars among the key-value pairs or the data, forces among the data, units in the metadata."""
    frames, (_, energies, forces) = images(), labels(images())
    scale = 1.0 if units is None else KCAL_PER_MOL
    with connect(tmp_path / "s.db") as database:
        if units is not None:
            names = {"energy": units[0], "forces": units[1]}
            database.metadata = {"_property_unit_dict": names, "_distance_unit": units[2]}
        for index, atoms in enumerate(frames):
            atoms.calc = None
            data = {"energy": np.array([energies[index] / scale]), "forces": forces[index] / scale}
            database.write(atoms, key_value_pairs={"step": index}, data=data)
    raw = prepared(tmp_path / "s.db").raw
    assert_same(raw, images())
    assert raw.units == Units("angstrom", units[0] if units else "eV", raw.units.forces, "ase")


@pytest.mark.parametrize(
    ("edge", "message"),
    [(0.0, "lattice vectors are missing or incomplete: give the cell with --cell"), (1e-3, "cannot hold 9 atoms")],
)
def test_cells_that_hold_no_atoms(tmp_path, edge, message):
    frames = periodic()
    for atoms in frames:
        atoms.set_cell(edge * np.eye(3))
        atoms.calc.atoms = atoms.copy()
    write(tmp_path / "a.traj", frames)
    with pytest.raises(DatasetError, match=message):
        read_ase(tmp_path / "a.traj", Reading())
    if edge == 0:
        assert read_ase(tmp_path / "a.traj", Reading(cell=8 * np.eye(3))).cell is not None
    assert read_ase(tmp_path / "a.traj", Reading(open_boundaries=True)).cell is None


@pytest.mark.parametrize("count", ["999999999999", "9" * 400, "10", "-1", "x", "5.0"])
def test_counts_of_atoms_are_not_believed(tmp_path, count):
    write(tmp_path / "a.xyz", images(), format="extxyz")
    lines = (tmp_path / "a.xyz").read_text().splitlines()
    lines[11 * 11] = count  # of the last frame
    (tmp_path / "a.xyz").write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match=r"line 122|ends after"):
        read_ase(tmp_path / "a.xyz", Reading())


def test_near_atoms_of_a_metal_are_no_molecule(tmp_path):
    rng, start = np.random.default_rng(0), bulk("Al", cubic=True).repeat(2)
    frames = []
    for _ in range(12):
        moved = 0.15 * rng.standard_normal((len(start), 3))
        moved -= moved.mean(0)
        atoms = start.copy()
        atoms.positions += moved
        atoms.calc = SinglePointCalculator(atoms, energy=2.0 * np.square(moved).sum(), forces=-4.0 * moved)
        frames.append(atoms)
    write(tmp_path / "al.traj", frames)
    assert "warning" not in dict(prepared(tmp_path / "al.traj").raw.found)


def hopping() -> list[Atoms]:
    """A ring of springs whose proton sits on one of two oxygen atoms, as in acetylacetone."""
    start = np.array([[-1.25, 0, 0], [1.25, 0, 0], [-1.25, -1.3, 0], [0, -2.0, 0], [1.25, -1.3, 0], [0, 0.1, 0]])
    pairs = [(0, 2), (2, 3), (3, 4), (4, 1), (0, 1), (0, 4), (1, 2), (2, 4), (0, 3), (1, 3)]
    rest = {pair: float(np.linalg.norm(start[pair[1]] - start[pair[0]])) for pair in pairs}
    rng, frames = np.random.default_rng(0), []
    for index in range(40):
        side = index % 2
        positions = start + 0.04 * rng.standard_normal(start.shape)
        positions[5, 0] += 0.25 * (2 * side - 1)
        energy, forces = -100.0, np.zeros_like(start)
        for (i, j), length, constant in [*((p, rest[p], 20.0) for p in pairs), ((side, 5), 1.0, 40.0)]:
            arm = positions[j] - positions[i]
            stretched = np.linalg.norm(arm) - length
            energy += 0.5 * constant * stretched**2
            pull = -constant * stretched * arm / np.linalg.norm(arm)
            forces[j] += pull
            forces[i] -= pull
        atoms = Atoms([8, 8, 6, 6, 6, 1], positions)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def test_a_proton_that_hops_is_a_stated_choice(tmp_path):
    write(tmp_path / "a.traj", hopping())
    with pytest.raises(DatasetError, match="--allow-reactions"):
        prepared(tmp_path / "a.traj")
    assert len(prepared(tmp_path / "a.traj", allow_relabeled=True).raw) == 40


@pytest.mark.parametrize("energies_too", [True, False])
def test_salt_in_rydberg_is_not_taken_for_electronvolts(tmp_path, energies_too):
    """Without hydrogen: told by the temperature, and by energies in Ry beside forces in Ry/bohr."""
    rng, start = np.random.default_rng(0), bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    frames = []
    for _ in range(40):
        moved = 0.16 * rng.standard_normal((len(start), 3))
        moved -= moved.mean(0)
        atoms = start.copy()
        atoms.positions += moved
        forces, energy = -10.0 * moved, 5.0 * np.square(moved).sum()
        if energies_too:
            forces, energy = forces * BOHR / RYDBERG, energy / RYDBERG
        else:
            forces, energy = forces / RYDBERG, energy / RYDBERG
        atoms.info["energy"], atoms.arrays["forces"] = energy, forces
        frames.append(atoms)
    write(tmp_path / "salt.xyz", frames, format="extxyz")
    kelvin = 10.0 * 0.16**2 / KB_EV_PER_K
    description = replace(DESCRIPTION, temperature_K=kelvin)
    if energies_too:
        with pytest.raises(DatasetError, match="--energy-unit Ry --force-unit Ry/bohr"):
            prepared(tmp_path / "salt.xyz")
    with pytest.raises(DatasetError, match=r"hold move as far as at|give the units"):
        prepare(Conversion((tmp_path / "salt.xyz",), description))
    stated = Units(energy="Ry", forces="Ry/bohr" if energies_too else "Ry/angstrom")
    right = prepare(Conversion((tmp_path / "salt.xyz",), description, units=stated)).raw
    assert "warning" not in dict(right.found)
