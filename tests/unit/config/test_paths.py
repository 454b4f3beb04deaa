"""Paths of what a configuration reads: the working directory first, then the folders above the configuration file."""

import logging
from pathlib import Path

import pytest
from tiny import simulate_config, train_config

from mdsim.config.paths import located


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout with data and checkpoints, and an empty working directory beside it. The configuration file."""
    for name in ("repository/data/bundled", "repository/fits", "repository/configs/deep", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "repository" / "configs" / "deep" / "measured.txt").touch()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(logging.getLogger("mdsim"), "propagate", True)
    return tmp_path / "repository" / "configs" / "deep" / "run.yml"


def _config(tmp_path: Path, **changes):
    data = {"path": "data/bundled", "name": "toy", "molecule": "water", "size": "20"}
    return simulate_config(tmp_path, data=data, log_dir="runs", **{"model_dir": "fits", **changes})


def test_what_is_not_here_is_taken_from_above_the_configuration(checkout, tmp_path, caplog):
    caplog.set_level(logging.INFO, "mdsim")
    found = located(_config(tmp_path), checkout)
    repository = tmp_path / "repository"
    assert (found.data.path, found.model_dir) == (str(repository / "data" / "bundled"), str(repository / "fits"))
    assert found.log_dir == "runs", "it is written to"
    assert found.stable_dir == _config(tmp_path).stable_dir, "it exists nowhere"
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["data.path", "model_dir"]


def test_the_working_directory_comes_first(checkout, tmp_path, caplog):
    Path("data/bundled").mkdir(parents=True)
    Path("fits").mkdir()
    config = _config(tmp_path)
    assert located(config, checkout) == config
    assert not caplog.records


def test_absolute_paths_and_those_of_the_command_line_stay(checkout, tmp_path):
    config = _config(tmp_path, model_dir="/nowhere/fits")
    found = located(config, checkout, ["--data.path=data/bundled"])
    assert found == config
    assert located(_config(tmp_path), checkout, ["model_dir=fits", "data.path=data/bundled"]).model_dir == "fits"


def test_reference_files_are_found_wherever_they_are_named(checkout, tmp_path):
    observable = {"name": "rdf", "max_distance_A": 4.0, "bin_width_A": 0.1}
    targets = [{"observable": observable}, {"observable": observable, "reference_file": "measured.txt"}]
    config = train_config(tmp_path, terms=[{"name": "observables", "targets": targets}])
    first, second = located(config, checkout).terms[0].targets
    assert first.reference_file is None
    assert second.reference_file == str(checkout.parent / "measured.txt")


def test_further_keys_are_read_on_request(checkout, tmp_path):
    assert located(_config(tmp_path), checkout, also=("log_dir",)).log_dir == "runs"
    (tmp_path / "repository" / "runs").mkdir()
    assert located(_config(tmp_path), checkout, also=("log_dir",)).log_dir == str(tmp_path / "repository" / "runs")


def test_data_and_files_of_state_points_are_found(checkout, tmp_path):
    data = {"path": "data/bundled", "name": "other", "molecule": "water", "size": "20"}
    points = [
        {"temperature_K": 300, "reference_files": [{"observable": "rdf", "reference_file": "measured.txt"}]},
        {"temperature_K": 500, "data": data},
    ]
    first, second = located(_config(tmp_path, state_points=points), checkout).state_points
    assert first.reference_files[0].reference_file == str(checkout.parent / "measured.txt")
    assert second.data.path == str(tmp_path / "repository" / "data" / "bundled")
