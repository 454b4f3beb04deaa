"""The StABlE-trained checkpoints of the repository load, have cards, and are evaluated right after cloning."""

import json

import pytest
from paths import ROOT

from mdsim.assembly import dataset
from mdsim.cli.main import main
from mdsim.config.loading import load_config
from mdsim.config.schema import SimulateConfig
from mdsim.evaluation.errors import errors_on
from mdsim.models import load_force_field

SHIPPED = ROOT / "stable_checkpoints"
RUNS = sorted(path.parent.relative_to(SHIPPED).as_posix() for path in SHIPPED.glob("*/*/README.md"))
TINY = ["--debug", "--exp_name=default", "--cpu", "--dynamics.fast=false", "--dynamics.replicas=2"]


def test_there_are_some():
    assert len(RUNS) >= 2


@pytest.mark.parametrize("run", RUNS)
def test_weights_and_card_belong_together(run, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder, system = SHIPPED / run, run.split("/")[0]
    (file,) = folder.glob("*.pt")
    config = load_config(f"configs/stable_training/{system}/simulate.yml", SimulateConfig)
    data = dataset(config.data)
    errors = errors_on(load_force_field(file), data.system(), data.test[:4], 4)
    stated = json.loads((folder / "metrics.json").read_text())["force_mae_meV_per_A"]
    assert errors["force_mae_meV_per_A"] == pytest.approx(stated, rel=0.3), "a few frames of the test set"
    assert f"{stated:.3g}" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_post_runs_without_a_training(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(ROOT)
    config = "configs/stable_training/aspirin_gfn2/simulate.yml"
    assert main(["simulate", "--config-yml", config, "--eval_model", "post", f"--log_dir={tmp_path}", *TINY]) == 0
    results = tmp_path / "aspirin_gfn2" / "schnet_aspirin_default" / "inference" / "post"
    assert "stable_checkpoints" in json.loads((results / "final_metrics.json").read_text())["checkpoint"]
