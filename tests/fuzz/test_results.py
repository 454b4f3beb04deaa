"""Damaged results of evaluations: `compare` gives a table or one clear error."""

import json

import numpy as np
import pytest
from mutations import Outcomes, flipped, restructured, tries

from mdsim.evaluation import report
from mdsim.evaluation.files import write_json
from mdsim.evaluation.results import read_results, write_summary


@pytest.fixture(params=["digests", "an earlier version"])
def run(tmp_path, request):
    for name, end in (("pre", 4.0), ("post", 9.0)):
        folder = tmp_path / "inference" / name
        folder.mkdir(parents=True)
        arrays = {
            "stable_time_ps": np.array([1.0, 2.0, end]),
            "broken": np.array([True, True, False]),
            "stable_frames": np.array([10, 20, 90]),
            "rdf": np.tile([0.2, 0.6, 0.2], (3, 1)) + 0.01 * np.arange(3)[:, None],
            "rdf_axis": np.array([0.5, 1.5, 2.5]),
            "rdf_reference": np.array([0.2, 0.6, 0.2]),
        }
        for key, array in arrays.items():
            np.save(folder / f"{key}.npy", array)
        summary = {"replicas": 3, "horizon_ps": 10.0, "temperature_K": 300.0, "energy_mae_meV": 1.0}
        summary |= {"force_mae_meV_per_A": 2.0, "periodic": False}
        if request.param == "digests":
            write_summary(folder, summary, [f"{key}.npy" for key in arrays])
        else:
            write_json(folder / "final_metrics.json", summary)
    return tmp_path


def test_damaged_results_give_a_table_or_one_clear_error(run, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: [])  # figures take longer than everything else
    files, outcomes = sorted((run / "inference").rglob("*.*")), Outcomes()
    for rng in tries(150):
        path = rng.choice(files)
        content = path.read_bytes()
        how = rng.choice(["flip", "cut", "remove", "restructure"])
        if how == "remove":
            path.unlink()
        elif how == "restructure" and path.suffix == ".json":
            changed, how = restructured(json.loads(content), rng)
            path.write_text(json.dumps(changed), encoding="utf-8")
        else:
            path.write_bytes(content[: rng.randrange(len(content))] if how == "cut" else flipped(content, rng))
        outcomes.of(lambda: report.compare([run], "pre", "post"), f"{how} {path.name}")
        path.write_bytes(content)
    print(outcomes.counts)


@pytest.mark.parametrize("run", ["digests"], indirect=True)
def test_no_damage_gives_other_results(run):
    folder, outcomes = run / "inference" / "pre", Outcomes()
    original = _content(folder)
    for number, rng in enumerate(tries(300)):
        path = rng.choice(sorted(folder.iterdir()))
        content = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.5:
            changed, how = restructured(json.loads(content), rng)
            path.write_text(json.dumps(changed), encoding="utf-8")
        else:
            how, position = f"byte {number}", rng.randrange(len(content))
            other = bytes([rng.choice([byte for byte in range(256) if byte != content[position]])])
            path.write_bytes(content[:position] + other + content[position + 1 :])
        found = outcomes.of(lambda: _content(folder), f"{how} of {path.name}")
        assert found is None or found == original, f"{how} of {path.name}"
        path.write_bytes(content)
    print(outcomes.counts)
    assert outcomes.counts["refused"] > 10 * outcomes.counts["accepted"], "the rest is white space between keys"


def _content(folder):
    """Everything that is read, in a form that can be compared."""
    results = read_results(folder)
    arrays = {name: [array.tobytes() for array in parts] for name, parts in results.observables.items()}
    times = [(group.times.tobytes(), group.broken.tobytes()) for group in results.groups]
    return repr(results.summaries), arrays, times, results.weights.tobytes()
