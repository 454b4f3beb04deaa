"""Constant pressure from the configuration: evaluations, stopped ones too, and a training on the density."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT

from mdsim.cli import main as cli
from mdsim.geometry import volume
from mdsim.reporting.trajectories import read_trajectory

CONFIGS = ROOT / "configs" / "stable_training"
SHORT = [
    f"--data.path={ROOT / 'data' / 'bundled'}",
    f"--model_dir={ROOT / 'qm_pretrained_checkpoints'}",
    "--cpu",
    "--dynamics.replicas=2",
    "--dynamics.steps_per_epoch=16",
    "--dynamics.dump_every_steps=8",
    "--dynamics.barostat={name: cell_rescaling, pressure_bar: 5000, relaxation_time_ps: 0.05}",
]
EVALUATION = [
    "--config-yml",
    str(CONFIGS / "water_spcfw" / "simulate.yml"),
    "--eval_model=pre",
    *SHORT,
    "--dense_window=null",
    "--departures=null",
    "--dynamical_observables=[]",
    "--save_trajectories=[0]",
]


def run_dir(root: Path) -> Path:
    return root / "water_spcfw" / "schnet_water_default" / "inference" / "pre"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("constant_pressure")
    assert cli.stable_training([*EVALUATION, f"--log_dir={root}", "--epochs=3"]) == 0
    return root


def test_results_state_the_ensemble_and_the_density(folder):
    metrics = json.loads((run_dir(folder) / "final_metrics.json").read_text())
    assert metrics["barostat"]["name"] == "cell_rescaling"
    assert metrics["barostat"]["pressure_bar"] == 5000.0
    assert metrics["density_mean_reference_g_per_cm3"] == pytest.approx(0.9965, abs=0.005)
    assert 0.9 < metrics["density_mean_g_per_cm3"] < 1.3
    assert metrics["density_mean_g_per_cm3"] != metrics["density_mean_reference_g_per_cm3"]
    assert metrics["rdf_OO_mae"] > 0


def test_trajectories_have_the_moving_cells(folder):
    (path,) = sorted(run_dir(folder).glob("**/replica0*.gsd"))[:1]
    stored = read_trajectory(path)
    cells = torch.from_numpy(stored.cell)
    torch.testing.assert_close(stored.trajectory.cell[:, 0], cells)
    assert len(cells) == 6
    assert volume(cells).std() > 1e-3
    edges = torch.diagonal(cells, dim1=-2, dim2=-1)
    torch.testing.assert_close(edges, edges[:, :1].expand_as(edges))  # isotropic


@pytest.mark.slow
def test_a_stopped_evaluation_goes_on_exactly(folder, tmp_path):
    assert cli.stable_training([*EVALUATION, f"--log_dir={tmp_path}", "--epochs=1"]) == 0
    assert cli.stable_training([*EVALUATION, f"--log_dir={tmp_path}", "--epochs=3", "--resume"]) == 0
    for name in ("density", "rdf_OO"):
        whole, resumed = (np.load(run_dir(root) / f"{name}.npy") for root in (folder, tmp_path))
        np.testing.assert_array_equal(whole, resumed)


@pytest.mark.slow
def test_a_training_on_the_density(tmp_path):
    """One gradient through the density, and its loss in the log."""
    targets = "[{name: observables, targets: [{observable: {name: density, reference_g_per_cm3: 0.9}}]}, "
    terms = "--terms=" + targets + "{name: energies_forces, batch_size: 4}]"
    settings = ["--config-yml", str(CONFIGS / "water_spcfw" / "train.yml"), *SHORT, f"--log_dir={tmp_path}", terms]
    learning = [
        "--epochs=2",
        "--learning.reruns=2",
        "--stability=[{name: bond_length_deviation, bond_dev_tol_A: 1.0e-3}]",  # every replica breaks
        "--estimator.minibatch_size=4",
        "--estimator.local=null",
    ]
    assert cli.stable_training([*settings, *learning]) == 0
    log = next(tmp_path.glob("**/log.txt")).read_text()
    assert "learn" in log


def test_what_cannot_be_done_is_said(tmp_path, capsys):
    contrast = "--terms=[{name: contrast}, {name: energies_forces}]"
    settings = ["--config-yml", str(CONFIGS / "water_spcfw" / "train.yml"), *SHORT, f"--log_dir={tmp_path}", contrast]
    assert cli.stable_training(settings) == 1
    assert "terms.contrast" in capsys.readouterr().err
