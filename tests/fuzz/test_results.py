"""Damaged results of evaluations: `compare` gives a table or one clear error."""

import json

import numpy as np
import pytest
from mutations import Outcomes, flipped, restructured, tries

from mdsim.evaluation import report
from mdsim.evaluation.metrics import write_json


@pytest.fixture
def run(tmp_path):
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
        write_json(folder / "final_metrics.json", summary | {"force_mae_meV_per_A": 2.0, "periodic": False})
    return tmp_path


def test_damaged_results_give_a_table_or_one_clear_error(run, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: None)  # figures take longer than everything else
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
