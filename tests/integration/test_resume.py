"""Killed and resumed runs, which end with the same bits as uninterrupted ones."""

import os
import random
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

PATIENCE_S = 300


@pytest.fixture
def world(tmp_path) -> Path:
    return write_world(tmp_path)


def _kill_after(arguments: list[str], first_file: Path, delay_s: float) -> None:
    """Run a script until the file is there and some time longer, then kill it where it stands."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not first_file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay_s)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "it was to be killed while it ran"


def _delay_s() -> float:
    return random.uniform(0.0, 0.3)  # any moment must do: the seed is not fixed


def _training_state(path: Path, kind: str) -> dict:
    state = checkpoints.load(path, kind)["evaluation" if kind == "evaluation" else "training"]
    state.get("progress", {}).pop("seconds", None)
    return state


@pytest.mark.slow
def test_killed_pretraining(world):
    common = ["--config-yml", str(world / "pretrain.yml"), "--optim.max_epochs=40", "--optim.warmup_steps=50"]
    assert cli.pretraining([*common, "--identifier", "whole"]) == 0
    whole, killed = (world / "fits" / "schnet" / f"toy-water_20_schnet_{name}" for name in ("whole", "killed"))
    identified = [*common, "--identifier", "killed"]
    last = Path("checkpoints", "last.pt")
    _kill_after([str(ROOT / "pretraining.py"), *identified], killed / last, _delay_s())
    assert cli.pretraining([*identified, "--resume"]) == 0
    assert same_bits(_training_state(killed / last, "pretraining"), _training_state(whole / last, "pretraining"))
    best = Path("checkpoints", "best_checkpoint.pt")
    assert same_bits(checkpoints.read(killed / best), checkpoints.read(whole / best))
    assert (killed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert "resumed after epoch" in (killed / "log.txt").read_text()


def test_killed_stable_training(world):
    common = [
        "--config-yml",
        str(world / "train.yml"),
        "--epochs=25",
        "--reset_probability=0.3",
        "--learning.replay_reruns=2",
    ]
    assert cli.stable_training([*common, "--exp_name=whole"]) == 0
    whole, killed = (world / "runs" / "stable_training" / f"schnet_water_{name}" for name in ("whole", "killed"))
    named = [*common, "--exp_name=killed"]
    _kill_after([str(ROOT / "stable_training.py"), *named], killed / "last.pt", _delay_s())
    assert cli.stable_training([*named, "--resume"]) == 0
    kind = "stable_training"
    assert same_bits(_training_state(killed / "last.pt", kind), _training_state(whole / "last.pt", kind))
    names = {path.name for path in whole.glob("*.pt")}
    assert {path.name for path in killed.glob("*.pt")} == names
    assert any(name.startswith("cycle1_epoch") for name in names)
    for name in names - {"last.pt"}:
        assert same_bits(checkpoints.read(killed / name), checkpoints.read(whole / name)), name


@pytest.mark.slow
def test_killed_evaluation(world):
    endless = ["--stability.0.bond_dev_tol_A=1000", "--max_temperature_K=1e9", "--save_trajectories=[]"]
    common = ["--config-yml", str(world / "simulate.yml"), "--epochs=40", *endless]
    assert cli.stable_training([*common, "--exp_name=whole"]) == 0
    whole, killed = (
        world / "runs" / "stable_training" / f"schnet_water_{name}" / "inference" / "pre"
        for name in ("whole", "killed")
    )
    named = [*common, "--exp_name=killed"]
    _kill_after([str(ROOT / "stable_training.py"), *named], killed / "state.pt", _delay_s())
    assert cli.stable_training([*named, "--resume"]) == 0
    assert same_bits(
        _training_state(killed / "state.pt", "evaluation"), _training_state(whole / "state.pt", "evaluation")
    )
    results = sorted(path.name for path in whole.iterdir() if path.suffix in (".npy", ".json"))
    assert "final_metrics.json" in results
    for name in results:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_killed_before_its_first_checkpoint_begins_anew(world):
    run = world / "runs" / "stable_training" / "schnet_water_default"
    arguments = ["--config-yml", str(world / "train.yml"), "--epochs=2"]
    assert cli.stable_training(arguments) == 0
    (run / "last.pt").rename(run / "kept.pt")
    assert cli.stable_training([*arguments, "--resume"]) == 0
    kept, again = (_training_state(run / name, "stable_training") for name in ("kept.pt", "last.pt"))
    assert same_bits(kept, again)


def test_resuming_a_finished_run_changes_no_result(world):
    arguments = ["--config-yml", str(world / "simulate.yml")]
    assert cli.stable_training(arguments) == 0
    (folder,) = (world / "runs").rglob("inference/pre")
    results = {path: path.read_bytes() for path in folder.iterdir() if path.suffix in (".npy", ".json", ".pt")}
    assert cli.stable_training([*arguments, "--resume"]) == 0
    assert {path: path.read_bytes() for path in results} == results


@pytest.mark.slow
def test_a_longer_horizon_may_be_asked_for(world):
    arguments = ["--config-yml", str(world / "train.yml")]
    assert cli.stable_training([*arguments, "--epochs=2"]) == 0
    assert cli.stable_training([*arguments, "--epochs=4", "--resume"]) == 0
    assert cli.stable_training([*arguments, "--epochs=4", "--exp_name=whole"]) == 0
    last = [world / "runs" / "stable_training" / f"schnet_water_{name}" / "last.pt" for name in ("default", "whole")]
    assert same_bits(*(_training_state(path, "stable_training") for path in last))
