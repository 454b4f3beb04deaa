"""GemNet-T through configuration, the energy/force fit and dynamics."""

import pytest
import torch
import yaml
from paths import ROOT
from tiny import pretrain_values, simulate_config, water, write_data

from mdsim import assembly
from mdsim.cli import main as cli
from mdsim.config.loading import load_config
from mdsim.config.schema import MODEL_CONFIGS, DataConfig, PretrainConfig
from mdsim.models.gemnet.scaling import scale_factors
from mdsim.models.loading import load_force_field, model_config

GemNetTConfig = MODEL_CONFIGS["gemnet_t"]
SMALL = {"name": "gemnet_t", "num_spherical": 3, "num_radial": 4, "num_blocks": 1, "num_atom": 1, "cutoff_A": 3.0}
SMALL |= {"emb_size_atom": 8, "emb_size_edge": 8, "emb_size_trip": 4, "emb_size_rbf": 4, "emb_size_cbf": 4}
SMALL |= {"emb_size_bil_trip": 4}


def test_a_force_field_has_the_settings_of_its_configuration():
    config = GemNetTConfig(**SMALL, rbf="spherical_bessel", envelope_exponent=6)
    model = assembly.force_field(config, [8, 1])
    assert model.species.tolist() == [1, 8]
    settings = {**config.model_dump(exclude={"repulsion", "checkpoint"}), "cutoff": 3.0}
    del settings["cutoff_A"]
    assert model_config(model) == settings


def test_the_configuration_of_the_paper():
    config = load_config(ROOT / "configs" / "pretraining" / "water" / "gemnet-T.yml", PretrainConfig)
    assert config.model == GemNetTConfig(name="gemnet_t")
    sizes = config.model.model_dump()
    assert (sizes["num_spherical"], sizes["num_radial"], sizes["num_blocks"], sizes["emb_size_trip"]) == (7, 6, 4, 64)
    optim = config.optim
    assert (optim.optimizer, optim.amsgrad, optim.eps, optim.weight_decay) == ("adamw", True, 1e-7, 2e-6)
    assert (optim.loss, optim.force_coefficient, optim.energy_coefficient) == ("l2mae", 0.999, 0.001)
    assert (optim.batch_size, optim.ema_decay, optim.clip_norm) == (1, 0.999, 10.0)


@pytest.mark.slow
def test_a_fit_takes_its_normalization_and_factors_from_the_data_and_learns(tmp_path):
    write_data(tmp_path / "data", ("20",))
    values = pretrain_values(tmp_path) | {"model": SMALL, "seed": 1}
    values["optim"] = values["optim"] | {"learning_rate": 1e-2, "max_epochs": 15, "clip_norm": 10.0, "loss": "l2mae"}
    (tmp_path / "fit.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert cli.pretraining(["--config-yml", str(tmp_path / "fit.yml")]) == 0
    checkpoints = tmp_path / "fits" / "gemnet_t" / "toy-water_20_gemnet_t" / "checkpoints"
    model = load_force_field(checkpoints / "best_checkpoint.pt")
    frames = assembly.dataset(DataConfig(**values["data"])).train
    moved = torch.load(checkpoints / "best_checkpoint.pt", weights_only=True)["provenance"]["recentered_eV"]
    torch.testing.assert_close(model.zero_energy_eV(water()) - moved, frames.energy.mean())
    torch.testing.assert_close(model.energy_scale, frames.forces.square().mean().sqrt())
    assert all(factor.scale_factor != 1.0 for factor in scale_factors(model).values())
    history = torch.load(checkpoints / "last.pt", weights_only=True)["training"]["progress"]["history"]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_runs_pick_its_checkpoint(tmp_path):
    data = DataConfig(path="d", name="toy", molecule="water", size="20")
    path = assembly.pretraining_path(tmp_path / "models", "gemnet_t", data) / "checkpoints" / "best_checkpoint.pt"
    path.parent.mkdir(parents=True)
    path.touch()
    config = simulate_config(tmp_path, model={"name": "gemnet_t"})
    assert assembly.evaluated_checkpoint(config, "pre") == path
