"""`mdsim init`, and runs of the configurations that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from mdsim.cli import main as cli

SMALL = ("--model.hidden_channels=8", "--model.num_filters=8", "--model.num_interactions=1")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A data set in the folder where the user is."""
    tiny.write_data(tmp_path / "DATAPATH", ("20",))
    monkeypatch.chdir(tmp_path)
    return Path("DATAPATH/toy/water/20")


@pytest.mark.slow
def test_from_frames_to_a_comparison(folder, capsys):
    assert cli.main(["init", "--data", str(folder), "--model", "schnet", "--cpu"]) == 0
    printed = capsys.readouterr().out
    configs = Path("configs/toy/water_20_schnet")
    assert f"mdsim pretrain --config-yml {configs}/pretrain.yml" in printed
    assert "mdsim compare runs/toy/schnet_water_20" in printed
    assert cli.main(["pretrain", "--config-yml", f"{configs}/pretrain.yml", "--optim.max_epochs=2", *SMALL]) == 0
    tiny_run = ["--debug", "--dynamics.fast=false", "--epochs=2"]
    assert cli.main(["train", "--config-yml", f"{configs}/train.yml", *tiny_run]) == 0
    for eval_model in ("pre", "post"):
        simulate = ["simulate", "--config-yml", f"{configs}/simulate.yml", "--eval_model", eval_model]
        assert cli.main([*simulate, *tiny_run, "--dense_window.epochs=2"]) == 0
    assert cli.main(["compare", "runs/toy/schnet_water_debug"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing"], "nothing: no such folder"),
        (["--data", "DATAPATH"], "name one of DATAPATH/toy/water/20"),
        (["--data", "DATAPATH/toy/water/20/train.npz"], "is a file"),
        (["--data", "DATAPATH/toy/water/20", "--out", "DATAPATH/toy/water/20/val.npz"], "choose another --out"),
    ],
)
def test_wrong_input_is_one_line(folder, capsys, arguments, message):
    assert cli.main(["init", *arguments, "--model", "schnet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "painn"], "invalid choice"),
        (["--model", "schnet", "--temperature-K", "-5"], "must be positive"),
        (["--model", "schnet", "--temperature-K", "warm"], "temperature-K"),
    ],
)
def test_wrong_words_are_refused(folder, capsys, arguments, message):
    with pytest.raises(SystemExit):
        cli.main(["init", "--data", str(folder), *arguments])
    assert message in capsys.readouterr().err
