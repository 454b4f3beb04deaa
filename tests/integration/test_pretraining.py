"""`pretraining.py` as a user runs it."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from paths import ROOT
from tiny import frames, write_world

from mdsim import checkpoints
from mdsim.calculator import ForceFieldCalculator
from mdsim.cli import main as cli
from mdsim.datasets.folder import load_dataset
from mdsim.evaluation.errors import errors_on
from mdsim.models.loading import load_force_field
from mdsim.state import System


@pytest.fixture
def world(tmp_path) -> Path:
    return write_world(tmp_path)


def _train(world: Path, *arguments: str) -> Path:
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), *arguments]) == 0
    (folder,) = (world / "fits" / "schnet").iterdir()
    return folder


def test_a_fit_leaves_everything_in_its_folder(world, capsys):
    folder = _train(
        world, "--mode", "train", "--size", "10", "--identifier", "1e3", "--seed", "4", "--print-every", "1"
    )
    assert folder.name == "toy-water_10_schnet_1e3"
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best_checkpoint.pt", "last.pt"}
    assert list(folder.glob("events.out.tfevents.*"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["train"]["frames"] == metrics["n_train"] == 10
    assert metrics["test"]["frames"] == 12
    assert metrics["test"]["force_mae_meV_per_A"] > 0
    log = (folder / "log.txt").read_text()
    assert "epoch 3 step 6: loss" in log
    assert "force_mae_meV_per_A" in log
    assert "force_mae_meV_per_A" in capsys.readouterr().err
    saved = yaml.safe_load((folder / "config.yml").read_text())
    assert (saved["data"]["size"], saved["identifier"], saved["seed"], saved["print_every"]) == ("10", "1e3", 4, 1)
    provenance = checkpoints.load(folder / "checkpoints" / "best_checkpoint.pt")["provenance"]
    assert provenance["data"] == "toy/water/10"
    assert load_force_field(folder / "checkpoints" / "best_checkpoint.pt").species.tolist() == [1, 8]


def test_the_errors_are_of_evenly_spaced_frames_up_to_a_limit(world):
    folder = _train(world, "--optim.max_test_frames=6")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["test"]["frames"], metrics["test"]["of_frames"]) == (6, 12)
    data = load_dataset(str(world / "data"), "toy", "water", "20")
    model = load_force_field(folder / "checkpoints" / "best_checkpoint.pt")
    chosen = data.test[torch.tensor([0, 2, 4, 7, 9, 11])]  # multiples of 2.2
    assert metrics["test"] == {"frames": 6, "of_frames": 12, **errors_on(model, data.system(), chosen, 100)}
    assert f"of 6 of {len(data.train)} train, 6 of 12 test frames, evenly spaced" in (folder / "log.txt").read_text()
    assert metrics["val"]["frames"] == len(data.val) == 6 and "of_frames" not in metrics["val"]


def test_the_saved_configuration_repeats_the_fit(world, tmp_path):
    folder = _train(world)
    again = ["--config-yml", str(folder / "config.yml"), "--identifier", "again"]
    assert cli.pretraining(again) == 0
    other = folder.with_name(folder.name + "_again")
    assert (other / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()


def test_another_seed_is_another_fit(world):
    folder = _train(world)
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), "--seed=9", "--identifier=b"]) == 0
    first, second = (
        load_force_field(path / "checkpoints" / "best_checkpoint.pt").lin1.weight
        for path in (folder, folder.with_name(folder.name + "_b"))
    )
    assert not torch.equal(first, second)


def test_validation_repeats_the_errors_and_changes_nothing(world, capsys):
    folder = _train(world)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    errors = json.loads((folder / "metrics.json").read_text())["test"]
    capsys.readouterr()
    assert cli.pretraining(["--mode", "validate", "--config-yml", str(world / "pretrain.yml")]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("test")]
    assert float(line.split()[-2]) == pytest.approx(errors["force_mae_meV_per_A"], rel=1e-3)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_validating_another_checkpoint(world, capsys):
    checkpoint = world / "models" / "schnet" / "toy-water_20_schnet" / "checkpoints" / "best_checkpoint.pt"
    arguments = ["--mode", "validate", "--config-yml", str(world / "pretrain.yml"), "--checkpoint", str(checkpoint)]
    assert cli.pretraining(arguments) == 0
    assert str(checkpoint) in capsys.readouterr().err


def test_prediction(world, tmp_path):
    folder = _train(world)
    checkpoint = folder / "checkpoints" / "best_checkpoint.pt"
    images = [Atoms([8, 1, 1], positions.numpy()) for positions in frames(4).positions]
    ase.io.write(tmp_path / "frames.xyz", images)
    output = tmp_path / "predicted.extxyz"
    arguments = ["--mode", "predict", "--checkpoint", str(checkpoint), "--frames", str(tmp_path / "frames.xyz")]
    assert cli.pretraining([*arguments, "--output", str(output), "--cpu"]) == 0
    calculator = ForceFieldCalculator(checkpoint)
    predicted = ase.io.read(output, index=":")
    assert len(predicted) == 4
    for atoms, found in zip(images, predicted, strict=True):
        atoms.calc = calculator
        assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(found.get_forces(), atoms.get_forces(), atol=1e-5)
        assert found.arrays["atomic_energies"].sum() == pytest.approx(found.get_potential_energy(), abs=1e-4)


def test_prediction_of_other_compositions(world, tmp_path):
    checkpoint = _train(world) / "checkpoints" / "best_checkpoint.pt"
    water = Atoms([8, 1, 1], frames(1).positions[0].numpy())
    other = water.copy()
    other.positions += 60.0
    hydroxide = water[:2]
    arguments = [
        "--mode",
        "predict",
        "--checkpoint",
        str(checkpoint),
        "--output",
        str(tmp_path / "out.extxyz"),
        "--cpu",
    ]

    def predicted(images: list[Atoms], *further: str) -> list[Atoms]:
        ase.io.write(tmp_path / "frames.xyz", images)
        assert cli.pretraining([*arguments, "--frames", str(tmp_path / "frames.xyz"), *further]) == 0
        return ase.io.read(tmp_path / "out.extxyz", index=":")

    one, two = (atoms.get_potential_energy() for atoms in predicted([water, water + other]))
    assert two == pytest.approx(2 * one, abs=1e-5)
    (relative,) = predicted([hydroxide], "--energy-zero", "relative")
    (estimated,) = predicted([hydroxide], "--energy-zero=estimated")
    assert relative.info["energy_zero"] == "relative"
    zero = load_force_field(checkpoint).zero_energy_eV(System.from_geometry(water.numbers, water.positions)).item()
    difference = estimated.get_potential_energy() - relative.get_potential_energy()
    assert difference == pytest.approx(zero * 2 / 3, abs=1e-5)


def test_prediction_with_a_published_checkpoint(reference_path, tmp_path):
    golden = np.load(reference_path / "upstream_weights" / "golden_schnet_aspirin.npz")
    ase.io.write(tmp_path / "frames.xyz", [Atoms(golden["z"], positions) for positions in golden["positions"]])
    checkpoint = reference_path / "upstream_weights" / "schnet_aspirin_pre" / "best_checkpoint.pt"
    arguments = ["--mode", "predict", "--checkpoint", str(checkpoint), "--frames", str(tmp_path / "frames.xyz")]
    assert cli.pretraining([*arguments, "--output", str(tmp_path / "out.extxyz"), "--cpu"]) == 0
    predicted = ase.io.read(tmp_path / "out.extxyz", index=":")
    energies = [atoms.get_potential_energy() for atoms in predicted]
    np.testing.assert_allclose(energies, golden["qm_energy_model_f64"] + golden["target_mean_eV"], atol=1e-3)
    np.testing.assert_allclose([atoms.get_forces() for atoms in predicted], golden["qm_forces_f64"], atol=1e-3)


def test_debugging_runs_everything_again_and_again(world):
    for _ in range(2):
        folder = _train(world, "--debug")
    assert folder.name == "toy-water_20_schnet_debug"
    assert (folder / "metrics.json").exists()


def test_mixed_precision(world):
    folder = _train(world, "--amp")
    assert json.loads((folder / "metrics.json").read_text())["test"]["force_mae_meV_per_A"] > 0


def test_overwriting_starts_anew(world):
    folder = _train(world, "--optim.max_epochs=1")
    _train(world, "--overwrite", "--optim.max_epochs=2")
    assert "stopped after 2 epochs" in (folder / "log.txt").read_text()
    assert "stopped after 1 epochs" not in (folder / "log.txt").read_text()


def test_a_finished_fit_can_be_prolonged(world):
    _train(world, "--optim.max_epochs=2")
    folder = _train(world, "--resume", "--optim.max_epochs=3")
    log = (folder / "log.txt").read_text()
    assert "resumed after epoch 2" in log
    assert "stopped after 3 epochs" in log


def test_the_bundled_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    small = ["--model.hidden_channels=8", "--model.num_filters=8", "--model.num_interactions=1"]
    config = "configs/pretraining/aspirin_gfn2/schnet.yml"
    arguments = ["--config-yml", config, "--debug", "--cpu", "--run-dir", str(tmp_path), "--optim.eval_batch_size=500"]
    assert cli.pretraining([*arguments, *small]) == 0
    assert (tmp_path / "schnet" / "aspirin_gfn2-aspirin_40_schnet_debug" / "metrics.json").exists()
