"""The key `repulsion` of a model, from the fit to predictions, as a user sets it."""

import logging
from pathlib import Path

import ase.io
import pytest
import torch
from ase import Atoms
from tiny import GEOMETRY, NUMBERS, same_bits, train_config, write_world

from mdsim import assembly
from mdsim.calculator import ForceFieldCalculator
from mdsim.cli import main as cli
from mdsim.errors import ConfigError
from mdsim.models import SchNet
from mdsim.models.loading import load_force_field
from mdsim.neighbors import neighbors
from mdsim.state import System

ZBL = "--model.repulsion={name: zbl, pairs: all}"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A fit with the repulsion, and StABlE training that adds it to the fit without."""
    root = write_world(tmp_path_factory.mktemp("world"))
    assert cli.pretraining(["--config-yml", str(root / "pretrain.yml"), ZBL]) == 0
    assert cli.stable_training(["--config-yml", str(root / "train.yml"), ZBL]) == 0
    return root


def test_every_checkpoint_of_the_fit_and_of_the_training_has_it(world):
    fits, trained = list((world / "fits").rglob("*.pt")), list((world / "runs").glob("*/*/*.pt"))
    assert len(fits) >= 2 and len(trained) >= 3
    found = {load_force_field(path).repulsion for path in (*fits, *trained)}
    assert len(found) == 1 and None not in found
    assert all(load_force_field(path).repulsion is None for path in (world / "models").rglob("*.pt"))


def test_the_fit_is_the_same_as_without(world, tmp_path):
    """The repulsion is zero in every training frame."""
    write_world(tmp_path)
    assert cli.pretraining(["--config-yml", str(tmp_path / "pretrain.yml")]) == 0
    fitted, plain = (next(root.rglob("fits/**/best_checkpoint.pt")) for root in (world, tmp_path))
    assert same_bits(load_force_field(fitted).state_dict(), load_force_field(plain).state_dict())


@pytest.mark.parametrize(("eval_model", "key"), [("pre", [ZBL]), ("post", [ZBL]), ("post", [])])
def test_evaluations_add_it_or_keep_it(world, eval_model, key, caplog):
    name = f"--eval_model={eval_model}"
    with caplog.at_level(logging.INFO, "mdsim"):
        assert cli.stable_training(["--config-yml", str(world / "simulate.yml"), name, "--overwrite", *key]) == 0
    said = [record.getMessage() for record in caplog.records]
    assert any("repulsion of nuclei (ZBL), pairs: all, switched off over H-H" in line for line in said) == (
        eval_model == "pre"
    )


def test_a_stopped_training_goes_on_with_it(world):
    whole = ["--config-yml", str(world / "train.yml"), ZBL, "--exp_name=resumed"]
    assert cli.stable_training([*whole, "--epochs=3"]) == 0
    assert cli.stable_training([*whole, "--resume"]) == 0
    runs = world / "runs" / "stable_training"
    models = [load_force_field(runs / f"schnet_water_{name}" / "last.pt") for name in ("default", "resumed")]
    assert same_bits(*(model.state_dict() for model in models))
    assert models[0].repulsion == models[1].repulsion
    assert cli.stable_training([*whole[:2], "--exp_name=resumed", "--resume"]) == 1  # other settings


def test_predictions_and_the_calculator_include_it(world, tmp_path):
    checkpoint = next((world / "fits").rglob("best_checkpoint.pt"))
    model = load_force_field(checkpoint).double()
    squeezed = Atoms(NUMBERS.numpy(), 0.75 * GEOMETRY.numpy())
    positions = torch.tensor(squeezed.positions)[None]
    system = System.from_geometry(squeezed.numbers, squeezed.positions, dtype=torch.float64)
    wall = model.repulsion.atomic_energies(system, positions, neighbors(system, positions, 2.0))[0].detach()
    plain = load_force_field(next((world / "models").rglob("*.pt")))
    assert plain.repulsion is None and wall.sum() > 1
    calculator = ForceFieldCalculator(checkpoint, dtype=torch.float64, energy_zero="relative")
    squeezed.calc = calculator
    learned = SchNet.atomic_energies(model, system, positions, neighbors(system, positions, model.cutoff))[0].detach()
    torch.testing.assert_close(torch.tensor(squeezed.get_potential_energies()), learned + wall)
    ase.io.write(tmp_path / "frames.xyz", Atoms(squeezed.numbers, squeezed.positions))
    arguments = [
        "--frames",
        str(tmp_path / "frames.xyz"),
        "--output",
        str(tmp_path / "out.xyz"),
        "--energy-zero",
        "relative",
    ]
    assert cli.pretraining(["--mode", "predict", "--checkpoint", str(checkpoint), "--cpu", *arguments]) == 0
    predicted = ase.io.read(tmp_path / "out.xyz")
    assert predicted.get_potential_energy() == pytest.approx(squeezed.get_potential_energy(), abs=1e-4)
    torch.testing.assert_close(
        torch.tensor(predicted.get_forces()), torch.tensor(squeezed.get_forces()), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "{name: zbl, pairs: between_molecules}",
            "model.repulsion: pairs: between_molecules, but the system is a single",
        ),
        ("{name: zbl, windows_A: {O-X: [1, 2]}}", "model.repulsion: windows_A: 'O-X' is no pair of elements"),
        ("{name: zbl, windows_A: {O-H: [2, 1]}}", "model.repulsion: the window of H-O is [2, 1] Å"),
        ("{name: zbl, windows_A: {O-H: [2, 9]}}", "model.repulsion: a repulsion up to 9 Å needs a larger cutoff"),
        ("{name: zbl, pair: all}", "repulsion.pair'; did you mean 'pairs'?"),
        ("{name: morse}", "'zbl'"),
    ],
)
def test_mistakes_are_one_line(world, capsys, section, message):
    assert (
        cli.stable_training(["--config-yml", str(world / "train.yml"), f"--model.repulsion={section}", "--exp_name=x"])
        == 1
    )
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (world / "runs" / "stable_training" / "schnet_water_x").exists()


def test_another_one_than_that_of_the_checkpoint_is_refused(world):
    config = train_config(world, model={"name": "schnet", "repulsion": {"name": "zbl"}})
    data = assembly.dataset(config.data)
    model = load_force_field(world / "runs" / "stable_training" / "schnet_water_default" / "last.pt")
    with pytest.raises(
        ConfigError, match=r"model\.repulsion: the checkpoint was trained with another one.*leave the key out"
    ):
        assembly.add_repulsion(model, config.model, data.system(), data.train)
