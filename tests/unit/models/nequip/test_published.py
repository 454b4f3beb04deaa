"""Published NequIP weights against energies and forces that the published program computed with them.

The reference values are of float32: energies near -27,000 eV are known to some meV, forces to 2e-5 eV/Å.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mdsim.errors import CheckpointError, EnergyZeroError
from mdsim.models import NequIP, load_force_field
from mdsim.models.nequip.published import read_published_nequip
from mdsim.state import System

FILES = {"qm": "nequip_ala_pre/best_model.pth", "stable": "nequip_ala_post/end_of_cycle1.pth"}
CONFIG = "nequip_ala_pre/config.yaml"


@pytest.fixture
def weights(reference_path) -> Path:
    return reference_path / "upstream_weights"


@pytest.fixture
def golden(weights):
    with np.load(weights / "golden_nequip_ala.npz", allow_pickle=False) as file:
        return dict(file)


def _load(weights: Path, stage: str) -> NequIP:
    return read_published_nequip(weights / FILES[stage], weights / CONFIG)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("stage", FILES)
def test_energies_and_forces(weights, golden, stage, dtype):
    system = System.from_geometry(golden["z"], golden["positions"][0], dtype=dtype)
    model = _load(weights, stage).to(dtype)
    positions = torch.tensor(golden["positions"], dtype=dtype)
    _, forces = model(system, positions)
    np.testing.assert_allclose(forces, golden[f"{stage}_forces_eV_A"], rtol=0, atol=3e-5)
    total = model.total_energy(system, positions).detach()
    np.testing.assert_allclose(total, golden[f"{stage}_energy_eV"], rtol=0, atol=5e-3)
    energy_differences = total - total.mean()  # the shift is most of the energy
    expected = golden[f"{stage}_energy_eV"].astype(np.float64)
    np.testing.assert_allclose(energy_differences, expected - expected.mean(), rtol=0, atol=5e-3)


def test_a_published_file_needs_no_package_under_the_name_that_a_package_shares(weights, tmp_path):
    for name in (FILES["qm"], CONFIG):
        shutil.copy(weights / name, tmp_path)
    path = tmp_path / "best_model.pth"
    named, plain = load_force_field(path, model="nequip"), load_force_field(path)
    assert type(named) is NequIP
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in named.state_dict().items())


def test_dynamics_that_skipped_the_scale(weights, golden):
    """In training mode the published code left out the scale, in energies and forces."""
    system = System.from_geometry(golden["z"], golden["positions"][0], dtype=torch.float64)
    model = _load(weights, "qm").double()
    _, forces = model(system, torch.tensor(golden["positions"]))
    scale = golden["scale_by"].item()
    np.testing.assert_allclose(forces / scale, golden["qm_forces_upstream_trainmode_full"], rtol=0, atol=3e-5)
    np.testing.assert_allclose(model.energy_scale, scale)


def test_the_configuration_lies_beside_the_weights(weights, tmp_path):
    shutil.copy(weights / FILES["stable"], tmp_path / "ckpt.pth")
    with pytest.raises(CheckpointError, match=r"ckpt\.pth holds NequIP weights only: put the config\.yaml .* beside"):
        load_force_field(tmp_path / "ckpt.pth")
    shutil.copy(weights / CONFIG, tmp_path / "config.yaml")
    model = load_force_field(tmp_path / "ckpt.pth")
    assert isinstance(model, NequIP)
    assert not model.training
    assert model.species.tolist() == [1, 6, 7, 8]
    assert model.hyperparameters["num_layers"] == 3
    assert model.avg_num_neighbors.item() == pytest.approx(21.352514266967773)


SETTINGS = """\
BesselBasis_trainable: true
PolynomialCutoff_p: 6
avg_num_neighbors: 9.5
chemical_symbols: [O, H]
feature_irreps_hidden: 2x0e+2x1e+2x0o+2x1o
invariant_layers: 2
invariant_neurons: 3
l_max: 1
num_basis: 8
num_features: 2
num_layers: 1
optimizer_kwargs:
  betas: !!python/tuple
  - 0.9
  - 0.999
parity: true
r_max: 4.0
"""


def _state() -> dict[str, torch.Tensor]:
    """The layout of a published checkpoint of one layer."""
    shapes = {
        "radial_basis.basis.bessel_weights": (8,),
        "chemical_embedding.linear.weight": (4,),
        "layer0_convnet.conv.linear_1.weight": (4,),
        "layer0_convnet.conv.fc.layer0.weight": (8, 3),
        "layer0_convnet.conv.fc.layer1.weight": (3, 3),
        "layer0_convnet.conv.fc.layer2.weight": (3, 4),
        "layer0_convnet.conv.linear_2.weight": (2 * 4 + 2 * 2,),
        "layer0_convnet.conv.sc.weight": (2 * 2 * 4,),
        "conv_to_output_hidden.linear.weight": (2,),
        "output_hidden_to_scalar.linear.weight": (1,),
        "per_species_rescale.shifts": (2,),
        "per_species_rescale.scales": (2,),
    }
    state = {f"model.model.func.{name}": torch.randn(shape) for name, shape in shapes.items()}
    return state | {"model.scale_by": torch.tensor(2.0), "model.shift_by": torch.empty(0)}


@pytest.fixture
def files(tmp_path) -> Path:
    torch.save(_state(), tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(SETTINGS)
    return tmp_path


def test_scale_and_shift_are_those_of_the_labels(files):
    state = torch.load(files / "model.pth", weights_only=True)
    model = load_force_field(files / "model.pth")
    assert model.species.tolist() == [1, 8]
    torch.testing.assert_close(model.energy_scale, 2.0 * state["model.model.func.per_species_rescale.scales"])
    shifts = 2.0 * state["model.model.func.per_species_rescale.shifts"].double()
    torch.testing.assert_close(model.reference_energies_eV[model.species], shifts)


def test_shifts_that_differ_are_those_of_elements(files):
    model = load_force_field(files / "model.pth")
    model.check_energy_zero(System.from_geometry(torch.tensor([1]), torch.zeros(1, 3)))


def test_one_shift_for_all_belongs_to_the_molecule_that_the_settings_name(weights):
    model = _load(weights, "qm")
    numbers = torch.tensor([6] * 12 + [1] * 22 + [7] * 4 + [8] * 4)
    for copies in (1, 2):
        model.check_energy_zero(System.from_geometry(numbers.repeat(copies), torch.zeros(42 * copies, 3)))
    with pytest.raises(EnergyZeroError, match="fitted to C12H22N4O4"):
        model.check_energy_zero(System.from_geometry(numbers[1:], torch.zeros(41, 3)))


def test_python_objects_in_the_configuration_are_not_built(files):
    trap = files / "trap"
    tag = f"!!python/object/apply:pathlib.Path.mkdir\n- !!python/object/apply:pathlib.PosixPath ['{trap}']\n"
    (files / "config.yaml").write_text(SETTINGS + f"train_idcs: {tag}")
    load_force_field(files / "model.pth")
    assert not trap.exists()


def test_missing_settings_are_named(files):
    (files / "config.yaml").write_text(SETTINGS.replace("r_max: 4.0\n", ""))
    with pytest.raises(CheckpointError, match=r"config\.yaml does not state the model's r_max"):
        load_force_field(files / "model.pth")


def test_other_variants_are_refused(files):
    (files / "config.yaml").write_text(SETTINGS + "resnet: true\n")
    with pytest.raises(CheckpointError, match=r"config\.yaml: resnet is True, and NequIP here has False only"):
        load_force_field(files / "model.pth")


def test_weights_of_another_shape_are_refused(files):
    (files / "config.yaml").write_text(SETTINGS.replace("invariant_neurons: 3", "invariant_neurons: 4"))
    with pytest.raises(CheckpointError, match=r"weights in .*model\.pth do not fit"):
        load_force_field(files / "model.pth")


def test_other_files_are_refused(tmp_path):
    torch.save({"weights": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is not a published NequIP checkpoint.*weights"):
        read_published_nequip(tmp_path / "other.pt")
