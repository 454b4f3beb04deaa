import json

import numpy as np
import pytest
import scipy.stats
import torch

from mdsim.errors import ConfigError
from mdsim.evaluation import averages, files, metrics, observable_metrics, tables
from mdsim.evaluation.plan import Compared
from mdsim.observables import Diffusivity
from mdsim.stability.survival import Lifetimes

AXIS = np.array([0.5, 1.5, 2.5, 3.5])
REFERENCE = np.array([0.1, 0.4, 0.4, 0.1])


def test_stable_times_of_censored_replicas():
    found = metrics.stable_times([Lifetimes(np.array([1.0, 3.0, 4.0, 4.0]), np.array([True, True, False, False]))], 4.0)
    assert found["stable_time_mean_ps"] == pytest.approx(3.0)
    assert found["stable_time_median_ps"] == pytest.approx(3.0)
    assert found["fraction_stable_to_end"] == pytest.approx(0.5)
    assert found["fraction_stable_to_end_low"] < 0.5 < found["fraction_stable_to_end_high"]
    assert found["stable_time_mean_ps_low"] < 3.0 < found["stable_time_mean_ps_high"] <= 4.0


def test_nobody_broke():
    found = metrics.stable_times([Lifetimes(np.full(5, 2.0), np.zeros(5, dtype=bool))], 2.0)
    assert found["stable_time_mean_ps_low"] < found["stable_time_mean_ps"] == found["stable_time_mean_ps_high"] == 2.0
    assert found["stable_time_mean_ps_low"] > 1.0, "five stable replicas say something"
    assert found["stable_time_median_ps"] is None
    assert tables.cell(found, "stable_time_median_ps") == "not reached"


def test_breaks_have_a_rate():
    times, broken = np.array([1.0, 3.0, 4.0, 4.0]), np.array([True, True, False, False])
    found = metrics.stable_times([Lifetimes(times, broken)], 4.0)
    assert found["break_rate_per_ns"] == pytest.approx(2 / 0.012)
    assert found["break_rate_per_ns_low"] == pytest.approx(0.2422 / 0.012, rel=1e-3)
    assert found["break_rate_per_ns_high"] == pytest.approx(7.2247 / 0.012, rel=1e-3)
    at_once = metrics.stable_times([Lifetimes(np.zeros(3), np.ones(3, dtype=bool))], 4.0)
    assert at_once["break_rate_per_ns"] is at_once["break_rate_per_ns_high"] is None


def test_what_ended_the_stability_is_one_line():
    by = {f"angle {name}": 10 - index for index, name in enumerate("abcdefg")}
    text = tables.ended_by({"reasons_unstable": {"bond_length_deviation": 3}, "departed_by": by})
    assert text.startswith("broke by: bond_length_deviation (3); left the support first by: angle a (10), angle b (9)")
    assert text.endswith("angle e (6), ...")
    assert tables.ended_by({"reasons_unstable": {}}) == ""


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({}, ""),
        ({"temperature_K": 300.0, "thermostat": None}, "300 K"),
        (
            {"temperature_K": 500.0, "thermostat": {"name": "nose_hoover", "chain_length": 3}, "timestep_fs": 0.5},
            "500 K, nose_hoover (chain length 3), time step 0.5 fs",
        ),
        ({"thermostat": {"name": "velocity_verlet"}}, "velocity_verlet"),
    ],
)
def test_conditions_are_stated(summary, expected):
    assert tables.conditions(summary) == expected


def test_the_error_of_a_density_is_the_area_between():
    values = np.array([[0.2, 0.3, 0.4, 0.1], [0.1, 0.4, 0.5, 0.0]])
    assert averages.area_between(AXIS, REFERENCE, values) == pytest.approx([0.2, 0.2])
    assert averages.area_between(2 * AXIS, REFERENCE, values) == pytest.approx([0.4, 0.4])


def test_the_error_over_lags_is_the_mean():
    values = np.array([[1.0, 0.0, 0.4, 0.1]])
    lags = np.array([0.0, 1.0, 2.0, 3.0])
    assert averages.area_between(lags, REFERENCE, values) == pytest.approx([(0.9 + 0.4) / 4])


def test_replicas_count_by_their_stable_frames():
    values = np.array([REFERENCE + 0.1, REFERENCE - 0.3, np.full(4, np.nan)])
    found = observable_metrics.observable_errors("rdf", AXIS, REFERENCE, values, np.array([3.0, 1.0, 0.0]))
    assert found["rdf_mae"] == pytest.approx(0.0, abs=1e-12), "0.75 · 0.1 - 0.25 · 0.3"
    assert found["rdf_mae_replica_mean"] == pytest.approx(np.mean([0.4, 1.2]))
    assert found["rdf_mae_replica_std"] == pytest.approx(0.4)


def test_an_observable_of_no_replica_has_no_error():
    found = observable_metrics.observable_errors("rdf", AXIS, REFERENCE, np.full((2, 4), np.nan), np.zeros(2))
    assert found == {"rdf_mae": None}


def test_the_offset_of_energies_is_that_of_their_means():
    axis, to_meV = np.array([-0.3, -0.1, 0.1, 0.3]), 1000 * 0.2
    labels = np.array([0.5, 2.0, 2.0, 0.5])
    values = np.array([[0.5, 1.0, 3.0, 0.5], [1.5, 2.0, 1.0, 0.5], np.full(4, np.nan)])
    found = observable_metrics.energy_offset(axis, labels, values, np.array([3.0, 1.0, 0.0]))
    offsets = values[:2] @ axis * to_meV
    estimate = (3 * offsets[0] + offsets[1]) / 4
    assert found[observable_metrics.ENERGY_OFFSET] == pytest.approx(estimate)
    half = scipy.stats.t.ppf(0.975, 1) * abs(offsets[0] - offsets[1]) / 2  # leaving out one of two leaves the other
    assert found[f"{observable_metrics.ENERGY_OFFSET}_low"] == pytest.approx(estimate - half)
    assert found[f"{observable_metrics.ENERGY_OFFSET}_high"] == pytest.approx(estimate + half)
    nothing = observable_metrics.energy_offset(axis, labels, values[2:], np.zeros(1))
    assert nothing == {observable_metrics.ENERGY_OFFSET: None}


def test_the_offset_of_one_replica_has_no_interval():
    found = observable_metrics.energy_offset(AXIS, REFERENCE, REFERENCE[None], np.ones(1))
    assert found == {
        observable_metrics.ENERGY_OFFSET: pytest.approx(0.0),
        f"{observable_metrics.ENERGY_OFFSET}_low": None,
        f"{observable_metrics.ENERGY_OFFSET}_high": None,
    }


def test_the_error_of_scatter_is_that_of_a_correct_force_field():
    """Averaged over many evaluations with unequal weights, in standard errors."""
    rng = np.random.default_rng(4)
    weights = rng.uniform(0.5, 2.0, 12)
    rows = REFERENCE + 0.2 * rng.standard_normal((3000, 12, 4)) * np.array([1.0, 0.5, 2.0, 0.1])
    means = np.einsum("r,erb->eb", weights / weights.sum(), rows)
    found = averages.area_between(AXIS, REFERENCE, means)
    expected = np.array([averages.error_of_scatter(AXIS, one, weights) for one in rows])
    difference = found - expected
    bias = 0.03 * expected.mean()  # a standard deviation from twelve values is too small by 2 %
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(len(rows)) + bias
    alone = observable_metrics.observable_errors("rdf", AXIS, REFERENCE, rows[0, :1], np.ones(1))
    assert alone["rdf_mae_of_scatter"] is None


def test_intervals_cover():
    """The true error lies in the 95 % interval about as often as it says."""
    rng = np.random.default_rng(1)
    truth, n_trials, n_replicas = REFERENCE + np.array([0.3, -0.2, 0.2, -0.3]), 400, 20
    (expected,) = averages.area_between(AXIS, REFERENCE, truth[None])
    covered = 0
    for _ in range(n_trials):
        values = truth + 0.2 * rng.standard_normal((n_replicas, 4))
        interval = averages.error_interval(AXIS, REFERENCE, values, np.ones(n_replicas))
        assert interval.low <= interval.estimate <= interval.high
        covered += interval.low <= expected <= interval.high
    assert abs(covered / n_trials - 0.95) < 4 * (0.95 * 0.05 / n_trials) ** 0.5


def test_one_replica_has_no_interval():
    found = observable_metrics.observable_errors("rdf", AXIS, REFERENCE, REFERENCE[None] + 0.1, np.ones(1))
    assert found["rdf_mae"] == pytest.approx(0.4)
    assert found["rdf_mae_low"] is found["rdf_mae_high"] is None
    assert tables.cell(found, "rdf_mae") == "0.4"


def test_all_broke_before_an_early_end():
    """The horizon bounds what the last replica might have lived; the mean does not depend on it."""
    times = Lifetimes(np.array([1.0, 2.0, 3.0]), np.ones(3, dtype=bool))
    near, far = (metrics.stable_times([times], horizon) for horizon in (3.0, 100.0))
    assert near["stable_time_mean_ps"] == far["stable_time_mean_ps"] == pytest.approx(2.0)
    assert near["stable_time_mean_ps_high"] < 3.0 < far["stable_time_mean_ps_high"] < 10.0


def test_several_runs_are_averaged_and_their_methods_named():
    runs = [Lifetimes(np.linspace(a, a + 0.1, 8), np.ones(8, dtype=bool)) for a in (1.0, 2.0, 3.0)]
    found = metrics.stable_times(runs, 50.0)
    assert found["stable_time_mean_ps"] == pytest.approx(2.05)
    half = 4.302653 / np.sqrt(3) / (2.05 * (1 - 2.05 / 50))  # Student, of the logit
    assert found["stable_time_mean_ps_high"] == pytest.approx(50 / (1 + (50 / 2.05 - 1) * np.exp(-half)), rel=1e-5)
    assert "Student" in tables.legend(found, 3) and "Student" not in tables.legend(found)
    assert tables.legend(found).endswith("mean times: Bayesian bootstrap with a pseudo-replica; fractions: Wilson")


def test_table_shows_what_is_there():
    summary = {"stable_time_mean_ps": 1.5, "stable_time_mean_ps_low": 1.0, "stable_time_mean_ps_high": 2.0, "seed": 4}
    text = tables.table({"pre": summary, "post": {**summary, "stable_time_mean_ps": 2.0}})
    assert "mean stable time (ps)" in text
    assert "1.50 [1.00, 2.00]" in text
    assert "seed" not in text


def test_json_refuses_what_json_has_not(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [None, "{", ""])
def test_damaged_results_are_one_clear_error(tmp_path, content):
    path = tmp_path / "final_metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"final_metrics\.json: cannot be read.*run the evaluation first"):
        files.read_json(path)


def _diffusivity(reference: float, error: float | None) -> Compared:
    known = None if error is None else torch.tensor([error])
    return Compared(Diffusivity(1.0, 2.0, "O"), torch.tensor([reference]), torch.zeros(1), known)


def test_a_diffusivity_stands_beside_its_reference_and_its_correction():
    values = np.array([1.5, np.nan, 1.9, 2.0])
    found = observable_metrics.diffusivity_values("diffusivity_O", _diffusivity(1.75, 0.125), values, correction=0.5)
    half = 4.302653 * np.std([1.5, 1.9, 2.0], ddof=1) / np.sqrt(3)  # Student, two degrees of freedom
    assert found == {
        "diffusivity_O_1e-9_m2_per_s": pytest.approx(1.8),
        "diffusivity_O_1e-9_m2_per_s_low": pytest.approx(1.8 - half),
        "diffusivity_O_1e-9_m2_per_s_high": pytest.approx(1.8 + half),
        "diffusivity_O_reference_1e-9_m2_per_s": 1.75,
        "diffusivity_O_reference_standard_error_1e-9_m2_per_s": 0.125,
        "diffusivity_O_finite_size_correction_1e-9_m2_per_s": 0.5,
        "diffusivity_O_infinite_box_1e-9_m2_per_s": pytest.approx(2.3),
    }
    text = tables.table({"pre": found})
    assert text.count("diffusivity O (1e-9 m²/s)") == 1 and "1.80 [" in text


def test_a_diffusivity_of_one_replica_has_no_interval_and_of_none_no_value():
    one = observable_metrics.diffusivity_values("diffusivity", _diffusivity(1.75, None), np.array([np.nan, 1.5]), None)
    assert one["diffusivity_1e-9_m2_per_s"] == 1.5
    absent = {key for key, value in one.items() if value is None}
    assert absent == {
        "diffusivity_1e-9_m2_per_s_low",
        "diffusivity_1e-9_m2_per_s_high",
        "diffusivity_reference_standard_error_1e-9_m2_per_s",
        "diffusivity_finite_size_correction_1e-9_m2_per_s",
        "diffusivity_infinite_box_1e-9_m2_per_s",
    }
    assert tables.cell(one, "diffusivity_1e-9_m2_per_s") == "1.5"
    none = observable_metrics.diffusivity_values("diffusivity", _diffusivity(1.75, None), np.array([np.nan]), 0.5)
    assert none["diffusivity_1e-9_m2_per_s"] is None and none["diffusivity_infinite_box_1e-9_m2_per_s"] is None
    assert tables.cell(none, "diffusivity_1e-9_m2_per_s") == "-"


def test_an_interval_with_one_bound_is_not_shown():
    assert tables.cell({"rdf_mae": 0.25, "rdf_mae_low": 0.1, "rdf_mae_high": None}, "rdf_mae") == "0.25"
