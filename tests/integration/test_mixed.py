"""Fits and runs on a data set of several compositions and cells, as a user starts them."""

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from mixed_frames import ATOMS_EV, write_mixed_data
from sprung_molecules import sprung
from tiny import pretrain_values, same_bits, simulate_values, train_values

from mdsim import assembly, checkpoints
from mdsim.assembly.runs import pretraining as runs
from mdsim.cli import main as cli
from mdsim.cli.main import main
from mdsim.config.schema import PretrainConfig, TrainConfig
from mdsim.datasets import load_mixed_dataset, write_dataset
from mdsim.datasets.folder import read_metadata, write_metadata
from mdsim.models.loading import load_force_field
from mdsim.training.terms import MixedEnergyForceTerm

DATA = {"name": "toy", "molecule": "mixed", "size": "all"}


@pytest.fixture
def world(tmp_path) -> Path:
    write_mixed_data(tmp_path / "data")
    values = pretrain_values(tmp_path)
    values["data"] = {"path": str(tmp_path / "data"), **DATA}
    values["model"] |= {"cutoff_A": 3.0}
    values["optim"] |= {"stress_coefficient": 10.0, "learning_rate": 5e-3}
    (tmp_path / "pretrain.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return tmp_path


def _fit(world: Path, *options: str) -> Path:
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), *options]) == 0
    identifiers = [option.split("=")[1] for option in options if option.startswith("--identifier")]
    return world / "fits" / "schnet" / "_".join(["toy-mixed_all_schnet", *identifiers])


def test_a_fit(world, capfd):
    folder = _fit(world, "--optim.max_epochs=5")
    errors = json.loads((folder / "metrics.json").read_text())
    assert errors["train"]["frames"] == 24 and errors["n_train"] == 24
    assert errors["test"]["stress_mae_meV_per_A3"] > 0
    of_each = errors["test"]["compositions"]
    assert of_each.keys() == {"CH4O", "H2O", "CH4", "H4O2"}
    assert "stress_mae_meV_per_A3" in of_each["H4O2"] and "stress_mae_meV_per_A3" not in of_each["CH4"]
    assert sum(found["frames"] for found in of_each.values()) == errors["test"]["frames"]
    mean = sum(found["energy_mae_meV_per_atom"] for found in of_each.values()) / 4
    assert mean == pytest.approx(errors["test"]["energy_mae_meV_per_atom"], rel=1e-6)
    history = checkpoints.load(folder / "checkpoints" / "last.pt", "pretraining")["training"]["progress"]["history"]
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    model = load_force_field(folder / "checkpoints" / "best_checkpoint.pt")
    assert len(model.reference_compositions) == 4
    assert "test, CH4O" in capfd.readouterr().err
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), "--mode", "validate"]) == 0


@pytest.mark.slow  # unit/training/test_mixed_fit.py does the same without the command line
def test_stopped_and_resumed(world):
    whole = _fit(world, "--optim.max_epochs=2", "--identifier=whole")
    _fit(world, "--optim.max_epochs=1", "--identifier=part")
    part = _fit(world, "--optim.max_epochs=2", "--identifier=part", "--resume")
    states = [checkpoints.load(run / "checkpoints" / "last.pt", "pretraining")["training"] for run in (whole, part)]
    for state in states:
        state["progress"].pop("seconds")
    assert same_bits(*states)
    best = Path("checkpoints", "best_checkpoint.pt")
    assert same_bits(checkpoints.read(whole / best), checkpoints.read(part / best))
    assert (whole / "metrics.json").read_bytes() == (part / "metrics.json").read_bytes()


def test_a_fit_that_starts_from_a_checkpoint(world):
    first = _fit(world, "--optim.max_epochs=4") / "checkpoints"
    values = yaml.safe_load((world / "pretrain.yml").read_text())
    values["model"] = {"name": "schnet", "checkpoint": str(first / "best_checkpoint.pt")}
    (world / "pretrain.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    second = _fit(world, "--optim.max_epochs=1", "--identifier=on") / "checkpoints"
    before, after = (
        checkpoints.load(folder / "last.pt", "pretraining")["training"]["progress"] for folder in (first, second)
    )
    best = before["history"][before["best"]]
    assert after["history"][0]["force_mae_meV_per_A"] == pytest.approx(best["force_mae_meV_per_A"], rel=1e-5)
    assert after["history"][0]["energy_mae_meV_per_atom"] < before["history"][0]["energy_mae_meV_per_atom"]


def test_the_errors_are_of_evenly_spaced_frames_up_to_a_limit(world):
    folder = _fit(world, "--optim.max_epochs=1", "--optim.max_test_frames=4")
    test = json.loads((folder / "metrics.json").read_text())["test"]
    assert test["frames"] == 4 == sum(one["frames"] for one in test["compositions"].values()) < test["of_frames"]


def test_one_composition_of_it(world):
    folder = _fit(world, "--data.composition=CH3OH", "--optim.stress_coefficient=0")
    errors = json.loads((folder / "metrics.json").read_text())
    assert errors["train"]["frames"] == 6 and "compositions" not in errors["train"]


def test_energies_of_isolated_atoms_keep_their_differences(world):
    path = world / "data" / "toy" / "mixed" / "all" / "metadata.json"
    atoms = {"H": ATOMS_EV[1], "C": ATOMS_EV[6], "O": ATOMS_EV[8]}
    write_metadata(path, replace(read_metadata(path), atomic_energies_eV=atoms))
    model = load_force_field(_fit(world) / "checkpoints" / "best_checkpoint.pt")
    found = model.reference_energies_eV
    assert float(found[8] - found[1]) == pytest.approx(ATOMS_EV[8] - ATOMS_EV[1], abs=1e-9)
    assert float(found[6] - found[1]) == pytest.approx(ATOMS_EV[6] - ATOMS_EV[1], abs=1e-9)


def test_a_repulsion_is_zero_in_all_frames(world):
    values = yaml.safe_load((world / "pretrain.yml").read_text())
    values["model"]["repulsion"] = {"name": "zbl"}
    config = PretrainConfig.model_validate(values)
    data = runs.fitted_data(config)
    trainer = runs.build_pretraining(config, data, world / "fit")
    assert trainer.model.repulsion is not None and len(trainer.model.repulsion.windows) == 6
    found = trainer.data._without_repulsion(trainer.model)
    torch.testing.assert_close(found[0], trainer.data.train.total_energy)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.composition=CH3", "has no frames of CH3; name one of CH4O (11 frames)"),
        ("--data.composition=C2H(", "data.composition: "),
        ("--optim.stress_coefficient=-1", "optim.stress_coefficient"),
    ],
)
def test_wrong_keys_are_one_line(world, capsys, option, message):
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), option]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_stress_coefficient_needs_labels(world, capsys):
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), "--data.composition=CH4"]) == 1
    assert "no training frame of" in capsys.readouterr().err.splitlines()[-1]


def test_elements_without_training_frames_are_found_before_the_fit(world, capsys):
    folder = world / "data" / "toy" / "mixed" / "all"
    data = load_mixed_dataset(world / "data", "toy", "mixed", "all")
    water = data.train[torch.tensor([formula == "H2O" for formula in data.train.formulas])]
    write_dataset(folder, {"train": water, "val": data.val}, {"test": data.test}, data.metadata)
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), "--optim.stress_coefficient=0"]) == 1
    assert "val has frames of C, and no training frame has" in capsys.readouterr().err.splitlines()[-1]


# --------------------------------------------------------------------------------------------- dynamics of one of them


@pytest.fixture
def runs_of_methanol(world) -> Path:
    _fit(world)
    shared = {"data": {"path": str(world / "data"), **DATA, "composition": "CH3OH"}, "model_dir": str(world / "fits")}
    train, simulate = train_values(world) | shared, simulate_values(world) | shared
    train["terms"][1] |= {"batch_size": 6, "stress_coefficient": 1.0}
    simulate |= {"dynamical_observables": [], "dense_window": None}
    for name, values in {"train": train, "simulate": simulate}.items():
        (world / f"{name}.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return world


@pytest.mark.slow
def test_training_and_evaluation_of_one_composition(runs_of_methanol):
    world = runs_of_methanol
    assert cli.stable_training(["--config-yml", str(world / "train.yml"), "--epochs=3"]) == 0
    run = world / "runs" / "stable_training" / "schnet_mixed_CH3OH_default"
    state = checkpoints.load(run / "last.pt", "stable_training")
    assert state["training"]["replicas"]["state"]["positions"].shape == (4, 6, 3)
    assert len(load_force_field(run / "last.pt").reference_compositions) == 4
    assert cli.stable_training(["--config-yml", str(world / "simulate.yml")]) == 0
    metrics = json.loads((run / "inference" / "pre" / "final_metrics.json").read_text())
    assert metrics["force_mae_meV_per_A"] > 0


def test_the_term_of_labels_uses_all_compositions(runs_of_methanol):
    config = TrainConfig.model_validate(yaml.safe_load((runs_of_methanol / "train.yml").read_text()))
    model = load_force_field(assembly.starting_checkpoint(config))
    data, several = assembly.dataset(config.data), assembly.SeveralLabeled.of(assembly.labeled_data(config.data), model)
    term = assembly.weighted_terms(config, data.system(), data, assembly.state_points(config, data), 0.0, several)[
        1
    ].term
    assert isinstance(term, MixedEnergyForceTerm) and len(term.frames) == 24 and term.batch_size == 6
    assert float(term.energy.abs().max()) < 10.0, "relative to the zero of the force field"
    assert term.loss.needs_stress and term.loss.energy_per_atom


def test_dynamics_need_the_name_of_a_composition(runs_of_methanol, capsys):
    arguments = ["--config-yml", str(runs_of_methanol / "train.yml"), "--data.composition=null"]
    assert cli.stable_training(arguments) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "has several compositions; name one of CH4O (11 frames), H2O" in message and "data.composition" in message


# ------------------------------------------------------------------------------------- stresses of one composition


@pytest.mark.parametrize("coefficient", [0.0, 20.0])
def test_stresses_of_one_composition(tmp_path, coefficient):
    cell = np.diag([6.0, 6.5, 7.0])
    images = [atoms for atoms in sprung("NH3", 90, cell=cell) if np.allclose(atoms.cell.array, cell)]
    ase.io.write(tmp_path / "x.extxyz", images)
    named = ["--name", "toy", "--molecule", "ammonia", "--db_path", str(tmp_path / "data")]
    assert main(["data", "convert", str(tmp_path / "x.extxyz"), *named]) == 0
    values = pretrain_values(tmp_path)
    values["data"] = {"path": str(tmp_path / "data"), "name": "toy", "molecule": "ammonia", "size": "100percent"}
    values["optim"] |= {"stress_coefficient": coefficient, "max_epochs": 2}
    (tmp_path / "fit.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert cli.pretraining(["--config-yml", str(tmp_path / "fit.yml")]) == 0
    folder = tmp_path / "fits" / "schnet" / "toy-ammonia_100percent_schnet"
    assert json.loads((folder / "metrics.json").read_text())["test"]["stress_mae_meV_per_A3"] > 0
    history = checkpoints.load(folder / "checkpoints" / "last.pt", "pretraining")["training"]["progress"]["history"]
    assert ("stress_mae_meV_per_A3" in history[0]) is (coefficient > 0)
