"""NequIP through configuration, names of runs, the energy/force fit and evaluation."""

from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from tiny import pretrain_values, simulate_config, train_config, water, write_data

from mdsim import assembly
from mdsim.cli import main as cli
from mdsim.config.schema import MODEL_CONFIGS, DataConfig, PretrainConfig
from mdsim.errors import ConfigError
from mdsim.models.loading import load_force_field, model_config

NequIPConfig = MODEL_CONFIGS["nequip"]
SMALL = {"name": "nequip", "num_layers": 2, "num_features": 4, "radial_mlp_width": 6, "cutoff_A": 3.0}


def _pretrain_values(root: Path, l_max: int, **changes) -> dict:
    return pretrain_values(root) | {"model": {**SMALL, "l_max": l_max}} | changes


def test_a_force_field_has_the_settings_of_its_configuration():
    model = assembly.force_field(NequIPConfig(**SMALL, l_max=2, parity=False), [8, 1])
    assert model_config(model) == {
        "name": "nequip",
        "l_max": 2,
        "parity": False,
        "num_layers": 2,
        "num_features": 4,
        "num_bessels": 8,
        "polynomial_cutoff_p": 6,
        "radial_mlp_depth": 2,
        "radial_mlp_width": 6,
        "cutoff": 3.0,
    }
    assert model.species.tolist() == [1, 8]


def test_the_configuration_refuses_what_it_does_not_know():
    with pytest.raises(ValidationError, match="l_max"):
        NequIPConfig(name="nequip", l_max=-1)
    with pytest.raises(ValidationError, match="hidden_channels"):
        NequIPConfig(name="nequip", hidden_channels=3)


def test_fits_of_several_l_max_lie_side_by_side(tmp_path):
    folders = {
        l_max: assembly.pretraining_run_path(
            PretrainConfig.model_validate(_pretrain_values(tmp_path, l_max, **changes))
        )
        for l_max, changes in {1: {}, 2: {"identifier": "wide"}}.items()
    }
    assert folders[1] == tmp_path / "fits" / "nequip" / "toy-water_20_nequip_lmax=1"
    assert folders[2].name == "toy-water_20_nequip_lmax=2_wide"


def test_runs_pick_the_checkpoint_of_their_l_max(tmp_path):
    data = DataConfig(path="d", name="toy", molecule="water", size="20")
    for l_max in (1, 2, 3):
        path = assembly.pretraining_path(tmp_path / "models", "nequip", data, f"lmax={l_max}")
        (path / "checkpoints").mkdir(parents=True)
        (path / "checkpoints" / "best_checkpoint.pt").touch()

    def chosen(config, name: str) -> str:
        return assembly.evaluated_checkpoint(config, name).parts[-3]

    default = simulate_config(tmp_path, model={"name": "nequip"})
    third = simulate_config(tmp_path, model={"name": "nequip", "l_max": 3})
    assert chosen(default, "pre") == "toy-water_20_nequip_lmax=1"
    assert chosen(third, "pre") == "toy-water_20_nequip_lmax=3"
    assert chosen(default, "lmax=2") == chosen(third, "lmax=2") == "toy-water_20_nequip_lmax=2"
    assert assembly.pretrained_checkpoint(third, size="7k").parts[-3] == "toy-water_7k_nequip_lmax=3"
    assert assembly.pretrained_checkpoint(train_config(tmp_path, model=third.model.model_dump())).is_file()
    with pytest.raises(ConfigError, match=r"eval_model 'lmax=4': .*nequip_lmax=4.* does not exist; train it first"):
        assembly.evaluated_checkpoint(default, "lmax=4")


def test_a_fit_takes_its_normalization_from_the_data_and_learns(tmp_path):
    write_data(tmp_path / "data", ("20",))
    values = _pretrain_values(tmp_path, l_max=1, seed=1)
    values["optim"] = values["optim"] | {"learning_rate": 2e-2, "max_epochs": 12}
    (tmp_path / "fit.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert cli.pretraining(["--config-yml", str(tmp_path / "fit.yml")]) == 0
    checkpoints = tmp_path / "fits" / "nequip" / "toy-water_20_nequip_lmax=1" / "checkpoints"
    model = load_force_field(checkpoints / "best_checkpoint.pt")
    frames = assembly.dataset(DataConfig(**values["data"])).train
    moved = torch.load(checkpoints / "best_checkpoint.pt", weights_only=True)["provenance"]["recentered_eV"]
    torch.testing.assert_close(model.zero_energy_eV(water()) - moved, frames.energy.mean())
    torch.testing.assert_close(model.energy_scale, frames.forces.square().mean().sqrt().expand(2))
    assert model.avg_num_neighbors.item() == 2.0
    history = torch.load(checkpoints / "last.pt", weights_only=True)["training"]["progress"]["history"]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_flags_of_the_command_line(tmp_path, capsys):
    write_data(tmp_path / "data", ("20",))
    for name, values in {"nequip": _pretrain_values(tmp_path, 1), "schnet": pretrain_values(tmp_path)}.items():
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    flags = ["--mode", "train", "--nequip", "--debug", "--cpu"]
    assert cli.pretraining(["--config-yml", str(tmp_path / "nequip.yml"), "--l_max", "2", *flags]) == 0
    path = tmp_path / "fits" / "nequip" / "toy-water_20_nequip_lmax=2_debug" / "checkpoints" / "best_checkpoint.pt"
    assert load_force_field(path).hyperparameters["l_max"] == 2
    capsys.readouterr()
    assert cli.pretraining(["--config-yml", str(tmp_path / "schnet.yml"), *flags]) == 1
    assert "--nequip: the configuration is one of schnet" in capsys.readouterr().err
    assert cli.pretraining(["--config-yml", str(tmp_path / "schnet.yml"), "--l_max", "2", *flags[2:]]) == 1
    assert "l_max" in capsys.readouterr().err
