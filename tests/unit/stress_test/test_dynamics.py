"""Dynamics of the stress test: scores, criteria, compression, and what is said about replicas that break."""

import numpy as np
import pytest
import stress_calculators
import torch
from ase import Atoms
from ase.build import molecule

from mdsim.stability.survival import Lifetimes
from mdsim.stability.verdict import first_unstable
from mdsim.state import Trajectory
from mdsim.stress_test.compression import compressed
from mdsim.stress_test.criteria import criteria_of, ranges_of
from mdsim.stress_test.dynamics import Condition, Outcome, Setting, run
from mdsim.stress_test.findings import Finding
from mdsim.stress_test.score import StabilityScore
from mdsim.stress_test.structure import Structure, read_structure
from mdsim.stress_test.subjects.calculators import CalculatorSubject
from mdsim.stress_test.verdict import verdict_of


@pytest.fixture
def water(tmp_path) -> Structure:
    molecule("H2O").write(tmp_path / "water.xyz")
    return read_structure(tmp_path / "water.xyz")


def frames(structure, n_frames, change, speed=0.01):
    """A trajectory of one replica in which ``change(frame, positions)`` alters the structure in place."""
    positions = structure.reference.expand(n_frames, 1, -1, -1).clone()
    velocities = torch.full_like(positions, speed)
    for frame in range(n_frames):
        change(frame, positions[frame, 0], velocities[frame, 0])
    return Trajectory(positions, velocities, torch.zeros(n_frames, 1, dtype=torch.float64), 10.0)


def score_of(structure, change, n_frames=10):
    score = StabilityScore(structure.topology, 1, 9)
    trajectory = frames(structure, n_frames, change)
    score.follow(torch.arange(1), trajectory[:4], 300.0)
    moving = torch.nonzero(score.intact)[:, 0]
    if len(moving):
        score.follow(moving, trajectory[4:], 300.0)
    score.n_frames = n_frames
    return float(score.scores())


def test_scores_have_the_definition_of_mlipaudit(water):
    def lost_from_6(frame, positions, velocities):
        positions[1] += 3.0 * (frame >= 6)

    def lost_and_back(frame, positions, velocities):
        positions[1] += 3.0 * (2 <= frame < 5)

    def explodes_at_3(frame, positions, velocities):
        velocities *= 1e4 if frame == 3 else 1.0

    def not_a_number_at_8(frame, positions, velocities):
        positions[0] *= torch.nan if frame == 8 else 1.0

    assert score_of(water, lambda *_: None) == 1.0
    assert score_of(water, lost_from_6) == pytest.approx(0.5 + 0.5 * 6 / 10)
    assert score_of(water, lost_and_back) == 1.0
    assert score_of(water, explodes_at_3) == pytest.approx(0.5 * 3 / 10)
    assert score_of(water, not_a_number_at_8) == pytest.approx(0.5 * 8 / 10)


def test_criteria_name_what_happened(tmp_path):
    stress_calculators.copper().write(tmp_path / "copper.xyz")
    copper = read_structure(tmp_path / "copper.xyz")

    def leaves(frame, positions, velocities):
        positions[5] *= 3.0 if frame == 2 else 1.0

    def collides(frame, positions, velocities):
        positions[5] = positions[4] + 0.8 if frame == 1 else positions[5]

    criteria = criteria_of(copper, 1e9, 39)
    for change, reason, first in ((leaves, "detached_atom", 2), (collides, "new_contact", 1)):
        verdict = first_unstable(criteria, copper.topology, frames(copper, 4, change))
        assert verdict.reason == (reason,) and verdict.first_frame.tolist() == [first]
    verdict = first_unstable(criteria, copper.topology, frames(copper, 4, lambda *_: None))
    assert verdict.reason == (None,)


def test_broken_replicas_say_what_left_first(tmp_path):
    stress_calculators.ethanol().write(tmp_path / "ethanol.xyz")
    structure = read_structure(tmp_path / "ethanol.xyz")
    potential = CalculatorSubject(stress_calculators.PairMolecule(), "ethanol").potential(structure.system)

    def pulled(positions):  # the hydroxyl hydrogen is pulled off
        energy, forces = potential(positions)
        arm = positions[:, 3] - positions[:, 2]
        forces[:, 3] += 12.0 * arm / arm.norm(dim=-1, keepdim=True)
        return energy, forces

    def setting(n):
        support = ranges_of(structure, None)
        return Setting(
            structure.system,
            structure.topology,
            structure.positions,
            support,
            lambda *a: criteria_of(structure, *a),
            n,
            0,
        )

    found = run(setting(2), pulled, Condition("nvt", 300.0, 0.5), 0.3)
    assert found.n_broken == 2 and (found.lifetimes.times < 0.3).all()
    assert found.first_coordinates()[0][0] == "bond O2-H3"
    assert set(found.reasons) <= {"bond_length_deviation", "temperature_explosion"}
    intact = run(setting(2), potential, Condition("ramp", 400.0, 0.5, 100.0), 0.1)
    assert intact.n_broken == 0 and intact.as_json()["start_temperature_K"] == 100.0
    assert intact.as_json()["mean_stable_ps"] == pytest.approx(0.1)


def test_molecules_are_not_distorted_by_compression(tmp_path):
    atoms = Atoms(cell=[8, 8, 8], pbc=True)
    for shift in (1.0, 5.0):
        one = molecule("H2O")
        one.translate([shift] * 3)
        atoms += one
    atoms.write(tmp_path / "two.extxyz")
    before = read_structure(tmp_path / "two.extxyz")
    after = compressed(before, 5.0)
    torch.testing.assert_close(after.system.cell, 0.95 * before.system.cell)
    inside = [(s.reference[0] - s.reference[1]).norm() for s in (before, after)]
    between = [(s.reference[0] - s.reference[3]).norm() for s in (before, after)]
    torch.testing.assert_close(inside[0], inside[1])
    torch.testing.assert_close(between[1], 0.95 * between[0])


def outcome(timestep_fs, times, broken):
    n = len(times)
    lifetimes = Lifetimes(np.array(times), np.array(broken))
    nothing = (None,) * n
    condition = Condition("nvt", 300.0, timestep_fs)
    return Outcome(condition, 1.0, lifetimes, nothing, nothing, nothing, nothing, np.ones(n))


def test_verdicts_put_causes_before_consequences():
    good = [Finding("forces", "pass", ""), Finding("units", "pass", "")]
    broke, intact = outcome(1.0, [0.2, 1.0], [True, False]), outcome(0.5, [1.0, 1.0], [False, False])
    assert verdict_of(good, [intact], None).label == "stable"
    assert verdict_of(good, [broke], None).label == "unstable"
    assert verdict_of(good, [broke, intact], None).label == "unstable_timestep"
    assert verdict_of([Finding("units", "fail", "kcal")], [broke], None).label == "wrong_units"
    assert verdict_of([*good, Finding("holes", "warn", "far")], [intact], None).label == "stable_with_warnings"
    assert verdict_of(good, [broke], 0.2).passed  # every replica was stable for 0.2 ps
    assert not verdict_of(good, [broke], 0.3).passed
    assert not verdict_of(good, [intact], 2.0).passed  # too short to say
