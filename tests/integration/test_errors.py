"""Errors of the user and of files: one line on stderr, exit status 1, nothing overwritten, no traceback."""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from tiny import frames, write_pretrained, write_world

from mdsim.cli import main as cli
from mdsim.datasets.folder import sha256_of
from mdsim.datasets.npz import write_frames


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("original"))


@pytest.fixture
def world(original, tmp_path, monkeypatch) -> Path:
    """A copy that a test may damage; all its paths are relative."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*.yml"):
        path.write_text(path.read_text().replace(f"{original}/", ""))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def error_of(world, capsys) -> Callable[..., str]:
    """The message with which a command fails, once it is clear that nothing else happened."""

    def error_of(command: Callable, *arguments: str, changes: bool = False) -> str:
        before = _snapshot(world)
        capsys.readouterr()
        assert command([str(argument) for argument in arguments]) == 1
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err + shown.out
        position = shown.err.index("error: ")
        assert position == 0 or shown.err[position - 1] == "\n"
        if not changes:
            assert _snapshot(world) == before, "a mistake must change nothing"
        return shown.err[position:].removeprefix("error: ").rstrip("\n")

    return error_of


PRETRAIN = ("--config-yml", "pretrain.yml")
TRAIN = ("--config-yml", "train.yml")
SIMULATE = ("--config-yml", "simulate.yml")
CHECKPOINT = Path("models", "schnet", "toy-water_20_schnet", "checkpoints", "best_checkpoint.pt")
COMMANDS = [(cli.pretraining, PRETRAIN), (cli.stable_training, TRAIN), (cli.stable_training, SIMULATE)]
EACH_COMMAND = pytest.mark.parametrize(("command", "arguments"), COMMANDS, ids=["pretrain", "train", "simulate"])


# ------------------------------------------------------------------------------------------------------ configuration


@EACH_COMMAND
def test_unknown_key(error_of, command, arguments):
    message = error_of(command, *arguments, "--data.molecul=x")
    assert "unknown key 'data.molecul'; did you mean 'molecule'?" in message
    assert "\n" not in message


@EACH_COMMAND
def test_missing_data_set(error_of, command, arguments):
    message = error_of(command, *arguments, "--data.size=7k")
    assert "no data set here" in message or "does not exist" in message
    assert "7k" in message


@EACH_COMMAND
def test_missing_configuration(error_of, command, arguments):
    assert error_of(command) == "--config-yml CONFIG is missing"
    assert "nowhere.yml: cannot be read" in error_of(command, "--config-yml", "nowhere.yml")


@pytest.mark.parametrize("arguments", [["nonsense"], ["--seed", "x"], ["--unknown"], ["--resume", "--overwrite"]])
def test_arguments_that_are_none(arguments, world, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.pretraining([*PRETRAIN, *arguments])
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--terms.observables.targets.0.observable.bin_width_A=0.03", "not a whole number of bins"),
        ("--terms.observables.targets.0.observable.pair=[C, H]", "C"),
        ("--terms.observables.targets.0.reference_file=nowhere.dat", "nowhere.dat"),
        ("--stability=[{name: minimum_intermolecular_distance}]", "needs at least two molecules"),
    ],
)
def test_pieces_that_do_not_fit_the_system(error_of, override, message):
    assert message in error_of(cli.stable_training, *TRAIN, override)


def test_a_lag_longer_than_the_window(error_of):
    message = error_of(cli.stable_training, *SIMULATE, "--dynamical_observables=[{name: vacf, max_lag_fs: 40}]")
    assert "max_lag_fs = 40.0 needs windows of 21 frames" in message


@pytest.mark.parametrize("eval_model", ["last", "post", "post_cycle1", "9k", "lmax=3"])
def test_wrong_eval_model(error_of, eval_model):
    message = error_of(cli.stable_training, *SIMULATE, "--eval_model", eval_model)
    assert message.startswith(("eval_model: found 'last', expected pre", f"eval_model '{eval_model}': "))


# -------------------------------------------------------------------------------------------------------------- files


@EACH_COMMAND
@pytest.mark.parametrize("name", ["20/train.npz", "test.npz"])
def test_damaged_data(world, error_of, command, arguments, name):
    if command is cli.stable_training and name == "test.npz" and arguments == TRAIN:
        pytest.skip("training does not read the test frames")
    path = world / "data" / "toy" / "water" / name
    path.write_bytes(path.read_bytes()[:-100])
    message = error_of(command, *arguments)
    assert name.split("/")[-1] in message
    assert "truncated or was changed" in message


def test_data_that_are_no_archive(world, error_of):
    folder = world / "data" / "toy" / "water" / "20"
    (folder / "train.npz").write_bytes(b"not an archive")
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["sha256"].pop("train.npz")
    (folder / "metadata.json").write_text(json.dumps(metadata))
    assert "train.npz" in error_of(cli.pretraining, *PRETRAIN)


@pytest.mark.parametrize("arguments", [TRAIN, SIMULATE], ids=["train", "simulate"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "foreign", "truncated"])
def test_damaged_checkpoint(world, error_of, arguments, content):
    path = world / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    message = error_of(cli.stable_training, *arguments)
    assert str(CHECKPOINT) in message
    assert "truncated, or no checkpoint" in message


def test_missing_checkpoint(world, error_of):
    (world / CHECKPOINT).unlink()
    assert f"there is no checkpoint {CHECKPOINT}" in error_of(cli.stable_training, *TRAIN)


@pytest.mark.parametrize("arguments", [TRAIN, SIMULATE], ids=["train", "simulate"])
def test_elements_that_the_force_field_has_not_seen(world, error_of, arguments):
    write_pretrained(world / "models", species=(6, 8))
    message = error_of(cli.stable_training, *arguments)
    assert message == "the force field knows the atomic numbers [6, 8], but the system has [1]"


# ------------------------------------------------------------------------------------------------------- run folders


@EACH_COMMAND
def test_an_existing_run_is_left_alone(error_of, command, arguments):
    short = ["--optim.max_epochs=1"] if command is cli.pretraining else ["--epochs=1"]
    assert command([*arguments, *short]) == 0
    assert "holds a run; continue it with --resume, replace it with --overwrite" in error_of(command, *arguments)
    changed = "--seed=77" if command is cli.pretraining else "--dynamics.temperature_K=77"
    message = error_of(command, *arguments, *short, changed, "--resume")
    assert "was started with other settings" in message
    assert "-> 77" in message


def test_a_mistake_beside_overwrite_costs_nothing(world, error_of):
    assert cli.stable_training([*TRAIN, "--epochs=1"]) == 0
    (world / CHECKPOINT).write_bytes(b"damaged")
    error_of(cli.stable_training, *TRAIN, "--overwrite")


def test_a_damaged_state_is_not_resumed(world, error_of):
    assert cli.stable_training([*TRAIN, "--epochs=1"]) == 0
    (last,) = (world / "runs").rglob("last.pt")
    last.write_bytes(last.read_bytes()[:500])
    assert "last.pt is truncated" in error_of(cli.stable_training, *TRAIN, "--epochs=1", "--resume", changes=True)
    assert last.stat().st_size == 500


def test_a_force_field_that_changed_is_not_resumed(world, error_of):
    assert cli.stable_training([*SIMULATE, "--epochs=1"]) == 0
    (state,) = (world / "runs").rglob("state.pt")
    before = state.read_bytes()
    write_pretrained(world / "models", seed=8)
    message = error_of(cli.stable_training, *SIMULATE, "--resume", changes=True)
    assert "belongs to another force field than the checkpoint" in message
    assert state.read_bytes() == before


def _swap_state(world, *changes: str) -> Path:
    """A stopped run whose `last.pt` is that of another one."""
    assert cli.stable_training([*TRAIN, "--epochs=1", "--exp_name=other", *changes]) == 0
    (other,) = (world / "runs").rglob("last.pt")
    assert cli.stable_training([*TRAIN, "--epochs=1"]) == 0
    last = other.parent.with_name("schnet_water_default") / "last.pt"
    shutil.copy(other, last)
    return last


def test_a_state_of_another_run_is_not_resumed(world, error_of):
    last = _swap_state(world, "--seed=99")
    before = last.read_bytes()
    message = error_of(cli.stable_training, *TRAIN, "--epochs=2", "--resume", changes=True)
    assert "last.pt: was written by another run, of other settings or data" in message
    assert last.read_bytes() == before


def test_another_pretrained_force_field_is_not_resumed(world, error_of):
    assert cli.stable_training([*TRAIN, "--epochs=1"]) == 0
    write_pretrained(world / "models", seed=8)
    message = error_of(cli.stable_training, *TRAIN, "--epochs=2", "--resume", changes=True)
    assert "inputs.json: the run was started from other content of pretrained checkpoint" in message


@EACH_COMMAND
def test_other_labels_are_not_resumed(world, error_of, command, arguments):
    short = ["--optim.max_epochs=1"] if command is cli.pretraining else ["--epochs=1"]
    assert command([*arguments, *short]) == 0
    labels = frames(20, seed=77)
    folder = world / "data" / "toy" / "water" / "20"
    write_frames(folder / "train.npz", labels)
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["sha256"]["train.npz"] = sha256_of(folder / "train.npz")
    (folder / "metadata.json").write_text(json.dumps(metadata))
    message = error_of(command, *arguments, *short, "--resume", changes=True)
    assert "was started from other content of toy/water/20/train.npz" in message


def test_a_run_of_an_earlier_release_is_resumed(world):
    assert cli.stable_training([*TRAIN, "--epochs=1"]) == 0
    (last,) = (world / "runs").rglob("last.pt")
    payload = torch.load(last, weights_only=True)
    del payload["digest"], payload["provenance"]["run"]
    torch.save(payload, last)
    last.with_name("inputs.json").unlink()
    assert cli.stable_training([*TRAIN, "--epochs=2", "--resume"]) == 0
    log = last.with_name("log.txt").read_text()
    assert "resumed after epoch 1" in log and "does not say which run wrote it (an older run)" in log


def test_a_moved_run_is_resumed(world):
    assert cli.stable_training([*TRAIN, "--epochs=1"]) == 0
    (world / "runs").rename(world / "moved")
    assert cli.stable_training([*TRAIN, "--epochs=2", "--log_dir=moved", "--resume"]) == 0
    assert "resumed after epoch 1" in next((world / "moved").rglob("log.txt")).read_text()
    (world / "runs").symlink_to(world / "moved")
    assert cli.stable_training([*TRAIN, "--epochs=3", "--resume"]) == 0
    assert "resumed after epoch 2" in next((world / "moved").rglob("log.txt")).read_text()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (cli.stable_training, (*TRAIN, "--exp_name=../../outside")),
        (cli.stable_training, (*TRAIN, "--results_dir=../outside")),
        (cli.pretraining, (*PRETRAIN, "--identifier", "../../outside")),
        (cli.pretraining, (*PRETRAIN, "--molecule", "../outside")),
    ],
)
def test_a_run_stays_in_its_folder(error_of, command, arguments):
    assert "folder" in error_of(command, *arguments)


@pytest.mark.parametrize("value", ["num_gaussians=1", "hidden_channels=1000000000", "cutoff_A=-1"])
def test_a_model_that_cannot_be_built(error_of, value):
    message = error_of(cli.pretraining, *PRETRAIN, f"--model.{value}")
    assert "model" in message and "\n" not in message and len(message) < 500


@pytest.fixture
def no_space():
    """Files can grow to 20 kB: no checkpoint fits, all else does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_reported(world, error_of, no_space):
    big = [f"--model.{key}=48" for key in ("hidden_channels", "num_filters")]
    message = error_of(cli.pretraining, *PRETRAIN, *big, changes=True)
    assert "best_checkpoint.pt was not written (File too large)" in message
    assert not list(world.rglob("*checkpoint.pt*.tmp"))


def test_a_disk_that_fills_up_keeps_the_last_state(world, error_of, monkeypatch):
    assert cli.stable_training([*TRAIN, "--epochs=2"]) == 0
    (last,) = (world / "runs").rglob("last.pt")
    before = last.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mdsim.checkpoints.os.fsync", full)
    message = error_of(cli.stable_training, *TRAIN, "--epochs=4", "--resume", changes=True)
    assert "was not written (No space left on device)" in message
    assert last.read_bytes() == before
    monkeypatch.undo()


# -------------------------------------------------------------------------------------------------------- prediction


def _predict(error_of, frames: str, checkpoint=CHECKPOINT, output: str = "out.extxyz") -> str:
    arguments = ["--mode", "predict", "--checkpoint", checkpoint, "--frames", frames, "--output", output, "--cpu"]
    return error_of(cli.pretraining, *arguments)


def test_prediction_without_its_arguments(error_of):
    message = error_of(cli.pretraining, "--mode", "predict", "--frames", "frames.xyz")
    assert message == "--mode predict needs --checkpoint, --output"


def test_frames_that_cannot_be_read(world, error_of):
    assert _predict(error_of, "nowhere.xyz") == "nowhere.xyz: no such file"
    (world / "text.xyz").write_text("no frames at all\n")
    assert "text.xyz: line 1 should be the number of atoms" in _predict(error_of, "text.xyz")


def test_frames_of_other_elements_or_boundaries(world, error_of):
    water = Atoms("OH2", np.eye(3))
    ase.io.write(world / "gold.xyz", [water, Atoms("Au", [[0, 0, 0]])])
    assert "gold.xyz, frame 1: the force field knows the atomic numbers [1, 8]" in _predict(error_of, "gold.xyz")
    ase.io.write(world / "slab.xyz", Atoms("OH2", np.eye(3), cell=[9, 9, 9], pbc=[True, True, False]), format="extxyz")
    assert "slab.xyz, frame 0: the boundaries are mixed" in _predict(error_of, "slab.xyz")


def test_energies_that_the_training_data_do_not_determine(world, error_of):
    ase.io.write(world / "hydrogen.xyz", [Atoms("H", [[0, 0, 0]])])
    message = _predict(error_of, "hydrogen.xyz")
    assert "hydrogen.xyz, frame 0: the total energy of H is not determined" in message
    assert "--energy-zero" in message


def test_predicting_to_nowhere(world, error_of):
    ase.io.write(world / "water.xyz", Atoms("OH2", np.eye(3)))
    assert "no/where.extxyz: No such file" in _predict(error_of, "water.xyz", output="no/where.extxyz")
    assert _predict(error_of, "water.xyz", output=".") == ".: is a folder; name a file to write"


def test_predictions_never_take_the_place_of_a_device_or_pipe(world, error_of):
    ase.io.write(world / "water.xyz", Atoms("OH2", np.eye(3)))
    os.mkfifo(world / "pipe")
    assert _predict(error_of, "water.xyz", output="pipe") == "pipe: is a device or pipe; name a file to write"
    assert (world / "pipe").is_fifo()


def test_errors_of_files_are_one_short_line_with_the_file_first(world, error_of):
    name = "a" * 5000
    message = error_of(cli.pretraining, *PRETRAIN, f"--run_dir={name}", changes=True)
    assert "File name too long" in message and len(message) < 400 and "Errno" not in message


def test_predictions_that_are_no_numbers_are_refused(world, error_of):
    water = Atoms("OH2", np.eye(3))
    far = Atoms("OH2", [[0, 0, 0], [0, 0, float("nan")], [1, 0, 0]])
    ase.io.write(world / "nan.extxyz", [water, far])
    message = _predict(error_of, "nan.extxyz")
    assert "nan.extxyz, frame 1: energies or forces are NaN or infinite" in message
    assert not (world / "out.extxyz").exists()


# -------------------------------------------------------------------------------------------------------- comparison


def test_comparing_what_was_not_evaluated(error_of):
    message = error_of(cli.compare, "runs/none")
    assert "runs/none/inference/pre/final_metrics.json: cannot be read (No such file or directory)" in message
    assert message.endswith("run the evaluation first")


def test_a_configuration_that_is_no_yaml(world, error_of):
    (world / "train.yml").write_text("a: [")
    assert "train.yml: is not valid YAML" in error_of(cli.stable_training, *TRAIN)
    (world / "train.yml").write_text(yaml.safe_dump({"mode": "trian"}))
    assert "expected one of train, simulate" in error_of(cli.stable_training, *TRAIN)
