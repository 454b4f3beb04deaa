"""Unit detection from force constants, bond lengths and atomic energies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from paths import BUNDLED

from mdsim.datasets.sources.raw import COMMON, ENERGY_UNITS_EV, FORCE_UNITS_EV_PER_A, RawFrames, Units
from mdsim.datasets.sources.unit_detection import bond_ratio, stretch_constant, with_units
from mdsim.errors import DatasetError
from mdsim.units import BOHR, HARTREE, NM

ALL_ELECTRON_WATER_HARTREE = -76.4


def thermal(size: str = "aspirin_gfn2/aspirin/40") -> RawFrames:
    """Frames of a bundled set, in eV and Å."""
    with np.load(BUNDLED / size / "train.npz") as arrays:
        z, R, E, F = (arrays[name].astype(np.float64) for name in ("z", "R", "E", "F"))
    return RawFrames(z.astype(np.int64), R, E, F)


def harmonic_water(constant: float, cell: np.ndarray | None = None) -> RawFrames:
    """Water whose bonds are springs of this constant, vibrating at random."""
    rng = np.random.default_rng(0)
    lengths = 0.97 + 0.03 * rng.standard_normal((50, 2))
    directions = np.array([[1.0, 0, 0], [-0.25, 0.968, 0]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pull = -constant * (lengths - 0.97)[..., None] * directions
    hydrogens = lengths[..., None] * directions
    positions = np.concatenate([np.zeros((50, 1, 3)), hydrogens], axis=1)
    forces = np.concatenate([-pull.sum(1, keepdims=True), pull], axis=1)
    energy = ALL_ELECTRON_WATER_HARTREE * HARTREE + 0.5 * constant * np.square(lengths - 0.97).sum(1)
    return RawFrames(np.array([8, 1, 1]), positions, energy, forces, cell=cell)


def known(raw: RawFrames) -> RawFrames:
    return replace(raw, units=Units("angstrom"))


def test_the_constant_of_a_spring_is_exact():
    assert stretch_constant(known(harmonic_water(45.9))) == pytest.approx(45.9, rel=1e-10)


def test_wrapping_does_not_change_it():
    raw = harmonic_water(45.9, cell=np.diag([5.0, 6.0, 7.0]))
    moved = raw.positions + np.array([4.6, 5.4, 6.9]) + 0.05 * np.arange(50)[:, None, None]
    wrapped = replace(raw, positions=moved % np.array([5.0, 6.0, 7.0]))
    assert stretch_constant(known(wrapped)) == pytest.approx(45.9, rel=1e-10)


@pytest.mark.parametrize("forces", COMMON)
@pytest.mark.parametrize("size", ["aspirin_gfn2/aspirin/40", "ac_ala3_nhme_gfn2/ac_Ala3_NHMe/5percent"])
def test_every_common_unit_is_told_from_a_few_frames(size, forces):
    raw = thermal(size)[:5]
    scaled = replace(
        raw, forces=raw.forces / FORCE_UNITS_EV_PER_A[forces], energy=raw.energy / ENERGY_UNITS_EV[COMMON[forces]]
    )
    found = with_units("file", scaled, Units())
    assert (found.units.forces, found.units.energy, found.units.length) == (forces, COMMON[forces], "angstrom")
    assert "detected" in dict(found.found)["units"]
    np.testing.assert_allclose(found.frames().labels, raw.forces, rtol=1e-12)
    np.testing.assert_allclose(found.frames().energy, raw.energy, rtol=1e-12)


def test_real_files_are_told(reference_path):
    with np.load(reference_path / "md17_format" / "ethanol.npz") as arrays:
        raw = RawFrames(arrays["z"].astype(np.int64), arrays["R"], arrays["E"].ravel(), arrays["F"])
    assert with_units("ethanol", raw, Units()).units.forces == "kcal/mol/angstrom"


def test_gradients_are_not_taken_for_forces():
    raw = thermal()
    with pytest.raises(DatasetError, match=r"gradients of the energy.*--negate-forces"):
        with_units("file", replace(raw, forces=-raw.forces), Units())


@pytest.mark.parametrize(("unit", "size"), [("bohr", BOHR), ("nm", NM)])
def test_other_lengths_are_asked_for_not_converted(unit, size):
    raw = thermal()
    scaled = replace(raw, positions=raw.positions / size)
    with pytest.raises(DatasetError, match=f"as they would be with {unit}; give the unit with --length-unit"):
        with_units("file", scaled, Units())
    found = with_units("file", scaled, Units(length=unit))
    np.testing.assert_allclose(found.frames().positions, raw.positions, rtol=1e-12)
    assert found.units.forces == "eV/angstrom"


def test_what_is_stated_is_taken_with_a_word_where_it_looks_wrong():
    found = with_units("file", thermal(), Units(energy="kcal/mol"))
    assert found.units.forces == "kcal/mol/angstrom"
    assert "but bonds to hydrogen have 1.3" in dict(found.found)["units"]


def test_what_a_format_defines_must_hold():
    raw = thermal()
    mislabeled = replace(raw, forces=raw.forces * 23.06, units=Units("angstrom", "eV", "eV/angstrom"))
    with pytest.raises(DatasetError, match=r"as if it were kcal/mol/angstrom; give the units"):
        with_units("file", mislabeled, Units())


def test_energies_in_another_unit_than_forces_are_noticed():
    raw = harmonic_water(45.0)
    assert with_units("file", raw, Units()).units.energy == "eV"
    with pytest.raises(DatasetError, match=r"energies look like Hartree .*forces like eV/angstrom"):
        with_units("file", replace(raw, energy=raw.energy / HARTREE), Units())
    both = with_units("file", replace(raw, energy=raw.energy / HARTREE), Units(energy="Hartree", forces="eV/angstrom"))
    np.testing.assert_allclose(both.frames().energy, raw.energy, rtol=1e-12)


def metal(force_scale: float) -> RawFrames:
    from ase.build import bulk

    atoms = bulk("Cu", cubic=True)
    rng = np.random.default_rng(0)
    positions = atoms.positions + 0.05 * rng.standard_normal((20, 4, 3))
    return RawFrames(
        atoms.numbers.astype(np.int64),
        positions,
        rng.random(20),
        force_scale * rng.standard_normal((20, 4, 3)),
        cell=atoms.cell.array,
    )


def test_without_hydrogen_only_plausible_forces_are_taken_as_they_are():
    assert "assumed" in dict(with_units("file", metal(0.5), Units()).found)["units"]
    with pytest.raises(DatasetError, match="too large for eV/Å; give the units"):
        with_units("file", metal(12.0), Units())
    assert with_units("file", metal(12.0), Units(energy="kcal/mol")).units.forces == "kcal/mol/angstrom"


def test_nearest_neighbors_are_about_the_sum_of_covalent_radii_apart():
    assert bond_ratio(thermal()) == pytest.approx(1.0, abs=0.1)
    assert bond_ratio(metal(1.0)) == pytest.approx(1.0, abs=0.1)
