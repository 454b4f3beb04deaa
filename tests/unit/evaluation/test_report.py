import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mdsim.errors import ConfigError
from mdsim.evaluation import files, report
from mdsim.evaluation.results import read_results, write_summary
from mdsim.units import kT_eV

AXIS, REFERENCE = np.array([0.5, 1.5, 2.5]), np.array([0.2, 0.6, 0.2])


def _write(
    folder: Path, times: list[float], shift: float = 0.0, departures: list[float] | None = None, **changes
) -> None:
    folder.mkdir(parents=True)
    times_ps, broken = np.array(times), np.array(times) < 10.0
    values = np.tile(REFERENCE + np.array([shift, -shift, 0.0]), (len(times), 1))
    arrays = {
        "stable_time_ps": times_ps,
        "broken": broken,
        "stable_frames": (times_ps * 10).astype(int),
        "rdf": values,
        "rdf_axis": AXIS,
        "rdf_reference": REFERENCE,
    }
    if departures is not None:
        arrays |= {"departure_time_ps": np.array(departures), "departed": np.array(departures) < 10.0}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    summary = {"replicas": len(times), "horizon_ps": 10.0, "temperature_K": 500.0}
    errors = {"energy_mae_meV": 10.0 + 10 * shift, "force_mae_meV_per_A": 20.0}
    files.write_json(folder / "final_metrics.json", summary | errors | changes)


@pytest.fixture
def run(tmp_path) -> Path:
    _write(tmp_path / "run" / "inference" / "pre", [1.0, 2.0, 3.0, 10.0], shift=0.1)
    _write(tmp_path / "run" / "inference" / "post", [8.0, 10.0, 10.0, 10.0], shift=0.05)
    return tmp_path / "run"


def test_the_table_compares_before_with_after(run):
    lines = {line.split("  ")[0]: line for line in report.compare([run], "pre", "post").splitlines()}
    assert "4.00 [" in lines["mean stable time (ps)"]
    assert "9.50 [" in lines["mean stable time (ps)"]
    assert "× 2.3" in lines["mean stable time (ps)"], "9.5 / 4.0"
    assert "0.200 [" in lines["RDF MAE"]
    assert "0.100 [" in lines["RDF MAE"]
    assert "-4.5 %" in lines["energy MAE (meV)"]
    assert "+0.0 %" in lines["force MAE (meV/Å)"]


def test_figures_are_drawn(run):
    report.compare([run], "pre", "post")
    assert {path.name for path in (run / "inference").glob("*.png")} == {"survival.png", "rdf.png"}


def test_seeds_are_pooled(run, tmp_path):
    _write(tmp_path / "second" / "inference" / "pre", [3.0, 4.0, 5.0, 4.0])
    _write(tmp_path / "second" / "inference" / "post", [10.0, 10.0, 9.0, 9.0])
    folders = [each / "inference" / "pre" for each in (run, tmp_path / "second")]
    pooled = read_results(*folders)
    assert len(pooled.lifetimes.times) == 8
    assert pooled.followed_ps == 10.0
    both = report.compare([run, tmp_path / "second"], "pre", "post")
    assert "4.00 [" in both
    swapped = report.compare([tmp_path / "second", run], "pre", "post")
    assert both.splitlines()[2].split()[:5] == swapped.splitlines()[2].split()[:5]


def test_the_interval_is_a_function_of_the_results(run):
    assert report.compare([run], "pre", "post") == report.compare([run], "pre", "post")


def test_a_ratio_to_nothing_is_left_out(tmp_path):
    _write(tmp_path / "run" / "inference" / "pre", [0.0, 0.0])
    _write(tmp_path / "run" / "inference" / "post", [1.0, 2.0])
    text = report.compare([tmp_path / "run"], "pre", "post")
    assert "×" not in text
    assert "mean stable time" in text


def test_times_within_the_support_are_compared(tmp_path):
    _write(tmp_path / "run" / "inference" / "pre", [1.0, 2.0, 10.0, 10.0], departures=[0.5, 1.0, 0.5, 10.0])
    _write(tmp_path / "run" / "inference" / "post", [8.0, 10.0, 10.0, 10.0], departures=[6.0, 10.0, 10.0, 10.0])
    lines = {line.split("  ")[0]: line for line in report.compare([tmp_path / "run"], "pre", "post").splitlines()}
    assert "3.00 [" in lines["mean time within the support (ps)"]
    assert "9.00 [" in lines["mean time within the support (ps)"]
    assert "× 3.0" in lines["mean time within the support (ps)"]
    assert "0.250 [" in lines["fraction within the support to the end"]
    assert "not reached" in lines["median time within the support (ps)"]


@pytest.mark.parametrize("older", ["pre", "post"])
def test_results_without_departures_have_a_dash(tmp_path, older):
    for name in ("pre", "post"):
        departures = None if name == older else [0.5, 1.0]
        _write(tmp_path / "run" / "inference" / name, [1.0, 2.0], departures=departures)
    lines = [line for line in report.compare([tmp_path / "run"], "pre", "post").splitlines() if "support" in line]
    assert len(lines) == 3
    for line in lines:
        cells = line.rsplit("(ps)", 1)[-1].rsplit("to the end", 1)[-1].split("  ")
        assert [cell.strip() for cell in cells if cell.strip()][0 if older == "pre" else 1] == "-"
        assert "×" not in line


def test_results_that_all_lack_departures_do_not_mention_them(run):
    assert "support" not in report.compare([run], "pre", "post")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("timestep_fs", (0.5, 1.0)),
        ("thermostat", ({"name": "langevin", "friction_per_ps": 5.0}, {"name": "nose_hoover", "relaxation_steps": 20})),
        ("thermostat", ({"name": "langevin", "friction_per_ps": 5.0}, {"name": "langevin", "friction_per_ps": 0.5})),
    ],
)
def test_other_dynamics_are_a_warning(tmp_path, caplog, key, values):
    for name, value in zip(("pre", "post"), values, strict=True):
        _write(tmp_path / "run" / "inference" / name, [1.0, 2.0], **{key: value})
    report.compare([tmp_path / "run"], "pre", "post")
    assert f"{key} differs: stable times are not comparable (pre: 500 K" in caplog.text


def test_the_dynamics_are_stated(tmp_path, caplog):
    dynamics = {"thermostat": {"name": "langevin", "friction_per_ps": 0.5}, "timestep_fs": 1.0}
    for name in ("pre", "post"):
        _write(tmp_path / "run" / "inference" / name, [1.0, 2.0], **dynamics)
    text = report.compare([tmp_path / "run"], "pre", "post")
    assert text.startswith("500 K, langevin (friction 0.5/ps), time step 1 fs\n")
    assert not caplog.text


def test_results_without_errors_of_a_broken_force_field(tmp_path):
    _write(tmp_path / "run" / "inference" / "pre", [1.0, 2.0])
    _write(tmp_path / "run" / "inference" / "post", [1.0, 2.0], energy_mae_meV=None)
    (line,) = [line for line in report.compare([tmp_path / "run"], "pre", "post").splitlines() if "energy" in line]
    assert line.split()[-2:] == ["-", "-"]


@pytest.mark.parametrize("key", ["replicas", "horizon_ps", "temperature_K"])
def test_unlike_evaluations_are_not_compared(tmp_path, key):
    _write(tmp_path / "run" / "inference" / "pre", [1.0, 2.0])
    n_replicas = 77 if key == "replicas" else 2
    _write(tmp_path / "run" / "inference" / "post", [1.0] * n_replicas, **{key: 77})
    with pytest.raises(ConfigError, match=f"{key} differs between pre .* and post .77."):
        report.compare([tmp_path / "run"], "pre", "post")


def test_a_missing_evaluation_is_named(run):
    with pytest.raises(ConfigError, match=r"post_cycle9/final_metrics\.json: cannot be read"):
        report.compare([run], "pre", "post_cycle9")


def _with_digests(folder: Path) -> Path:
    """The same results as this version writes them."""
    summary = files.read_json(folder / "final_metrics.json")
    write_summary(folder, summary, sorted(path.name for path in folder.glob("*.npy")))
    return folder


def test_digests_change_no_result(run):
    before = read_results(run / "inference" / "pre")
    after = read_results(_with_digests(run / "inference" / "pre"))
    assert after.summaries == before.summaries
    assert after.observables.keys() == before.observables.keys()


def test_results_of_an_earlier_version_are_read_and_named(run, caplog):
    with caplog.at_level(logging.DEBUG, "mdsim"):
        read_results(run / "inference" / "pre")
    assert "has no digests (an earlier version)" in caplog.text


@pytest.mark.parametrize("name", ["rdf.npy", "rdf_reference.npy", "broken.npy", "stable_frames.npy"])
def test_arrays_of_another_evaluation_are_refused(run, name):
    folder = _with_digests(run / "inference" / "pre")
    np.save(folder / name, np.roll(np.load(folder / name), 1))
    with pytest.raises(ConfigError, match=f"{name}: is damaged, or of another evaluation.*evaluate again"):
        read_results(folder)


def test_a_changed_number_and_a_missing_array_are_refused(run):
    folder = _with_digests(run / "inference" / "pre")
    (folder / "rdf_axis.npy").rename(folder / "kept")
    with pytest.raises(ConfigError, match=r"rdf_axis\.npy is missing"):
        read_results(folder)
    (folder / "kept").rename(folder / "rdf_axis.npy")
    np.save(folder / "adf_axis.npy", AXIS)  # not of this evaluation
    assert read_results(folder).observables.keys() == {"rdf"}
    path = folder / "final_metrics.json"
    path.write_text(path.read_text().replace("500.0", "300.0"))
    with pytest.raises(ConfigError, match=r"final_metrics\.json: is damaged.*digest"):
        read_results(folder)


def test_runs_with_unlike_axes_are_not_pooled(run, tmp_path):
    _write(tmp_path / "second" / "inference" / "pre", [3.0, 4.0, 5.0, 4.0])
    np.save(tmp_path / "second" / "inference" / "pre" / "rdf_axis.npy", 2 * AXIS)
    with pytest.raises(ConfigError, match=r"second.*rdf has another axis than in"):
        read_results(*(folder / "inference" / "pre" for folder in (run, tmp_path / "second")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("final_metrics.json", b"[" * 100_000, "cannot be read"),
        ("final_metrics.json", b"\xff", "cannot be read"),
        ("final_metrics.json", b"[]", "is damaged .a list.; evaluate again"),
        ("final_metrics.json", b"{}", "replicas is None: it is damaged"),
        ("final_metrics.json", b'{"replicas": 4, "horizon_ps": NaN, "temperature_K": 5}', "horizon_ps is nan"),
        ("broken.npy", np.zeros(4), "stable times are not what an evaluation writes"),
        ("broken.npy", np.array([None] * 4), "missing or damaged.*allow_pickle"),
        ("stable_time_ps.npy", np.array([1.0, np.nan, 1.0, 1.0]), "stable times are not what"),
        ("stable_time_ps.npy", np.zeros(3), r"holds float64 of shape \(3,\), not 4 numbers"),
        ("rdf.npy", np.zeros((4, 2)), "not 4 x 3 numbers"),
        ("rdf.npy", b"no array", "missing or damaged"),
        ("rdf_axis.npy", np.zeros(3), "the axis or the reference of rdf is damaged"),
        ("rdf_reference.npy", np.full(3, np.inf), "the axis or the reference of rdf is damaged"),
        ("rdf_axis.npy", np.array("x"), "evaluate again"),
        ("extra_axis.npy", np.arange(3.0), "extra_reference.npy is missing or damaged"),
    ],
)
def test_damaged_results_are_one_line(run, name, content, message):
    path = run / "inference" / "post" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ConfigError, match=message) as caught:
        report.compare([run], "pre", "post")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("times", "departed"),
    [
        ([0.5, -1.0], [True, True]),
        ([0.5, 3.0], [True, True]),  # later than the break
        ([0.5, 1.0], [True, False]),  # broke within the support
        ([0.5, 1.0], [1.0, 1.0]),
    ],
)
def test_damaged_departures_are_one_line(tmp_path, times, departed):
    folder = tmp_path / "run" / "inference" / "pre"
    _write(folder, [1.0, 2.0])
    np.save(folder / "departure_time_ps.npy", np.array(times))
    np.save(folder / "departed.npy", np.array(departed))
    with pytest.raises(ConfigError, match="departure times are not what an evaluation writes; evaluate again"):
        read_results(folder)


def test_evaluations_of_other_observables_are_not_compared(run):
    for part in ("", "_axis", "_reference"):
        (run / "inference" / "post" / f"rdf{part}.npy").rename(run / "inference" / "post" / f"adf{part}.npy")
    with pytest.raises(ConfigError, match="pre and post do not have the same observables: adf, rdf"):
        report.compare([run], "pre", "post")


def test_a_missing_array_is_named(run):
    (run / "inference" / "pre" / "broken.npy").unlink()
    with pytest.raises(ConfigError, match=r"broken\.npy is missing or damaged.*evaluate again"):
        report.compare([run], "pre", "post")


@pytest.mark.parametrize(
    ("name", "periodic", "expected"),
    [
        ("rdf", False, ("r (Å)", "h(r) (1/Å)")),
        ("rdf_OO", True, ("r (Å)", "g(r), OO")),
        ("rdf_HH_intermolecular", True, ("r (Å)", "g(r), HH intermolecular")),
        ("bond_length_distribution_OH", True, ("bond length (Å)", "density (1/Å), OH")),
        ("vacf", True, ("lag (fs)", "VACF / VACF(0)")),
        ("something", True, ("", "something")),
    ],
)
def test_axes_say_what_is_drawn(name, periodic, expected):
    assert report.axis_labels(name, periodic) == expected


def _add(folder: Path, name: str, values: np.ndarray, axis: np.ndarray, reference: np.ndarray) -> None:
    for key, array in {name: values, f"{name}_axis": axis, f"{name}_reference": reference}.items():
        np.save(folder / f"{key}.npy", array)


def test_dihedrals_share_a_figure_of_free_energies(run, monkeypatch):
    axis = np.arange(-150.0, 180.0, 60.0)
    reference = np.array([0.5, 0.25, 0.0, 0.0, 0.0, 0.25]) / 60
    for name, shift in (("pre", 0.125), ("post", 0.0)):
        folder = run / "inference" / name
        values = np.tile(reference + shift * np.array([-1, 1, 0, 0, 0, 0]) / 60, (4, 1))
        for label in ("phi_1", "C4_N6_C8_Cl14"):
            _add(folder, f"dihedral_{label}", values, axis, reference)
        _add(folder, "distances_ClO_within_molecules", values, np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5]), reference)
    drawn = {}
    draw = report.panels_figure

    def spy(path: Path, panels: dict, *labels, **options) -> None:
        drawn[path.name] = panels
        draw(path, panels, *labels, **options)

    monkeypatch.setattr(report, "panels_figure", spy)
    report.compare([run], "pre", "post")
    names = {path.name for path in (run / "inference").glob("*.png")}
    assert names == {"survival.png", "rdf.png", "dihedrals.png", "distances.png"}
    assert list(drawn["distances.png"]) == ["Cl-O within molecules"]
    assert list(drawn["dihedrals.png"]) == ["C4-N6-C8-Cl14", "phi 1"]
    panel = drawn["dihedrals.png"]["phi 1"]
    kT_meV = 1000 * kT_eV(500.0)
    floor = kT_meV * (np.log(1000) + np.log(3.0))  # of p/p_uniform = 3 at the minimum
    assert panel.floor == pytest.approx(floor)
    half = kT_meV * np.log(2)
    np.testing.assert_allclose(panel.reference, [0, half, floor, np.nan, floor, half], 1e-5, 1e-5)
    center, low, high = panel.curves["before (pre)"]
    np.testing.assert_allclose(center[:2], -kT_meV * np.log([0.75, 0.75]), 1e-6)
    np.testing.assert_allclose(low[:2], center[:2])
    np.testing.assert_allclose(high[:2], center[:2])


def test_runs_together_have_one_offset_of_energies(tmp_path):
    axis = np.array([-0.3, -0.1, 0.1, 0.3])
    labels = np.array([0.5, 2.0, 2.0, 0.5])
    for run in ("a", "b"):
        for name in ("pre", "post"):
            folder = tmp_path / run / "inference" / name
            _write(folder, [10.0, 10.0])
            lower = np.array([0.5, -0.5, 0.0, 0.0]) if name == "pre" else np.zeros(4)  # by 20 meV
            _add(folder, "potential_energy", np.array([labels + lower, labels]), axis, labels)
    text = report.compare([tmp_path / "a", tmp_path / "b"], "pre", "post")
    (line,) = [line for line in text.splitlines() if line.startswith("potential energy - labels (meV)")]
    before, after = (float(word) for word, bracket in pairwise(line.split()) if bracket.startswith("["))
    assert (before, after) == (pytest.approx(-10.0), pytest.approx(0.0))


def test_pooled_runs_have_one_diffusivity(tmp_path):
    values = {"a": [[1.5], [1.7]], "b": [[2.0], [np.nan]]}
    for run, own in values.items():
        for name in ("pre", "post"):
            folder = tmp_path / run / "inference" / name
            _write(folder, [10.0, 10.0])
            arrays = {"diffusivity_O": own, "diffusivity_O_axis": [0.0], "diffusivity_O_reference": [1.75]}
            for key, array in arrays.items():
                np.save(folder / f"{key}.npy", np.array(array))
    text = report.compare([tmp_path / "a", tmp_path / "b"], "pre", "post")
    (line,) = [line for line in text.splitlines() if line.startswith("diffusivity O (1e-9 m²/s)")]
    assert line.count("1.73 [") == 2
    assert "DIFFUSIVITY O MAE" in text
