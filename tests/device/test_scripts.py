"""The three scripts from end to end on the pretend device, with the results of the CPU."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pretend_device import pretend_cuda
from tiny import pretrain_values, simulate_values, train_values, write_data

from mdsim.cli import main as cli
from mdsim.models.loading import load_force_field
from mdsim.models.registry import FOLDERS

MODELS = {
    "schnet": {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 6},
    "nequip": {"l_max": 1, "num_layers": 2, "num_features": 4, "radial_mlp_width": 8},
    "gemnet_t": {
        "num_spherical": 3,
        "num_radial": 3,
        "num_blocks": 1,
        "emb_size_atom": 8,
        "emb_size_edge": 8,
        "emb_size_trip": 4,
        "emb_size_rbf": 4,
        "emb_size_cbf": 4,
        "emb_size_bil_trip": 4,
        "num_atom": 1,
    },
}
ON_CPU, ON_GPU = "cpu", "gpu"


def test_every_model_of_the_package_is_run():
    assert len(MODELS) == len(FOLDERS)


def _write(root: Path, model: str) -> None:
    """`pretrain.yml`, `train.yml` and `simulate.yml`: fit, training and evaluation of one another's models."""
    write_data(root / "data")
    for name, values in {"pretrain": pretrain_values, "train": train_values, "simulate": simulate_values}.items():
        config = values(root) | {"cpu": False, "model": {"name": model}}
        if name == "pretrain":
            config["model"] |= {**MODELS[model], "cutoff_A": 2.5}
            config["optim"]["max_epochs"] = 2
        else:
            config |= {"model_dir": str(root / "fits"), "epochs": 4}
            config["stability"] = [{"name": "bond_length_deviation", "bond_dev_tol_A": 0.2}]
        (root / f"{name}.yml").write_text(yaml.safe_dump(config), encoding="utf-8")


def _run_all(root: Path, model: str, *arguments: str) -> None:
    _write(root, model)
    assert cli.pretraining(["--config-yml", str(root / "pretrain.yml"), *arguments]) == 0
    assert cli.stable_training(["--config-yml", str(root / "train.yml"), *arguments]) == 0
    for eval_model in ("pre", "post"):
        chosen = ["--config-yml", str(root / "simulate.yml"), "--eval_model", eval_model]
        assert cli.stable_training([*chosen, *arguments]) == 0


def _numbers(value) -> dict[str, float]:
    """All numbers of a nested structure, by their place."""
    if isinstance(value, dict):
        return {f"{key}/{place}": x for key, one in value.items() for place, x in _numbers(one).items()}
    if isinstance(value, list):
        return _numbers(dict(enumerate(value)))
    return {"": float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[] if name == "schnet" else pytest.mark.slow) for name in MODELS]
)
def test_scripts(model, tmp_path, no_figures):
    for device in (ON_CPU, ON_GPU):
        (tmp_path / device).mkdir()
    _run_all(tmp_path / ON_CPU, model, "--cpu")
    with pretend_cuda() as ledger:
        _run_all(tmp_path / ON_GPU, model)
        assert ledger.n_launches > 1000
    assert_same_results(tmp_path / ON_CPU, tmp_path / ON_GPU)


def assert_same_results(one: Path, other: Path) -> None:
    """Weights, metrics and arrays of two worlds are equal within rounding."""
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.suffix in (".pt", ".json", ".npy"))
    assert {".pt", ".json", ".npy"} == {path.suffix for path in names}
    for name in names:
        first, second = one / name, other / name
        if name.suffix == ".npy":
            np.testing.assert_allclose(np.load(second), np.load(first), rtol=1e-3, atol=1e-3, err_msg=str(name))
        elif name.suffix == ".json" and "data" not in name.parts:
            numbers, expected = (_numbers(json.loads(path.read_text())) for path in (second, first))
            assert numbers == pytest.approx(expected, rel=2e-3, abs=2e-3, nan_ok=True), name
        elif name.suffix == ".pt" and "inference" not in name.parts:
            weights = (load_force_field(path).state_dict() for path in (second, first))
            torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5, msg=str(name))
