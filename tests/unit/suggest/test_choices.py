"""Suggested values: tolerances cover the data, bins cover their range, time steps resolve vibrations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from paths import ROOT
from toy_frames import argon, liquid, molecule, vibrating

from mdsim.models.registry import MODELS
from mdsim.observables.bins import Bins
from mdsim.suggest import choices, sections
from mdsim.suggest.choices import Machine
from mdsim.suggest.dynamical import dense_window, dump_every_steps
from mdsim.suggest.findings import Spread, Vibration, inspect

CPU, GPU = Machine(gpu=False), Machine(gpu=True)


@pytest.mark.parametrize(
    ("largest_A", "std_A", "training_A", "evaluation_A"),
    [
        (0.0, 0.0, 0.25, 0.5),
        (0.2, 0.03, 0.25, 0.5),
        (0.21, 0.03, 0.3, 0.5),
        (0.2, 0.049, 0.35, 0.5),
        (0.45, 0.03, 0.55, 0.55),
    ],
)
def test_bond_tolerances_are_the_papers_or_beyond_the_data(largest_A, std_A, training_A, evaluation_A):
    spread = Spread(largest_A, std_A)
    assert choices.bond_tolerance_A(spread, training=True).value == pytest.approx(training_A)
    assert choices.bond_tolerance_A(spread, training=False).value == pytest.approx(evaluation_A)


@pytest.mark.parametrize(("largest_deg", "tolerance_deg"), [(10, 45), (37, 45), (40, 50), (75, 90), (76, None)])
def test_angle_tolerances_are_beyond_the_data_or_judge_nothing(largest_deg, tolerance_deg):
    chosen = choices.angle_tolerance_deg(Spread(float(largest_deg), 5.0))
    assert (chosen and chosen.value) == tolerance_deg


@pytest.mark.parametrize(("closest_A", "tolerance_A"), [(1.36, 1.2), (1.32, 1.18), (1.0, 0.9), (3.0, 1.2)])
def test_contacts_are_the_papers_or_below_the_data(closest_A, tolerance_A):
    chosen = choices.contact_tolerance_A(closest_A).value
    assert chosen == pytest.approx(tolerance_A) and chosen < closest_A


def test_criteria_allow_every_frame_of_the_data(write_set):
    """The largest deviation in the data itself is put there on purpose, beyond the paper's tolerance."""
    frames = molecule(40, 0)
    stretched = vibrating(40, 0)
    stretched[3, 1] *= 1.4
    found = inspect(write_set(train=replace(frames, positions=stretched.float())))
    bond = choices.criteria(found, training=True)[0]
    lengths = stretched[:, 1:].norm(dim=-1)
    assert bond.value["bond_dev_tol_A"] > float((lengths - lengths.mean(0)).abs().max()) > 0.25


@pytest.mark.parametrize(("period_fs", "step_fs"), [(7.6, 0.5), (8.0, 1.0), (9.9, 1.0), (40.0, 1.0)])
def test_time_steps_resolve_the_fastest_vibration(write_set, period_fs, step_fs):
    found = inspect(write_set())
    found.__dict__["fastest_vibration"] = Vibration("O-H", period_fs)
    assert choices.timestep_fs(found).value == step_fs


@pytest.mark.parametrize("make", [molecule, liquid, argon])
def test_distributions_fill_their_range_and_hold_all_distances(write_set, make):
    found = inspect(write_set(make))
    for rdf in choices.rdfs(found):
        reach = rdf.value["max_distance_A"]
        Bins.spanning(0.0, reach, rdf.value["bin_width_A"])
        if found.half_height_A is None:
            assert reach >= found.longest_distance_A
        else:
            assert reach <= found.half_height_A


def test_a_liquid_has_its_pairs_of_elements(write_set):
    found = inspect(write_set(liquid))
    assert choices.element_pairs(found) == [("O", "O"), ("O", "H"), ("H", "H")]
    assert choices.element_pairs(inspect(write_set(size="41"))) == [("O", "H"), ("H", "H")]  # one oxygen is no pair


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("aspirin_gfn2/aspirin/40", {"name": "dihedrals", "bin_width_deg": 10.0}),
        ("ac_ala3_nhme_gfn2/ac_Ala3_NHMe/1percent", {"name": "dihedrals", "bin_width_deg": 10.0}),
        ("water_spcfw/water/20", None),
    ],
)
def test_molecules_with_rotatable_bonds_get_dihedrals(folder, expected):
    found = inspect(ROOT / "data" / "bundled" / folder)
    assert [one.value for one in choices.dihedrals(found)] == ([] if expected is None else [expected])


def test_many_dihedrals_are_pooled(monkeypatch):
    monkeypatch.setattr(choices, "MOST_DIHEDRALS", 3)
    found = inspect(ROOT / "data" / "bundled" / "aspirin_gfn2" / "aspirin" / "40")
    (one,) = choices.dihedrals(found)
    assert one.value["pooled"] is True and one.why.startswith("4 rotatable bonds; ")


def test_few_frames_get_wide_bins():
    assert choices._width((0.02, 0.05, 0.1), 10.0, 950 * 210) == 0.02
    assert choices._width((0.02, 0.05, 0.1), 10.0, 38 * 210) == 0.1


def test_without_bonds_distances_are_trained_on(write_set):
    (term,) = choices.targets(inspect(write_set(argon)))
    assert term.value["observable"]["name"] == "rdf"
    names = [term.value["observable"]["name"] for term in choices.targets(inspect(write_set(size="41")))]
    assert names == ["bond_lengths", "adf"]


def test_budgets_follow_the_cost_of_a_frame():
    small, large = (choices.evaluations(MODELS["nequip"], CPU, pairs).value for pairs in (150, 455))
    assert small == choices.MOST_EVALUATIONS and 200_000 < large < 350_000
    assert choices.evaluations(MODELS["nequip"], GPU, 455).value == choices.GPU_FACTOR * large
    assert choices.evaluations(MODELS["gemnet_t"], CPU, 5000).value == choices.FEWEST_EVALUATIONS


@pytest.mark.parametrize(("pairs", "frames"), [(200, None), (4_000, 600), (1_000_000, 50)])
def test_errors_after_a_fit_are_of_fewer_frames_for_costly_models(pairs, frames):
    chosen = sections._max_test_frames(MODELS["sevenn"], CPU, pairs)
    assert chosen == {} if frames is None else chosen["max_test_frames"].value == frames


def in_order(n: int):
    """Contiguous frames with velocities."""
    return replace(molecule(n, 4), velocities=0.01 * torch.ones(n, 3, 3))


@pytest.mark.parametrize(
    ("interval_fs", "step_fs", "every"), [(2.0, 1.0, 2), (0.5, 1.0, 1), (0.5, 0.5, 1), (1.5, 1.0, 3), (4.0, 0.5, 8)]
)
def test_the_dense_window_keeps_multiples_of_the_contiguous_interval(write_set, interval_fs, step_fs, every):
    found = inspect(write_set(contiguous=in_order(400), contiguous_frame_interval_fs=interval_fs))
    window = dense_window(found, step_fs, 20, round(500 / step_fs))
    dump = dump_every_steps(found, step_fs)
    if dump % every:  # 3 divides none of the usual intervals
        assert window == {}
        return
    assert window["dense_window"]["dump_every_steps"].value == every
    assert round(500 / step_fs) % dump == 0
    (vacf,) = window["dynamical_observables"]
    assert vacf.value["name"] == "vacf" and 0 < vacf.value["max_lag_fs"] <= 100.0


@pytest.mark.parametrize("changes", [{}, {"contiguous": molecule(400, 4), "contiguous_frame_interval_fs": 2.0}])
def test_no_dynamical_observables_without_velocities_in_time_order(write_set, changes):
    assert dense_window(inspect(write_set(**changes)), 1.0, 20, 500) == {}


def test_diffusion_needs_a_liquid_and_picoseconds(write_set):
    moving = replace(liquid(2000, 4), velocities=0.01 * torch.ones(2000, 24, 3))
    found = inspect(write_set(liquid, contiguous=moving, contiguous_frame_interval_fs=4.0))
    names = [one.value["name"] for one in dense_window(found, 1.0, 40, 500).get("dynamical_observables", [])]
    assert names == ["vacf"]  # eight molecules are too few
