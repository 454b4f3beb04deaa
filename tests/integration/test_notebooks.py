"""The notebooks of the manual: executed, if the manual has not done it yet, and held to what they say."""

import json
import math
import re
import sys

import pytest
from paths import ROOT

for needed in ("sphinx", "jupytext", "nbclient", "ipykernel", "tblite"):
    pytest.importorskip(needed)

sys.path.insert(0, str(ROOT / "docs" / "_ext"))

import notebooks
from notebooks import executed

FOLDER = ROOT / "docs" / "notebooks"
FITTED = ROOT / "qm_pretrained_checkpoints" / "schnet" / "aspirin_gfn2-aspirin_40_schnet"


def _run(name: str, stored: bool = False) -> tuple[dict, str, int]:
    """The numbers that a notebook computes, the text that it prints, and the number of its figures."""
    notebook = executed((FOLDER / f"{name}.py").read_text(encoding="utf-8"), stored)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    return notebook.metadata["computed"], text, figures


def test_the_quick_tour():
    found, text, figures = _run("quick_tour")
    recorded = json.loads((FITTED / "metrics.json").read_text(encoding="utf-8"))
    assert found["force_mae_meV_per_A"] == pytest.approx(recorded["test"]["force_mae_meV_per_A"], rel=0.1), (
        "of 200 of the test frames"
    )
    assert found["n_broken_before"] >= 9
    assert found["n_broken_after"] <= 3
    assert found["angle_error_after"] < 0.5 * found["angle_error_before"]
    assert text.count("] of 2 ps") == 2
    assert figures == 2


def test_the_anatomy_of_an_instability():
    found, _, figures = _run("why_it_blows_up")
    assert found["n_departed"] >= 10
    assert found["n_by_hydroxyl"] >= 0.7 * found["n_departed"]
    assert found["median_delay_fs"] > 0
    assert found["error_test_eV"] < 0.1
    assert found["error_folded_eV"] < -0.5, "the fold is a spurious minimum"
    assert found["largest_scan_error_inside_eV"] < 0.15
    assert found["worst_scan_error_eV"] < -0.5
    assert found["angle_folded_deg"] < 90
    assert figures == 3


@pytest.mark.parametrize("stored", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_way_from_a_file_of_frames(stored, monkeypatch):
    if stored:
        monkeypatch.setattr(notebooks, "_run", lambda _: pytest.fail(f"no outputs of this code: {notebooks.__doc__}"))
    found, text, figures = _run("stabilize_your_model", stored)
    assert 0 < found["mean_before_ps"] < found["mean_after_ps"] <= 3.0
    assert found["force_mae_after"] < 1.25 * found["force_mae_before"]
    assert "wrote train 274, val 14, test 32" in text
    before, after = re.search(r"mean stable time (\S+) → (\S+) ps\n", text).groups()
    assert math.isclose(float(before), found["mean_before_ps"], abs_tol=0.006)
    assert math.isclose(float(after), found["mean_after_ps"], abs_tol=0.006)
    assert figures == 3


def test_a_table_as_reference():
    found, text, figures = _run("from_an_experiment")
    assert found["n_refused"] == 5
    assert "normalize it by the ideal gas" in text
    assert "line 1: expected two finite numbers" in text
    assert found["interpolation_error"] < 0.01
    assert found["unvisited_right"] < 0.01
    assert found["unvisited_shifted"] > 0.1
    assert found["measured_change"] == pytest.approx(found["predicted_change"], rel=0.3), "the estimator is the slope"
    assert figures == 1


def test_every_notebook_is_tested_and_in_the_manual():
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    tested = re.findall(r'_run\("(\w+)"', (ROOT / "tests/integration/test_notebooks.py").read_text(encoding="utf-8"))
    assert names == sorted(tested)
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"\nnotebooks/{name}\n" in index and f"(notebooks/{name}.py)" in index for name in names)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A notebook that takes no time, and a folder of its own for what is kept."""
    monkeypatch.setattr(notebooks, "KEPT", tmp_path / "build")
    monkeypatch.setattr(notebooks, "STORED", tmp_path / "stored")
    return "# %% [markdown]\n# # Title\n\n# %%\nnumber = 6 * 7\nprint(number)\n"


def test_a_notebook_is_executed_once_for_one_code(small, tmp_path, monkeypatch):
    first = executed(small)
    assert first.metadata["computed"]["number"] == 42
    assert first.cells[1].outputs[0].text == "42\n"
    assert len(first.cells) == 2, "the cell that reads the numbers is not shown"
    monkeypatch.setattr(notebooks, "_run", lambda notebook: pytest.fail("executed again"))
    other_text = executed(small.replace("Title", "Another title"))
    assert other_text.cells[0].source == "# Another title"
    assert other_text.cells[1].outputs[0].text == "42\n"
    with pytest.raises(BaseException, match="executed again"):
        executed(small.replace("6 * 7", "6 * 8"))


def test_an_error_in_a_notebook_is_an_error(small):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        executed(small.replace("6 * 7", "6 / 0"))
    assert not list(notebooks.KEPT.glob("*.ipynb"))
