"""A run that is asked to stop ends in order, and ends with the same bits as another one once it is resumed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT
from tiny import same_bits, write_world

from mdsim import checkpoints
from mdsim.cli import main as cli
from mdsim.cli.stable import train_parser
from mdsim.reporting.scalars import read_scalars
from mdsim.reporting.stops import STOPPED

PATIENCE_S = 300
ENDLESS = 1_000_000
MORE = 3  # epochs after the stop
ALWAYS_STABLE = ["--stability.0.bond_dev_tol_A=1000", "--max_temperature_K=1e9"]


@pytest.fixture
def world(tmp_path) -> Path:
    return write_world(tmp_path)


def _stop(command: list[str], saved: Path, number: signal.Signals) -> str:
    """Send a signal to an endless run once it has saved its state; what it said."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "mdsim.cli", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate(timeout=PATIENCE_S)[1]
    finally:
        process.kill()
    assert process.returncode == 75, said  # EX_TEMPFAIL, which scripts rely on
    return said


def _state(path: Path, kind: str) -> dict:
    state = checkpoints.load(path, kind)["evaluation" if kind == "evaluation" else "training"]
    state.get("progress", {}).pop("seconds", None)
    return state


def _says_how_to_continue(said: str, log: Path, number: signal.Signals) -> None:
    line = f"stopped: {number.name} was received; the same command with --resume continues"
    assert said.splitlines()[-1].endswith(line)
    assert log.read_text().splitlines()[-1].endswith(line)
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_stopped_fit(world):
    common = ["pretrain", "--config-yml", str(world / "pretrain.yml"), "--optim.checkpoint_every_epochs=100000"]
    whole, stopped = (world / "fits" / "schnet" / f"toy-water_20_schnet_{name}" for name in ("whole", "stopped"))
    named = [*common, "--identifier", "stopped"]
    best, last = (Path("checkpoints", name) for name in ("best_checkpoint.pt", "last.pt"))
    said = _stop([*named, f"--optim.max_epochs={ENDLESS}"], stopped / best, signal.SIGTERM)
    _says_how_to_continue(said, stopped / "log.txt", signal.SIGTERM)
    assert not (stopped / "metrics.json").exists() and not (stopped / "training.png").exists()
    longer = f"--optim.max_epochs={_state(stopped / last, 'pretraining')['progress']['epoch'] + MORE}"
    assert cli.main([*named, longer, "--resume"]) == 0
    assert cli.main([*common, longer, "--identifier", "whole"]) == 0
    assert same_bits(_state(stopped / last, "pretraining"), _state(whole / last, "pretraining"))
    assert same_bits(checkpoints.read(stopped / best), checkpoints.read(whole / best))
    assert (stopped / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


@pytest.mark.slow
def test_a_stopped_stable_training(world):
    common = ["train", "--config-yml", str(world / "train.yml"), "--reset_probability=0.3"]
    whole, stopped = (world / "runs" / "stable_training" / f"schnet_water_{name}" for name in ("whole", "stopped"))
    named = [*common, "--exp_name=stopped"]
    said = _stop([*named, f"--epochs={ENDLESS}"], stopped / "last.pt", signal.SIGTERM)
    _says_how_to_continue(said, stopped / "log.txt", signal.SIGTERM)
    assert not (stopped / "training.png").exists()
    kind = "stable_training"
    longer = f"--epochs={_state(stopped / 'last.pt', kind)['progress']['epoch'] + MORE}"
    assert cli.main([*named, longer, "--resume"]) == 0
    assert cli.main([*common, longer, "--exp_name=whole"]) == 0
    assert same_bits(_state(stopped / "last.pt", kind), _state(whole / "last.pt", kind))
    names = {path.name for path in whole.glob("*.pt")}
    assert {path.name for path in stopped.glob("*.pt")} == names
    for name in names - {"last.pt"}:
        assert same_bits(checkpoints.read(stopped / name), checkpoints.read(whole / name)), name


@pytest.mark.slow
def test_a_stopped_evaluation(world):
    common = ["simulate", "--config-yml", str(world / "simulate.yml"), *ALWAYS_STABLE]
    whole, stopped = (
        world / "runs" / "stable_training" / f"schnet_water_{name}" / "inference" / "pre"
        for name in ("whole", "stopped")
    )
    named = [*common, "--exp_name=stopped"]
    said = _stop([*named, f"--epochs={ENDLESS}"], stopped / "state.pt", signal.SIGUSR1)
    _says_how_to_continue(said, stopped / "log.txt", signal.SIGUSR1)
    assert not list(stopped.glob("*.json.tmp")) and not (stopped / "final_metrics.json").exists()
    assert not list(stopped.glob("*.png")) and not list(stopped.glob("*.npy")) and not list(stopped.rglob("*.gsd"))
    longer = f"--epochs={_state(stopped / 'state.pt', 'evaluation')['epoch'] + MORE}"
    assert cli.main([*named, longer, "--resume"]) == 0
    assert cli.main([*common, longer, "--exp_name=whole"]) == 0
    assert same_bits(_state(stopped / "state.pt", "evaluation"), _state(whole / "state.pt", "evaluation"))
    results = sorted(path.name for path in whole.iterdir() if path.suffix in (".npy", ".json"))
    assert "final_metrics.json" in results
    for name in results:
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    ("command", "endless", "at_the_end"),
    [
        (["pretrain"], f"--optim.max_epochs={ENDLESS}", "metrics.json"),
        (["train"], f"--epochs={ENDLESS}", "training.png"),
        (["simulate", *ALWAYS_STABLE], f"--epochs={ENDLESS}", "final_metrics.json"),
    ],
)
def test_a_time_limit_stops_every_kind_of_run(world, command, endless, at_the_end, capfd):
    arguments = [*command, "--config-yml", str(world / f"{command[0]}.yml"), endless]
    began = time.monotonic()
    assert cli.main([*arguments, "--time-limit", "00:00:01"]) == STOPPED
    assert time.monotonic() - began < PATIENCE_S
    assert "time limit of 1.0 s" in capfd.readouterr().err.splitlines()[-1]
    assert cli.main([*arguments, "--time_limit=0.001", "--resume"]) == STOPPED
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.endswith("the same command continues")
    assert not list(world.rglob(at_the_end))


def test_a_stop_before_the_first_epoch_loses_nothing(world):
    arguments = ["train", "--config-yml", str(world / "train.yml"), "--epochs=2"]
    assert cli.main([*arguments, "--time-limit=1e-9"]) == STOPPED
    assert cli.main([*arguments, "--resume"]) == 0


def test_an_overwritten_run_continues_without_overwriting(world, capfd):
    arguments = ["train", "--config-yml", str(world / "train.yml"), "--overwrite", "--time-limit=1e-9"]
    assert cli.main(arguments) == STOPPED
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.endswith("the same command with --resume instead of --overwrite continues")


def test_wrong_time_limits_are_refused(world, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "--config-yml", str(world / "train.yml"), "--time-limit", "1:30"])
    assert "must be minutes (90) or HH:MM:SS (01:30:00), found '1:30'" in capsys.readouterr().err
    arguments = ["pretrain", "--config-yml", str(world / "pretrain.yml"), "--mode", "validate", "--time-limit", "5"]
    assert cli.main(arguments) == 1
    assert "--time-limit: a validation cannot be stopped" in capsys.readouterr().err


def test_the_batch_script_of_the_manual_is_a_script_of_ours():
    script = ROOT / "docs" / "examples" / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    (command,) = re.findall(r"^srun mdsim (.*)$", text, re.MULTILINE)
    known, rest = train_parser().parse_known_args(shlex.split(command)[1:])
    assert known.resume and (ROOT / known.config_yml).is_file() and not rest
    assert f"-eq {STOPPED} " in text and re.search(r"--signal=USR1@\d+$", text, re.MULTILINE)


def test_every_resumed_fit_keeps_its_validations(world):
    """TensorBoard shows each validation once, however often the fit was stopped."""
    arguments = ["pretrain", "--config-yml", str(world / "pretrain.yml")]
    for epochs in (1, 2, 4):
        assert cli.main([*arguments, f"--optim.max_epochs={epochs}", "--resume"]) == 0
    (folder,) = (world / "fits" / "schnet").iterdir()
    history = checkpoints.load(folder / "checkpoints" / "last.pt", "pretraining")["training"]["progress"]["history"]
    steps, values = read_scalars(folder)["val/loss"]
    assert steps.tolist() == [0, 4, 8, 12, 16]
    assert values.tolist() == pytest.approx([point["loss"] for point in history], rel=1e-6)
    assert json.loads((folder / "metrics.json").read_text())["train"]["frames"] == 20
