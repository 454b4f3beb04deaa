"""Runs of several processes, started by torchrun as a user does: the results of one process, and lost processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from paths import ROOT
from tiny import same_bits, write_world

from mdsim import checkpoints
from mdsim.cli import main as cli
from mdsim.evaluation.results import read_results

PATIENCE_S = 300
CHECKS = ROOT / "tests" / "support" / "collective_checks.py"


def torchrun(n_ranks: int, *arguments: object, restarts: int = 0) -> subprocess.Popen:
    options = ["--standalone", f"--nproc_per_node={n_ranks}", f"--max_restarts={restarts}", "--monitor_interval=0.1"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen, status: int = 0) -> str:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, said
    return said


@pytest.fixture
def world(tmp_path) -> Path:
    return write_world(tmp_path)


def training(world: Path, name: str, *changes: str) -> list[str]:
    return [
        *("--config-yml", str(world / "train.yml"), "--cpu", f"--exp_name={name}", "--dynamics.replicas=5"),
        *("--reset_probability=0.3", "--restart_probability=0.5", *changes),
    ]


def run_folder(world: Path, name: str) -> Path:
    return world / "runs" / "stable_training" / f"schnet_water_{name}"


def state_of(world: Path, name: str) -> dict:
    return checkpoints.load(run_folder(world, name) / "last.pt", "stable_training")["training"]


def assert_equal_within_rounding(first: dict, second: dict) -> None:
    assert first["progress"] == second["progress"]
    for name, parameter in first["model"].items():
        torch.testing.assert_close(second["model"][name], parameter, rtol=2e-4, atol=2e-6, msg=name)
    assert torch.equal(first["replicas"]["parked"], second["replicas"]["parked"])
    assert torch.equal(first["generator"], second["generator"])


@pytest.mark.slow
def test_collective_operations(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state").write_text("before")
    said = ended(torchrun(3, CHECKS, tmp_path))
    assert said.count("is content") == 3
    assert (tmp_path / "run" / "state").read_text() == "of rank 0"


def test_two_ranks_train_as_one(world):
    """Also where replicas cannot be divided evenly."""
    said = ended(torchrun(2, ROOT / "stable_training.py", *training(world, "two", "--epochs=6")))
    assert said.count("epoch   6") == 1, "one rank speaks"
    assert cli.stable_training(training(world, "one", "--epochs=6")) == 0
    assert state_of(world, "one")["progress"]["cycle_epoch"] or state_of(world, "one")["progress"]["cycle"] > 1
    assert_equal_within_rounding(state_of(world, "one"), state_of(world, "two"))
    names = {path.name for path in run_folder(world, "one").iterdir() if ".tfevents" not in path.name}
    assert {path.name for path in run_folder(world, "two").iterdir() if ".tfevents" not in path.name} == names


@pytest.mark.slow
def test_two_ranks_train_at_several_state_points_as_one(world):
    several = ["--state_points=[{temperature_K: 300}, {temperature_K: 150}, {temperature_K: 900}]"]
    several += ["--reweight_reference=true", "--dynamics.replicas=9", "--epochs=6"]
    ended(torchrun(2, ROOT / "stable_training.py", *training(world, "two", *several)))
    assert cli.stable_training(training(world, "one", *several)) == 0
    assert_equal_within_rounding(state_of(world, "one"), state_of(world, "two"))
    kT = [state_of(world, name)["replicas"]["state"]["kT"] for name in ("one", "two")]
    assert torch.equal(*kT) and len(kT[0].unique()) == 3


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(world):
    ended(torchrun(2, ROOT / "stable_training.py", *training(world, "two", "--epochs=6")))
    assert cli.stable_training(training(world, "one", "--epochs=6")) == 0
    assert cli.stable_training([*training(world, "two", "--epochs=8"), "--resume"]) == 0
    assert cli.stable_training([*training(world, "one", "--epochs=8"), "--resume"]) == 0
    assert_equal_within_rounding(state_of(world, "one"), state_of(world, "two"))


@pytest.mark.slow
def test_an_error_is_said_once(world):
    said = ended(torchrun(2, ROOT / "stable_training.py", *training(world, "wrong", "--model_dir=nowhere")), 1)
    assert len([line for line in said.splitlines() if line.startswith("error:")]) == 1
    said = ended(torchrun(2, ROOT / "pretraining.py", "--config-yml", world / "pretrain.yml", "--cpu"), 1)
    assert said.count("a fit runs in one process") == 1


@pytest.mark.slow
def test_three_ranks_give_the_same_bits_again(world):
    for name in ("first", "second"):
        ended(torchrun(3, ROOT / "stable_training.py", *training(world, name, "--epochs=8")))
    assert same_bits(state_of(world, "first"), state_of(world, "second"))


@pytest.mark.slow
def test_two_ranks_evaluate_as_one(world):
    common = ["--config-yml", str(world / "simulate.yml"), "--cpu", "--eval_model=pre", "--dynamics.replicas=5"]
    ended(torchrun(2, ROOT / "stable_training.py", *common, "--exp_name=two"))
    assert cli.stable_training([*common, "--exp_name=one"]) == 0
    one, two = (read_results(run_folder(world, name) / "inference" / "pre") for name in ("one", "two"))
    assert same_bits(one.summaries, two.summaries)


@pytest.mark.slow
def test_two_ranks_evaluate_at_constant_pressure_as_one(tmp_path):
    """Where replicas cannot be divided evenly: the cells, and what is measured of them."""
    settings = [
        *("--config-yml", ROOT / "configs" / "stable_training" / "water_spcfw" / "simulate.yml", "--eval_model=pre"),
        *("--cpu", f"--data.path={ROOT / 'data' / 'bundled'}", f"--model_dir={ROOT / 'qm_pretrained_checkpoints'}"),
        *("--dynamics.replicas=3", "--dynamics.steps_per_epoch=8", "--dynamics.dump_every_steps=4", "--epochs=2"),
        "--dynamics.barostat={name: cell_rescaling, pressure_bar: 5000, relaxation_time_ps: 0.05}",
        "--observables=[{name: pressure}, {name: bulk_modulus}]",
        *("--dense_window=null", "--departures=null", "--dynamical_observables=[]", "--save_trajectories=[0]"),
    ]
    common = [*map(str, settings), f"--log_dir={tmp_path}"]
    ended(torchrun(2, ROOT / "stable_training.py", *common, "--exp_name=two"))
    assert cli.stable_training([*common, "--exp_name=one"]) == 0
    found = {}
    for name in ("one", "two"):
        (path,) = tmp_path.glob(f"**/schnet_water_{name}/inference/pre/state.pt")
        found[name] = checkpoints.load(path, "evaluation")["evaluation"]
    for key, value in found["one"]["state"].items():
        torch.testing.assert_close(found["two"]["state"][key], value, rtol=1e-4, atol=1e-4, msg=key)
    assert len(found["one"]["state"]["cell"].flatten(1).unique(dim=0)) == 3
    for name, sums in found["one"]["sums"].items():
        torch.testing.assert_close(found["two"]["sums"][name], sums, rtol=1e-3, atol=1.0, msg=name)


@pytest.mark.slow
def test_a_lost_rank_is_replaced_and_the_run_goes_on(world):
    name, n_epochs = "lost", 60
    process = torchrun(2, ROOT / "stable_training.py", *training(world, name, f"--epochs={n_epochs}"), restarts=1)
    deadline = time.monotonic() + PATIENCE_S
    while not (run_folder(world, name) / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    said = ended(process)
    assert "resumed after epoch" in (run_folder(world, name) / "log.txt").read_text()
    assert f"epoch  {n_epochs}" in said
    ended(torchrun(2, ROOT / "stable_training.py", *training(world, "whole", f"--epochs={n_epochs}")))
    assert same_bits(state_of(world, name), state_of(world, "whole"))
