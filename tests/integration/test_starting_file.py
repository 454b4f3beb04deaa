"""Fits, runs, `init` and `predict` that start from a file: a checkpoint of mdsim, or one of another package."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import foreign
import pytest
import tiny
import torch
import yaml
from ase import Atoms

from mdsim import checkpoints
from mdsim.cli import main as cli
from mdsim.models import load_force_field
from mdsim.models.saving import save_force_field
from mdsim.state import System

needs_metatomic = pytest.mark.skipif("metatomic" not in foreign.INSTALLED, reason="metatomic-torch is not installed")
needs_nequip = pytest.mark.skipif("nequip_package" not in foreign.INSTALLED, reason="nequip is not installed")


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny.write_world(tmp_path)


@pytest.fixture
def mine(world) -> Path:
    """A checkpoint somewhere, whose energies are 7 eV off."""
    model = tiny.schnet(seed=8)
    system = tiny.water()
    model.shift_energy_zero(system, 7.0)
    save_force_field(model, world / "mine.pt")
    return world / "mine.pt"


def train(world: Path, *arguments: str) -> Path:
    assert cli.stable_training(["--config-yml", str(world / "train.yml"), *arguments, "--epochs=1"]) == 0
    return next((world / "runs").rglob("last.pt"))


def mean_energy_error_eV(path: Path) -> float:
    model, frames, system = load_force_field(path), tiny.frames(20), tiny.water()
    predicted = model.double().total_energy(system, frames.positions.double())
    return float((predicted - frames.energy).mean())


def test_a_training_starts_from_any_checkpoint_of_the_model(world, mine):
    last = train(world, f"--model.checkpoint={mine}")
    started, found = (load_force_field(path).lin1.weight for path in (mine, last))
    torch.testing.assert_close(found, started, atol=1e-2, rtol=0)
    assert checkpoints.load(last)["provenance"]["pretrained"] == str(mine)


def test_the_zero_of_energy_is_that_of_the_labels(world, mine):
    assert abs(mean_energy_error_eV(mine)) > 1
    assert abs(mean_energy_error_eV(train(world, "--model.checkpoint=mine.pt"))) < 0.5


def test_an_evaluation_before_training_is_that_of_the_file(world, mine):
    assert cli.stable_training(["--config-yml", str(world / "simulate.yml"), "--eval_model=pre",
                                "--model.checkpoint=mine.pt", "--epochs=1"]) == 0  # fmt: skip
    metrics = json.loads(next((world / "runs").rglob("final_metrics.json")).read_text())
    assert metrics["checkpoint"] == "mine.pt"
    assert metrics["energy_mae_meV"] < 1000  # of 7 eV


def test_a_fit_goes_on_from_the_weights(world, mine):
    values = tiny.pretrain_values(world) | {"model": {"name": "schnet"}}
    (world / "pretrain.yml").write_text(yaml.safe_dump(values))
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), "--model.checkpoint=mine.pt",
                            "--optim.max_epochs=1", "--optim.learning_rate=1e-9"]) == 0  # fmt: skip
    fitted = next((world / "fits").rglob("best_checkpoint.pt"))
    torch.testing.assert_close(load_force_field(fitted).lin1.weight, load_force_field(mine).lin1.weight)
    assert abs(mean_energy_error_eV(fitted)) < 0.2  # of 7 eV


def test_settings_beside_a_checkpoint_are_refused(world, mine, capsys):
    arguments = ["--model.checkpoint=mine.pt", "--model.hidden_channels=9"]
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), *arguments]) == 1
    assert "hidden_channels is that of the checkpoint: leave it out" in capsys.readouterr().err


def test_a_missing_file_is_one_line(world, capsys):
    assert cli.stable_training(["--config-yml", str(world / "train.yml"), "--model.checkpoint=absent.pt"]) == 1
    error = capsys.readouterr().err
    assert "error: there is no checkpoint absent.pt" in error and "Traceback" not in error


# --------------------------------------------------------------------------------------------------- other packages


@pytest.fixture
def theirs(world) -> Path:
    """A small model of nequip, for water."""
    configuration = foreign.nequip_configuration((1, 8), precision="float32") | {"per_type_energy_scales": 0.1}
    foreign.write_nequip(world / "theirs.ckpt", configuration)
    return world / "theirs.ckpt"


def write_frames(path: Path) -> None:
    frames = tiny.frames(40)
    images = []
    for positions, energy, forces in zip(frames.positions, frames.energy, frames.labels, strict=True):
        atoms = Atoms(frames.atomic_numbers.numpy(), positions.numpy())
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float(energy), forces.numpy()
        images.append(atoms)
    ase.io.write(path, images)


@needs_nequip
@pytest.mark.slow
def test_from_two_files_to_a_file_of_the_package(world, theirs, capsys):
    """`init` from a file of frames and a file of weights, a run, a prediction."""
    write_frames(world / "frames.extxyz")
    start = ["--model", "nequip", "--checkpoint", "theirs.ckpt", "--allow-unpickling"]
    assert cli.main(["init", *start, "--data", "frames.extxyz", "--temperature-K", "300", "--cpu"]) == 0
    printed = capsys.readouterr().out
    assert "mdsim pretrain" not in printed and "mdsim simulate" in printed
    (configs,) = (world / "configs" / "frames").iterdir()
    short = ["--debug", "--epochs=1", "--dynamics.replicas=2"]
    assert cli.main(["simulate", "--config-yml", f"{configs}/simulate.yml", "--eval_model", "pre", *short]) == 0
    assert cli.main(["train", "--config-yml", f"{configs}/train.yml", *short]) == 0
    last = next((world / "runs").rglob("last.pt"))
    assert type(load_force_field(last)).__name__ == "NequIPPackage"
    predict = ["predict", "--checkpoint", "theirs.ckpt", "--model", "nequip", "--allow-unpickling"]
    assert cli.main([*predict, "--frames", "frames.extxyz", "--output", "out.extxyz"]) == 0
    model = load_force_field(theirs, model="nequip", allow_unpickling=True)
    atoms = ase.io.read("out.extxyz")
    system = System.from_geometry(atoms.numbers, atoms.positions)
    expected = model.total_energy(system, torch.tensor(atoms.positions, dtype=torch.float32)[None])
    assert atoms.get_potential_energy() == pytest.approx(float(expected), abs=1e-4)


@needs_metatomic
def test_a_program_of_metatomic_is_fitted_trained_and_written_back(world):
    foreign.write_metatomic(world / "program.pt", tiny.schnet(seed=8))
    values = tiny.pretrain_values(world) | {
        "model": {"name": "metatomic", "checkpoint": "program.pt", "allow_unpickling": True}
    }
    values["optim"] |= {"ema_decay": 0.9, "max_epochs": 2}
    (world / "pretrain.yml").write_text(yaml.safe_dump(values))
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml")]) == 0
    fitted = next((world / "fits").rglob("best_checkpoint.pt"))
    arguments = ["--model.name=metatomic", f"--model.checkpoint={fitted}", "--epochs=4", "--max_explore_epochs=1"]
    assert cli.stable_training(["--config-yml", str(world / "train.yml"), *arguments]) == 0
    last = next((world / "runs").rglob("last.pt"))
    started = load_force_field(world / "program.pt", model="metatomic", allow_unpickling=True)
    weights = [next(load_force_field(path).parameters()) for path in (fitted, last)]
    assert not torch.equal(weights[0], next(started.parameters())) and not torch.equal(*weights)
    assert cli.main(["export", str(last), "--to", "native", "-o", "trained.pt"]) == 0
    back = load_force_field("trained.pt", model="metatomic", allow_unpickling=True)
    system, positions = tiny.water(torch.float64), tiny.frames(3).positions.double()
    expected = load_force_field(last).total_energy(system, positions)
    torch.testing.assert_close(back.total_energy(system, positions), expected, rtol=0, atol=1e-9)


@needs_nequip
def test_a_file_that_may_not_be_unpickled_is_refused_before_anything_is_written(world, theirs, capsys):
    write_frames(world / "frames.extxyz")
    start = ["--model", "nequip", "--checkpoint", "theirs.ckpt"]
    assert cli.main(["init", *start, "--data", "frames.extxyz"]) == 1
    assert "--allow-unpickling on the command line" in capsys.readouterr().err
    assert not (world / "configs").exists() and not (world / "DATAPATH").exists()


def test_a_model_of_another_package_needs_a_file(world, capsys):
    assert cli.main(["init", "--model", "mace", "--data", "toy"]) == 1
    assert "--model mace: needs --checkpoint, a `.model` file" in capsys.readouterr().err
