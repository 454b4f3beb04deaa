"""Damaged states of stopped runs: `--resume` continues or gives one clear error, and changes no file it refuses."""

import shutil
from pathlib import Path

import pytest
import torch
from mutations import LONGEST_MESSAGE, Outcomes, flipped, restructured, tries, undigested
from tiny import write_world

from mdsim.cli import main as cli
from mdsim.errors import ConfigError
from mdsim.evaluation import report

RUNS = {
    "training": (cli.stable_training, "train.yml", "last.pt", ["--epochs=3"], ["--epochs=4"]),
    "evaluation": (
        cli.stable_training,
        "simulate.yml",
        "state.pt",
        ["--epochs=2", "--stability.0.bond_dev_tol_A=9"],
        ["--epochs=3", "--stability.0.bond_dev_tol_A=9"],
    ),
    "pretraining": (cli.pretraining, "pretrain.yml", "last.pt", ["--optim.max_epochs=2"], ["--optim.max_epochs=3"]),
}


@pytest.fixture(params=RUNS)
def stopped(request, tmp_path, monkeypatch):
    """A stopped run: its kind, and its folder of results."""
    world = write_world(tmp_path)
    monkeypatch.chdir(world)
    for name in ("draw", "draw_training"):  # figures take longer than everything else
        monkeypatch.setattr(report, name, lambda *_: [])
    command, config, _, first, _ = RUNS[request.param]
    assert command(["--config-yml", config, *first]) == 0
    return request.param, world / ("fits" if request.param == "pretraining" else "runs")


def test_damaged_states_are_resumed_or_refused(stopped, tmp_path, capsys):
    kind, results = stopped
    command, config, name, _, longer = RUNS[kind]
    kept, outcomes = tmp_path / "kept", Outcomes()
    shutil.copytree(results, kept)
    (state,) = results.rglob(name)
    payload, content = undigested(torch.load(state, weights_only=True)), state.read_bytes()
    section = "evaluation" if kind == "evaluation" else "training"

    def resume() -> None:
        capsys.readouterr()
        code = command(["--config-yml", config, *longer, "--resume"])
        shown = capsys.readouterr().err
        assert "Traceback" not in shown
        if code:
            message = shown[shown.index("error: ") :].rstrip("\n")
            assert code == 1 and "\n" not in message and len(message) < LONGEST_MESSAGE
            raise ConfigError(message)

    for rng in tries(14):
        changed, how = (payload, "flip") if rng.random() < 0.1 else _changed(payload, section, rng)
        if how == "flip":
            state.write_bytes(flipped(content, rng))
        else:
            torch.save(changed, state)
        before = state.read_bytes()
        refused = outcomes.counts["refused"]
        outcomes.of(resume, how)
        assert outcomes.counts["refused"] == refused or state.read_bytes() == before, f"{how}: a refused state changed"
        _restore(kept, results)
    print(kind, outcomes.counts)
    assert outcomes.counts["refused"] > outcomes.counts["accepted"]


def _changed(payload: dict, section: str, rng) -> tuple[dict, str]:
    return restructured(payload, rng, (section,)) if rng.random() < 0.9 else restructured(payload, rng)


def _restore(kept: Path, results: Path) -> None:
    shutil.rmtree(results)
    shutil.copytree(kept, results)
