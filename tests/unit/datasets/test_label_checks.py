"""Label checks: real data pass, and inconsistent energies do not."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read
from paths import BUNDLED

from mdsim.datasets.consistency import compare
from mdsim.datasets.label_checks import mismatch, stiffness_temperature_K
from mdsim.datasets.npz import Frames, read_frames
from mdsim.datasets.sources.deepmd import read_deepmd
from mdsim.datasets.sources.sgdml import read_sgdml
from mdsim.units import BOHR, HARTREE, KB_EV_PER_K, KCAL_PER_MOL, RYDBERG

# What was measured, on these and on random choices of 8 to 100 of their frames: noise below 0.5 where there is a
# verdict, slopes of 0.76 to 1.11, slopes over squared correlations of 0.82 to 1.6, correlations of 0.75 to 1. Limits
# are 1.4, 0.65 and 0.5; frames of a liquid that are over 0.65 Å apart (0.8 Å and more) are not judged, nearer ones
# (0.3 to 0.52 Å) are.


def aspirin(reference_path, n_frames: int = 1200, seed: int = 1) -> Frames:
    images = read(reference_path / "rmd17_aspirin" / "rmd17_aspirin_train.xyz", ":")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:n_frames])
    return Frames(
        torch.from_numpy(images[0].numbers).long(),
        torch.from_numpy(np.stack([images[i].positions for i in chosen])),
        torch.tensor([images[i].get_potential_energy() for i in chosen], dtype=torch.float64),
        torch.from_numpy(np.stack([images[i].get_forces() for i in chosen])),
    )


def small_bundled() -> Frames:
    return read_frames(BUNDLED / "aspirin_gfn2" / "aspirin" / "100" / "train.npz")


@pytest.mark.parametrize("n_frames", [8, 12, 24, 50, 200, 1200])
def test_real_dft_frames_in_random_order_pass(reference_path, n_frames):
    frames = aspirin(reference_path, n_frames)
    assert mismatch(frames) is None
    found = compare(frames)
    assert found is not None and found.noise < 0.5
    assert 0.7 < found.slope < 1.25 and found.correlation > 0.7


def test_real_frames_in_time_order_pass(reference_path):
    raw = read_sgdml(reference_path / "md17_format" / "ethanol.npz")
    frames = replace(raw, units=replace(raw.units, length="angstrom", energy="kcal/mol", forces="kcal/mol/angstrom"))
    assert mismatch(frames.frames()) is None
    found = compare(frames.frames())
    assert found is not None and found.slope == pytest.approx(1, abs=0.02) and found.noise < 0.02


def test_real_water_with_energies_in_single_precision_passes(reference_path):
    frames = read_deepmd(reference_path / "water_dft")[0].frames()
    assert mismatch(frames) is None
    shuffled = replace(frames, energy=frames.energy[torch.randperm(len(frames), generator=torch.manual_seed(0))])
    found = compare(shuffled)
    assert found is not None and abs(found.correlation) < 0.5


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*/*/*/train.npz")) + sorted(BUNDLED.glob("*/*/test.npz")))
def test_bundled_sets_pass(path):
    frames = read_frames(path)
    assert mismatch(frames[:: -(-len(frames) // 300)]) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e / HARTREE, "--energy-unit Hartree"),
        (lambda e: e / RYDBERG, "--energy-unit Ry"),
        (lambda e: e / KCAL_PER_MOL, "--energy-unit kcal/mol"),
        (lambda e: e / 21, "energies per atom .1/21."),
        (lambda e: e / BOHR, "times the work of the forces"),
        (lambda e: -e, "do not follow|wrong sign"),
        (lambda e: e.roll(7), "do not follow the work of the forces"),
        (lambda e: 0 * e, "have the same energy, 0 eV"),
        (lambda e: 0 * e - 500.0, "have the same energy, -500 eV"),
        (lambda e: 0 * e + torch.rand(len(e), generator=torch.manual_seed(0)), "do not follow"),
    ],
)
def test_what_is_not_the_energy_of_these_forces_is_found(change, message):
    frames = small_bundled()
    found = mismatch(replace(frames, energy=change(frames.energy)), force_unit=None)
    assert found is not None and re.search(message, found)


def test_both_in_atomic_units_are_told_by_the_bohr():
    """Energies in Ry and forces in Ry/bohr, taken for eV and eV/Å: the same factor, but for the bohr."""
    frames = small_bundled()
    assert frames.forces is not None
    atomic = replace(frames, energy=frames.energy / RYDBERG, forces=frames.forces * BOHR / RYDBERG)
    found = mismatch(atomic)
    assert found is not None and "--energy-unit Ry --force-unit Ry/bohr" in found


def test_one_broken_frame_does_not_condemn_the_others():
    frames = small_bundled()
    energy = frames.energy.clone()
    energy[10] += 30.0
    positions = frames.positions.clone()
    positions[10, 3] += 3.0
    assert mismatch(replace(frames, energy=energy, positions=positions)) is None


def test_random_labels_and_few_frames_are_not_judged():
    generator = torch.manual_seed(0)
    frames = small_bundled()
    noise = replace(frames, forces=torch.randn(frames.positions.shape, generator=generator))
    assert compare(frames[:5]) is None
    found = compare(noise)
    assert found is not None and found.noise > 0.5 and mismatch(noise) is None


def test_the_work_of_a_harmonic_crystal_is_exact():
    frames = crystal(600.0)
    found = compare(frames)
    assert found is not None and found.slope == pytest.approx(1, abs=0.05) and found.correlation > 0.97


def crystal(kelvin: float, n_frames: int = 40) -> Frames:
    """Sodium chloride whose ions are bound to their places by springs, in thermal motion at this temperature."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    rng, stiffness = np.random.default_rng(0), 2.0
    moved = np.sqrt(KB_EV_PER_K * kelvin / stiffness) * rng.standard_normal((n_frames, len(atoms), 3))
    moved -= moved.mean(1, keepdims=True)
    return Frames(
        torch.from_numpy(atoms.numbers).long(),
        torch.from_numpy(atoms.positions + moved),
        torch.from_numpy(0.5 * stiffness * np.square(moved).sum((1, 2))),
        torch.from_numpy(-stiffness * moved),
        cell=torch.from_numpy(atoms.cell.array.copy()),
    )


@pytest.mark.parametrize("kelvin", [100.0, 600.0])
def test_stiffness_tells_the_temperature(kelvin):
    assert stiffness_temperature_K(crystal(kelvin)) == pytest.approx(kelvin, rel=0.15)


def test_atoms_that_diffuse_have_no_such_temperature():
    frames = crystal(300.0)
    drift = torch.linspace(0, 1, len(frames)).double()[:, None, None] * torch.randn(
        8, 3, generator=torch.manual_seed(0)
    )
    assert stiffness_temperature_K(replace(frames, positions=frames.positions + 4 * drift)) is None
