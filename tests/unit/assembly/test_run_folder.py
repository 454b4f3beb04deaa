"""Run folders: one process at a time, and continuation only with the same inputs."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import simulate_config, train_config

from mdsim.assembly.inputs import flat, identity, inputs_of, may_change
from mdsim.assembly.run_folder import INPUTS, LOCK, check_folder, open_folder
from mdsim.config.schema import StatePointConfig, TrainConfig
from mdsim.errors import ConfigError

DIGESTS = {"toy/water/20/train.npz": "a" * 64, "pretrained checkpoint": "b" * 64}
OTHER = {**DIGESTS, "pretrained checkpoint": "c" * 64}


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    return train_config(tmp_path)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "runs" / "one"


def _open(folder, config, resume=False, overwrite=False, inputs=DIGESTS):
    return open_folder(folder, config, resume, overwrite, inputs)


def test_a_folder_belongs_to_one_process(folder, config):
    hold = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", hold, str(folder / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for resume in (False, True):
            attempt = _open(folder, config, resume=resume)
            with pytest.raises(ConfigError, match="another process is at work in this run folder"), attempt:
                pass
        assert [path.name for path in folder.iterdir()] == [LOCK]
        other.kill()  # as a job that is cut off: the lock is free again
    with _open(folder, config):
        pass


def test_the_lock_is_free_after_a_failure(folder, config):
    with pytest.raises(KeyError), _open(folder, config):
        raise KeyError
    with _open(folder, config, resume=True) as run:
        assert not run.is_older


def test_a_run_that_another_process_started_meanwhile_is_left_alone(folder, config):
    check_folder(folder, config, resume=False, overwrite=False)
    with _open(folder, config):
        pass
    with pytest.raises(ConfigError, match="holds a run"), _open(folder, config):
        pass


@pytest.mark.parametrize("name", ["last.pt", "checkpoints/best_checkpoint.pt", "state.pt"])
def test_results_without_a_configuration_are_not_overwritten(folder, config, name):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="holds a run"):
        check_folder(folder, config, resume=False, overwrite=False)
    with pytest.raises(ConfigError, match=r"config\.yml is missing"):
        check_folder(folder, config, resume=True, overwrite=False)


def test_exchanged_inputs_are_named(folder, config):
    with _open(folder, config):
        pass
    attempt = _open(folder, config, resume=True, inputs=OTHER)
    with pytest.raises(ConfigError, match="started from other content of pretrained checkpoint"), attempt:
        pass
    assert json.loads((folder / INPUTS).read_text()) == DIGESTS
    with _open(folder, config, overwrite=True, inputs=OTHER):
        assert json.loads((folder / INPUTS).read_text()) == OTHER


@pytest.mark.parametrize("content", ["[]", "{", "null", "[" * 100_000])
def test_damaged_fingerprints_are_one_line(folder, config, content):
    with _open(folder, config):
        pass
    (folder / INPUTS).write_text(content)
    with pytest.raises(ConfigError, match=r"inputs\.json: cannot be read"), _open(folder, config, resume=True):
        pass


def test_an_older_run_is_continued_with_a_warning(folder, config, caplog):
    with _open(folder, config):
        pass
    (folder / INPUTS).unlink()
    for _ in range(2):  # also where the first continuation was killed before it saved anything
        with caplog.at_level("WARNING", logger="mdsim"), _open(folder, config, resume=True) as run:
            assert run.is_older
        assert "an older run" in caplog.text


def test_resuming_nothing_says_so_and_names_the_runs_beside(folder, config, caplog):
    with _open(folder.with_name("seed123"), config), _open(folder.with_name("other"), config):
        pass
    with caplog.at_level("WARNING", logger="mdsim"):
        check_folder(folder.with_name("sed123"), config, resume=True, overwrite=False)
    assert "there is no run in" in caplog.text and "sed123" in caplog.text
    assert "(runs beside it: seed123, other)" in caplog.text


def test_what_killed_writes_left_is_removed(folder, config):
    (folder / "checkpoints").mkdir(parents=True)
    left = [".last.pt.123.tmp", "config.yml.tmp", "rdf.tmp.npy", "checkpoints/.best_checkpoint.pt.9.tmp"]
    kept = ["notes.txt", "rdf.npy", "inference.tmpl"]
    for name in left + kept:
        (folder / name).write_bytes(b"x")
    with _open(folder, config, overwrite=False):
        assert not any((folder / name).exists() for name in left)
        assert all((folder / name).exists() for name in kept)


def test_a_symlinked_folder_is_opened_where_it_leads(folder, config):
    with _open(folder, config):
        pass
    link = folder.with_name("link")
    link.symlink_to(folder)
    with _open(link, config, resume=True):
        pass


# ------------------------------------------------------------------------------------------------------- identities


def test_a_run_is_the_same_wherever_it_lies_and_however_long_it_is(config):
    moved = {"log_dir": "elsewhere", "exp_name": "other", "model_dir": "m", "epochs": 99, "results_dir": "r"}
    data = config.data.model_copy(update={"path": "elsewhere"})
    assert identity(config.model_copy(update={**moved, "data": data}), DIGESTS) == identity(config, DIGESTS)
    assert identity(config.model_copy(update={"seed": 99}), DIGESTS) != identity(config, DIGESTS)
    assert identity(config, OTHER) != identity(config, DIGESTS)


def test_reference_files_are_inputs(config, tmp_path):
    file = tmp_path / "rdf.dat"
    file.write_text("0 0\n1 1\n")
    term = config.terms[0]
    targets = tuple(target.model_copy(update={"reference_file": str(file)}) for target in term.targets)
    named = config.model_copy(update={"terms": (term.model_copy(update={"targets": targets}),)})
    (before,) = inputs_of(named, []).values()
    file.write_text("0 0\n1 2\n")
    (after,) = inputs_of(named, []).values()
    assert before != after
    with pytest.raises(ConfigError, match=r"nowhere: cannot be read"):
        inputs_of(config, [], something=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "changes",
    [
        {"exp_name": "../../outside"},
        {"exp_name": "a/b"},
        {"exp_name": "a\nb"},
        {"exp_name": "x" * 300},
        {"results_dir": "../up"},
        {"results_dir": "/absolute"},
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, changes):
    with pytest.raises(ValueError, match=r"is part of a folder's name|is a folder below"):
        train_config(tmp_path, **changes)


def test_a_run_without_state_points_keeps_the_identity_that_earlier_releases_gave_it(tmp_path):
    config = simulate_config(tmp_path)
    settings = {k: v for k, v in flat(config.model_dump(mode="json")).items() if not may_change(k)}
    assert settings.pop("state_points") is None
    earlier = hashlib.sha256(json.dumps([settings, DIGESTS], sort_keys=True, default=str).encode()).hexdigest()
    assert identity(config, DIGESTS) == earlier
    several = config.model_copy(update={"state_points": (StatePointConfig(temperature_K=300),)})
    assert identity(several, DIGESTS) != earlier


def test_reference_files_of_state_points_are_inputs(tmp_path):
    table = tmp_path / "rdf.dat"
    table.write_text("0 1\n1 2\n")
    points = [{"temperature_K": 300, "reference_files": [{"observable": "rdf", "reference_file": str(table)}]}]
    found = inputs_of(simulate_config(tmp_path, state_points=points), [])
    assert found == {"state_points.0.reference_files.0.reference_file": hashlib.sha256(table.read_bytes()).hexdigest()}
