"""The `mdsim` command: help without delay, the right command for each configuration, completion."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from paths import ROOT

import mdsim
from mdsim.cli import completion
from mdsim.cli import main as cli

WORDS = (*cli.COMMANDS, "data")
SHORT = ("--epochs=2", "--dynamics.fast=false")


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    tiny.write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mdsim_process(*arguments: str) -> subprocess.CompletedProcess:
    """The command in a separate process that prints at the end whether torch was imported."""
    program = f"import sys\nfrom mdsim.cli.main import main\ntry:\n    main({list(arguments)})\nfinally:\n"
    program += "    print('torch' in sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_needs_no_torch(arguments):
    shown = mdsim_process(*arguments).stdout.splitlines()
    assert shown[0].startswith(f"usage: {' '.join(['mdsim', *arguments[:-1]])} ")
    assert shown[-1] == "False"


def test_help_is_immediate():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        mdsim_process("train", "--help")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0  # 0.1 s on an idle machine; importing torch alone takes longer


def test_the_overview_has_one_line_for_each_command(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for name in WORDS:
        assert f"\n    {name}" in shown


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mdsim {mdsim.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_a_missing_command_is_asked_for(arguments, capsys):
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"usage: {' '.join(['mdsim', *arguments])} [-h]")


@pytest.mark.parametrize("arguments", [["fly"], ["data", "fly"], ["train", "fly"], ["predict", "--checkpoint", "x"]])
def test_unknown_words_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_configuration_for_another_command_names_that_command(world, capsys):
    assert cli.main(["train", "--config-yml", "simulate.yml"]) == 1
    assert "found 'simulate'" in (error := capsys.readouterr().err)
    assert error.endswith("run `mdsim simulate --config-yml simulate.yml`\n")
    assert cli.main(["simulate", "--config-yml", "train.yml"]) == 1
    assert capsys.readouterr().err.endswith("run `mdsim train --config-yml train.yml`\n")
    assert not (world / "runs").exists()


def test_from_a_fit_to_a_prediction(world, capsys):
    assert cli.main(["pretrain", "--config-yml", "pretrain.yml", "--debug"]) == 0
    assert cli.main(["pretrain", "--config-yml", "pretrain.yml", "--identifier", "debug", "--mode", "validate"]) == 0
    assert cli.main(["train", "--config-yml", "train.yml", *SHORT]) == 0
    for eval_model in ("pre", "post"):
        assert cli.main(["simulate", "--config-yml", "simulate.yml", "--eval-model", eval_model, *SHORT]) == 0
    assert cli.main(["compare", "runs/stable_training/schnet_water_default"]) == 0
    assert "mean stable time (ps)" in capsys.readouterr().err
    (world / "water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    checkpoint = "runs/stable_training/schnet_water_default/last.pt"
    predicted = ["predict", "--checkpoint", checkpoint, "--frames", "water.xyz", "--output", "out.xyz", "--cpu"]
    assert cli.main(predicted) == 0
    assert "energy=" in (world / "out.xyz").read_text()


def test_earlier_names_still_work_and_say_what_took_their_place(world, capsys):
    assert cli.main(["pretraining", "--config-yml", "pretrain.yml", "--debug"]) == 0
    assert "note: `pretraining` is deprecated; use mdsim pretrain" in capsys.readouterr().err
    assert cli.main(["stable-training", "--config-yml", "train.yml", *SHORT]) == 0
    assert "use mdsim train and mdsim simulate" in capsys.readouterr().err


def test_the_module_is_the_command():
    shown = subprocess.run(
        [sys.executable, "-m", "mdsim.cli", "--version"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert shown.stdout == f"mdsim {mdsim.__version__}\n"


def test_the_whole_tree_has_every_argument_of_every_command():
    commands = cli.make_parser(whole=True)._subparsers._group_actions[0].choices
    for name, command in cli.COMMANDS.items():
        expected = {option for action in command.make_parser()._actions for option in action.option_strings}
        assert expected == {option for action in commands[name]._actions for option in action.option_strings}
    data = commands["data"]._subparsers._group_actions[0].choices
    assert "--gap-frames" in data["convert"]._option_string_actions


def test_completion(capsys):
    pytest.importorskip("shtab")
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for word in (*WORDS, "--config-yml", "--gap-frames", "--resume"):
        assert word in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_completion_without_the_package_that_writes_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert completion.completion(["bash"]) == 1
    assert "pip install 'mdsim[completion]'" in capsys.readouterr().err
