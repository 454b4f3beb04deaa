"""Published SchNet weights against energies and forces that the published code computed with them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mdsim.errors import CheckpointError, EnergyZeroError
from mdsim.models import SchNet, load_force_field
from mdsim.models.schnet.published import read_published_schnet
from mdsim.state import System

FILES = {"qm": "schnet_aspirin_pre/best_checkpoint.pt", "stable": "schnet_aspirin_post/ckpt.pt"}


@pytest.fixture
def weights(reference_path) -> Path:
    return reference_path / "upstream_weights"


@pytest.fixture
def golden(weights):
    with np.load(weights / "golden_schnet_aspirin.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("stage", FILES)
def test_energies_and_forces(weights, golden, stage, dtype, tolerance):
    system = System.from_geometry(golden["z"], golden["positions"][0], dtype=dtype)
    model = read_published_schnet(weights / FILES[stage]).to(dtype)
    energy, forces = model(system, torch.tensor(golden["positions"], dtype=dtype))
    np.testing.assert_allclose(energy.double(), golden[f"{stage}_energy_model_f64"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(forces.double(), golden[f"{stage}_forces_f64"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("stage", FILES)
def test_total_energy_adds_the_mean_of_the_labels(weights, golden, stage):
    system = System.from_geometry(golden["z"], golden["positions"][0])
    model = load_force_field(weights / FILES[stage])
    total = model.total_energy(system, torch.tensor(golden["positions"], dtype=torch.float32))
    expected = golden[f"{stage}_energy_model_f64"] + golden["target_mean_eV"]
    np.testing.assert_allclose(total.detach(), expected, rtol=0, atol=2e-5)


def _payload() -> dict:
    """The layout of a published checkpoint around a tiny model."""
    arguments = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 4, "cutoff": 3.0}
    state = {f"module.{name}": value for name, value in SchNet(**arguments).state_dict().items()}
    for name in ("species", "energy_shift_eV", "reference_energies_eV", "reference_compositions", "energy_scale"):
        del state[f"module.{name}"]
    state["module.atomic_mass"] = torch.ones(119, dtype=torch.float64)
    return {
        "state_dict": state,
        "normalizers": {"target": {"mean": torch.tensor(-3.0), "std": torch.tensor(2.0)}},
        "config": {"model": "schnet", "model_attributes": arguments, "dataset": {}},
    }


def test_normalization_is_read_from_the_checkpoint(tmp_path):
    torch.save(_payload(), tmp_path / "model.pt")
    model = read_published_schnet(tmp_path / "model.pt")
    assert model.energy_shift_eV.item() == -3.0
    assert model.energy_scale.item() == 2.0


def test_the_mean_belongs_to_the_molecule_that_the_file_names(tmp_path):
    payload = _payload()
    payload["config"]["dataset"] = [{"molecule": "aspirin", "target_mean": -17637.827343506295}, {}]
    torch.save(payload, tmp_path / "model.pt")
    model = load_force_field(tmp_path / "model.pt")
    aspirin = torch.tensor([6] * 9 + [1] * 8 + [8] * 4)
    for copies in (1, 3):
        system = System.from_geometry(aspirin.repeat(copies), torch.zeros(21 * copies, 3))
        model.check_energy_zero(system)
        assert model.zero_energy_eV(system).item() == pytest.approx(-17637.827343506295 * copies, abs=1e-8)
    with pytest.raises(EnergyZeroError, match="fitted to C9H8O4"):
        model.check_energy_zero(System.from_geometry(aspirin[:1], torch.zeros(1, 3)))


def test_missing_hyperparameters_are_named(tmp_path):
    payload = _payload()
    del payload["config"]["model_attributes"]["cutoff"]
    torch.save(payload, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt does not state the model's cutoff"):
        load_force_field(tmp_path / "model.pt")


def test_weights_of_another_shape_are_refused(tmp_path):
    payload = _payload()
    payload["config"]["model_attributes"]["num_filters"] = 9
    torch.save(payload, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"weights in .*model\.pt do not fit"):
        load_force_field(tmp_path / "model.pt")


def test_other_files_are_refused(tmp_path):
    torch.save({"weights": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is not a published SchNet checkpoint.*weights"):
        read_published_schnet(tmp_path / "other.pt")
