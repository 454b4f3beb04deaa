"""Reports of evaluations: all sections are there, whatever is missing, and hostile names stay text."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluation_folders import HORIZON_PS, write_evaluation

from mdsim.cli.main import main
from mdsim.errors import ConfigError
from mdsim.evaluation import page as page_module
from mdsim.evaluation import report
from mdsim.evaluation.endings import Break
from mdsim.evaluation.replays import read_kept
from mdsim.reporting.trajectories import FORMATS, FileSettings

VOID = {"meta", "link", "img", "input", "br"}
SECTIONS = ["Stability", "Breaks", "Replay", "Observables and errors", "Runs", "Configuration and provenance"]


class Parsed(HTMLParser):
    """The elements of a page with their attributes, its headings, and its text outside scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.headings: list[str] = []
        self.text = ""
        self.data: list[dict] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script" and self.elements[-1][1].get("type") == "application/json":
            self.data = json.loads(data)
        if "script" not in self.open and "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def run(tmp_path) -> Path:
    write_evaluation(tmp_path / "run" / "inference" / "pre", [1.0, 2.0, 3.0, HORIZON_PS])
    write_evaluation(tmp_path / "run" / "inference" / "post", [8.0, HORIZON_PS, HORIZON_PS, HORIZON_PS])
    return tmp_path / "run"


def test_a_report_has_all_sections_and_is_accessible(run):
    written = report.report([run])
    page = Parsed(written.path)
    assert written.path == run / "inference" / "report.html"
    assert written.path.stat().st_size < 5e6
    assert page.headings == SECTIONS
    assert written.verdict in page.text
    assert written.verdict.startswith("After (post) is")
    assert "3 of 4 replicas broke" in written.verdict
    images = page.all("img")
    assert {Path(path).stem for path in written.figures} == {"survival", "breaks", "rdf"}
    assert len(images) == 3
    assert all(len(image["alt"]) > 40 and image["src"].startswith("data:image/png") for image in images)
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    assert all(button.get("type") == "button" for button in page.all("button"))
    labels = {label["for"] for label in page.all("label")}
    assert labels == {element["id"] for tag in ("input", "select") for element in page.all(tag)}
    assert page.all("html")[0]["lang"] == "en"


def test_a_page_loads_nothing(run):
    page = Parsed(report.report([run]).path)
    addresses = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")
    assert "BSD-3-Clause" in page.text and "University of Pittsburgh" in page.text


def test_the_torn_bond_is_named(run):
    text = Parsed(report.report([run / "inference" / "pre"]).path).text
    assert "bond O0–H1: 0.96 → 1.76 Å" in text
    assert "replica 0 · breaks at 1.10 ps" in text
    assert "replica 3 · stable" in text
    assert "Unstable: 3 of 4 replicas broke within 10 ps" in text


@pytest.mark.parametrize(
    ("times", "frames", "expected"),
    [
        ([HORIZON_PS] * 4, True, "None of 4 replicas broke within 10 ps"),
        ([0.0] * 4, False, "Unstable: 4 of 4 replicas broke"),
        ([1.0], True, "Unstable: 1 of 1 replicas broke"),
        ([HORIZON_PS], True, "The only replica did not break: stable for 10 ps"),
    ],
    ids=["no breaks", "all at once, no frames", "one replica broke", "one stable replica"],
)
def test_missing_pieces_are_left_out(tmp_path, times, frames, expected):
    write_evaluation(tmp_path / "inference" / "pre", times, frames=frames)
    page = Parsed(report.report([tmp_path / "inference" / "pre"]).path)
    assert page.headings == SECTIONS
    assert expected in page.text
    assert bool(page.all("select")) == frames


def test_hostile_names_stay_text(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    folder = tmp_path / "<b>run" / "inference" / "pre"
    write_evaluation(folder, [1.0, HORIZON_PS], reason=evil, checkpoint=evil, versions={evil: evil})
    (folder / "config.yml").write_text(f"exp_name: '{evil}'\n", encoding="utf-8")
    page = Parsed(report.report([folder]).path)
    assert len(page.all("script")) == 3, "data, viewer, replay"
    assert not page.all("b") and len(page.all("img")) == 3
    assert page.text.count(evil) >= 4


@pytest.mark.parametrize("name", FORMATS)
def test_replays_of_every_format(tmp_path, name):
    folder = tmp_path / "inference" / "pre"
    write_evaluation(folder, [1.0, HORIZON_PS], files=FileSettings(name))
    torn, stable = read_kept(folder, [Break(0, 1.0, "bond length deviation", None)])
    assert torn.broke and torn.place == "bond O0–H1" and not stable.broke
    np.testing.assert_allclose(torn.times_ps, 0.1 * np.arange(12), atol=1e-6)
    lengths = np.linalg.norm(torn.positions[:, 0] - torn.positions[:, 1], axis=-1)
    np.testing.assert_allclose(lengths, [0.96] * 11 + [1.76], atol=0.01)
    assert "replica 0 · breaks at 1.10 ps" in Parsed(report.report([folder]).path).text


def test_damaged_frames_are_left_out(run, caplog):
    path = run / "inference" / "pre" / "trajectories" / "break_replica0001.gsd"
    path.write_bytes(path.read_bytes()[:100])
    assert "replica 0 · breaks" in Parsed(report.report([run / "inference" / "pre"]).path).text
    assert "break_replica0001.gsd: left out of the report" in caplog.text


@pytest.mark.parametrize(("most", "expected"), [(4 * 9 * 5, 5), (8, None)])
def test_large_systems_have_fewer_frames_or_none(run, monkeypatch, most, expected):
    monkeypatch.setattr(page_module, "MOST_COORDINATES", most)
    page = Parsed(report.report([run / "inference" / "pre"]).path)
    if expected is None:
        assert "The system is too large to be shown here" in page.text and not page.all("script")
    else:
        assert [len(replay["frames"]) for replay in page.data] == [expected] * 4


def test_long_files_are_shortened(run, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_LISTED", 30)
    (run / "inference" / "pre" / "config.yml").write_text("a: 1  # 1234567890\n", encoding="utf-8")
    assert "a: 1  # 12\n... (9 more characters" in Parsed(report.report([run / "inference" / "pre"]).path).text


def test_damaged_endings_are_an_error(tmp_path):
    write_evaluation(tmp_path / "pre", [1.0], endings=[{"broke_by": "x"}])
    with pytest.raises(ConfigError, match=r"endings of a summary are damaged.*evaluate again"):
        report.report([tmp_path / "pre"])


def test_several_runs_are_compared_under_their_names(tmp_path, capsys):
    for name, time in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        write_evaluation(tmp_path / name / "inference" / "post", [time, HORIZON_PS])
    output = tmp_path / "all.html"
    assert main(["report", *(str(tmp_path / name) for name in "abc"), "--output", str(output)]) == 0
    text = Parsed(output).text
    assert all(f"{name}/post: 1 of 2 replicas broke" in text for name in "abc")
    assert str(output) in capsys.readouterr().err


def test_a_folder_without_evaluations_is_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) != 0
    assert "holds no finished evaluation; name a run folder" in capsys.readouterr().err
