"""Constant pressure from the configuration: evaluations, stopped ones too, and a training on the density."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import write
from paths import ROOT

from mdsim.cli import main as cli
from mdsim.datasets import load_dataset
from mdsim.evaluation.comparison import pooled
from mdsim.evaluation.results import read_results
from mdsim.geometry import volume
from mdsim.reporting.trajectories import read_trajectory, to_ase

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
    assert not {"density_mae", "density_mean_reference_g_per_cm3"} & metrics.keys(), "the data state no pressure"
    assert 0.9 < metrics["density_mean_g_per_cm3"] < 1.3
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


def training(root: Path, *terms: str) -> list[str]:
    chosen = f"--terms=[{', '.join(terms)}, {{name: energies_forces, batch_size: 4}}]"
    return ["--config-yml", str(CONFIGS / "water_spcfw" / "train.yml"), *SHORT, f"--log_dir={root}", chosen]


@pytest.mark.parametrize("of_frames", [True, False])
def test_references_of_one_volume_are_refused(of_frames, tmp_path, capsys):
    """The frames of the data, and a file of them."""
    term = "{name: contrast}"
    if not of_frames:
        data = load_dataset(ROOT / "data" / "bundled", "water_spcfw", "water", "20")
        frames = data.train.as_trajectory(1.0)
        write(tmp_path / "still.extxyz", to_ase(data.system(), frames, 0))
        term = f"{{name: contrast, reference_file: {tmp_path / 'still.extxyz'}}}"
    assert cli.stable_training(training(tmp_path, term)) == 1
    said = capsys.readouterr().err
    assert "terms.contrast" in said and "have one volume" in said and "reference_file" in said


@pytest.mark.slow
def test_a_training_on_structures_in_their_own_cells(folder, tmp_path):
    """One gradient of the relative entropy, whose reference is a trajectory file of an evaluation."""
    (path,) = sorted(run_dir(folder).glob("**/replica0*.gsd"))[:1]
    learning = [
        "--epochs=2",
        "--learning.reruns=2",
        "--stability=[{name: bond_length_deviation, bond_dev_tol_A: 1.0e-3}]",  # every replica breaks
        "--estimator.minibatch_size=4",
    ]
    assert cli.stable_training([*training(tmp_path, f"{{name: contrast, reference_file: {path}}}"), *learning]) == 0
    assert "contrast" in next(tmp_path.glob("**/log.txt")).read_text()


@pytest.mark.slow
def test_state_points_have_their_pressures(tmp_path, capsys):
    """Pressure and bulk modulus of each, and the comparison of two evaluations."""
    points = "--state_points=[{temperature_K: 300, pressure_bar: 5000}, {temperature_K: 300, pressure_bar: 20000}]"
    command = [*EVALUATION, f"--log_dir={tmp_path}", points, "--dynamics.replicas=4", "--epochs=4"]
    metrics = "--observables=[{name: pressure, reference_bar: 5000}, {name: bulk_modulus}]"
    assert cli.stable_training([*command, metrics]) == 0
    written = run_dir(tmp_path)
    summary = json.loads((written / "final_metrics.json").read_text())
    assert list(summary["state_points"]) == ["300K_5000bar", "300K_20000bar"]
    first, second = summary["state_points"].values()
    assert [one["barostat"]["pressure_bar"] for one in (first, second)] == [5000.0, 20000.0]
    assert second["density_mean_g_per_cm3"] > first["density_mean_g_per_cm3"]
    for one in (first, second):
        assert one["pressure_mean_bar_low"] < one["pressure_mean_bar"] < one["pressure_mean_bar_high"]
        assert one["pressure_mean_reference_bar"] == 5000.0
        assert one["pressure_mae"] == pytest.approx(abs(one["pressure_mean_bar"] - 5000.0))
        assert one["bulk_modulus_GPa"] > 0
        assert "bulk_modulus_mae" not in one
    said = capsys.readouterr()
    table = (said.out + said.err).split("final_metrics.json")[-1]
    assert "bulk modulus (GPa)" in table and "cell_rescaling" in table and "5000 bar" not in table.splitlines()[1]
    again = [*command, metrics, "--resume"]
    assert cli.stable_training(again) == 0
    found = read_results(written / "300K_20000bar")
    assert not found.measure_of("bulk_modulus").has_reference
    np.testing.assert_allclose(pooled(found)["bulk_modulus_GPa"], second["bulk_modulus_GPa"], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "--state_points=[{temperature_K: 300, pressure_bar: 1}]",
            "(300 K and 5000 bar) must be one of them",
        ),
        (
            "--state_points=[{temperature_K: 300}, {temperature_K: 300, pressure_bar: 5000.1}]",
            "300 K and 5000 bar and 300 K and 5000.1 bar are the same state point",
        ),
        (
            "--dynamics.barostat=null --state_points=[{temperature_K: 300, pressure_bar: 1}]",
            "needs a dynamics.barostat",
        ),
        (
            "--dynamics.barostat=null --observables=[{name: bulk_modulus}]",
            "bulk_modulus needs a volume that fluctuates",
        ),
    ],
)
def test_conditions_that_are_refused(change, message, tmp_path, capsys):
    changes = ["--" + one for one in change.removeprefix("--").split(" --")]
    assert cli.stable_training([*EVALUATION, f"--log_dir={tmp_path}", *changes]) == 1
    assert message in capsys.readouterr().err
