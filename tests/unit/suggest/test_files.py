"""Suggested configuration files: valid, with reasons, and never overwriting a user's file."""

from __future__ import annotations

import re

import pytest
import yaml
from toy_frames import argon, liquid, molecule

from mdsim.config.loading import load_config
from mdsim.config.schema import PretrainConfig, SimulateConfig, TrainConfig
from mdsim.errors import ConfigError
from mdsim.models.record import Chosen
from mdsim.models.registry import MODELS
from mdsim.suggest import files
from mdsim.suggest.choices import Machine
from mdsim.suggest.findings import inspect

CPU = Machine(gpu=False)
SCHNET = MODELS["schnet"]


@pytest.mark.parametrize("model", [name for name, record in MODELS.items() if not record.is_foreign])
@pytest.mark.parametrize("make", [molecule, liquid, argon])
@pytest.mark.parametrize("gpu", [False, True])
def test_every_system_and_model_gets_valid_files(write_set, tmp_path, make, model, gpu):
    found = inspect(write_set(make))
    files.write(found, MODELS[model], Machine(gpu), tmp_path / "out")
    pretrain = load_config(tmp_path / "out" / "pretrain.yml", PretrainConfig)
    train = load_config(tmp_path / "out" / "train.yml", {"train": TrainConfig})
    simulate = load_config(tmp_path / "out" / "simulate.yml", {"simulate": SimulateConfig})
    assert pretrain.model.name == train.model.name == simulate.model.name == model
    assert pretrain.data.model_dump(exclude={"atomic_energies_eV"}) == train.data.model_dump()
    assert train.data == simulate.data
    assert train.run_path == simulate.run_path and train.model_dir == pretrain.run_dir
    assert (train.estimator.local is not None) == (make in (liquid, argon))
    assert 1 <= pretrain.optim.batch_size <= 10 and train.terms[-1].batch_size <= 40
    assert train.dynamics.temperature_K == 300
    names = [criterion.name for criterion in train.stability]
    assert ("minimum_intermolecular_distance" in names) == (make in (liquid, argon))
    assert ("angle_deviation" in names) == (make in (molecule, liquid))


def test_the_learning_recipe_is_that_of_the_package(write_set, tmp_path):
    files.write(inspect(write_set()), SCHNET, CPU, tmp_path / "out")
    ours = load_config("configs/stable_training/aspirin_gfn2/train.yml", {"train": TrainConfig})
    new = load_config(tmp_path / "out" / "train.yml", {"train": TrainConfig})
    for key in ("learning_rate", "steps_per_rerun", "min_effective_fraction"):
        assert getattr(new.learning, key) == getattr(ours.learning, key)
    assert new.stop_confidence == ours.stop_confidence and new.terms[0] == ours.terms[0]
    assert new.terms[-1].weight == ours.terms[-1].weight


def test_models_whose_weights_need_larger_steps_get_them(write_set, tmp_path):
    found = inspect(write_set())
    for name, expected in (("schnet", 1e-4), ("nequip", 3e-4)):
        files.write(found, MODELS[name], CPU, tmp_path / name)
        train = load_config(tmp_path / name / "train.yml", {"train": TrainConfig})
        assert train.learning.learning_rate == expected


def test_reasons_stand_beside_the_values(write_set, tmp_path):
    files.write(inspect(write_set()), SCHNET, CPU, tmp_path / "out")
    text = (tmp_path / "out" / "common.yml").read_text()
    assert re.search(r"temperature_K: 300\.0 +# that of the data", text)
    assert re.search(r"timestep_fs: 1\.0 +# the fastest vibration, O-H, has a period of \d+\.\d fs", text)
    assert re.search(r"bond_dev_tol_A: [\d.]+} +# the data deviate by up to 0\.\d\d Å", text)


def test_what_is_there_is_kept_unless_said_otherwise(write_set, tmp_path):
    found, out = inspect(write_set()), tmp_path / "out"
    out.mkdir()
    (out / "train.yml").write_text("mine: 1\n")
    with pytest.raises(ConfigError, match=r"has train\.yml already.*--overwrite"):
        files.write(found, SCHNET, CPU, out)
    assert sorted(path.name for path in out.iterdir()) == ["train.yml"]
    files.write(found, SCHNET, CPU, out, overwrite=True)
    assert yaml.safe_load((out / "train.yml").read_text()) != {"mine": 1}


def test_a_file_is_no_folder(write_set, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        files.write(inspect(write_set()), SCHNET, CPU, tmp_path / "out")


def test_nothing_is_written_when_the_pieces_do_not_fit(write_set, tmp_path, monkeypatch):
    beyond_the_cell = [Chosen({"name": "rdf", "max_distance_A": 6.0, "bin_width_A": 0.1})]
    monkeypatch.setattr("mdsim.suggest.sections.rdfs", lambda found: beyond_the_cell)
    with pytest.raises(ConfigError, match="beyond half the smallest height"):
        files.write(inspect(write_set(liquid)), SCHNET, CPU, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_long_reasons_stand_above():
    lines = list(files._commented("  key: " + "x" * 100, "because of this and that and the other"))
    assert lines == ["  # because of this and that and the other", "  key: " + "x" * 100]


def test_names_that_look_like_numbers_stay_names():
    assert yaml.safe_load(files._plain({"size": "100", "rate": 1.0e-05})) == {"size": "100", "rate": 1.0e-05}
