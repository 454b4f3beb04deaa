"""The examples of sweeps: trials of Optuna, and the command line that an agent of Weights & Biases would run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from paths import ROOT
from tiny import write_world

EXAMPLES = ROOT / "docs" / "examples"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "last"), [("1e9", "best: "), ("0", "no trial has a force MAE below 0 meV/Å")])
def test_trials_of_optuna(tmp_path, bound, last):
    pytest.importorskip("optuna")
    world = write_world(tmp_path)
    command = [sys.executable, str(EXAMPLES / "sweep_optuna.py"), "--configs", str(world), "--trials", "2"]
    flags = ["--max-force-mae", bound, "--dynamics.fast=false", "--epochs=3"]
    done = subprocess.run([*command, *flags], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *trials, end = done.stdout.splitlines()
    assert [line.split()[:2] for line in trials] == [["0", "COMPLETE"], ["1", "COMPLETE"]]
    assert end.startswith(last)
    assert len(list((world / "runs").rglob("inference/post/final_metrics.json"))) == 2


def agent_command(sweep: dict, values: dict[str, float]) -> list[str]:
    """The command of a trial, made by the functions that the agent uses."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    made = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    words = utils.create_sweep_command(list(sweep["command"]))
    return [word for part in words for word in (made["args"] if part == "${args}" else [part])]


@pytest.mark.slow
def test_an_agent_of_wandb_can_run_the_sweep(tmp_path):
    sweep = yaml.safe_load((EXAMPLES / "sweep_wandb.yml").read_text(encoding="utf-8"))
    values = {name: (ranges["min"] * ranges["max"]) ** 0.5 for name, ranges in sweep["parameters"].items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    small = {"wandb.mode": "offline", "log_dir": str(tmp_path / "runs"), "epochs": 1, "dynamics.steps_per_epoch": 50}
    command = agent_command(sweep, {**values, **small, "dynamics.fast": False, "dynamics.replicas": 2})
    environment = ENVIRONMENT | {"PATH": path, "WANDB_RUN_ID": "abc123"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").rglob("schnet_aspirin_sweep_abc123")
    config = yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))
    assert config["learning"]["learning_rate"] == pytest.approx(values["learning.learning_rate"])
    assert (folder / "wandb_run_id.txt").read_text() == "abc123\n"
    assert list(Path(folder / "wandb").glob("offline-run-*-abc123/*.wandb"))
