"""What is particular to metatomic: programs of models of this package give back these models, with their gradients."""

import copy
from pathlib import Path

import ase.build
import foreign
import pytest
import torch
from ase import Atoms
from force_fields import build

from mdsim.checkpoints import read
from mdsim.errors import CheckpointError, ConfigError
from mdsim.force_field import ForceField
from mdsim.models import load_force_field
from mdsim.models.saving import save_force_field, save_native
from mdsim.state import System

pytestmark = pytest.mark.skipif("metatomic" not in foreign.INSTALLED, reason="metatomic-torch is not installed")


@pytest.fixture(scope="module", params=["schnet", pytest.param("nequip_l2_parity", marks=pytest.mark.slow)])
def models(request, tmp_path_factory) -> tuple[ForceField, ForceField, Path]:
    """A model of this package, the same one from its program, and that file."""
    own, path = build(request.param), tmp_path_factory.mktemp("metatomic") / "model.pt"
    foreign.write_metatomic(path, own)
    return own, load_force_field(path, model="metatomic", allow_unpickling=True), path


def _case(atoms: Atoms) -> tuple[System, torch.Tensor]:
    cell = atoms.cell.array if atoms.pbc.all() else None
    system = System.from_geometry(atoms.numbers, atoms.positions, cell, torch.float64)
    generator = torch.Generator().manual_seed(1)
    noise = 0.1 * torch.randn(3, *atoms.positions.shape, generator=generator, dtype=torch.float64)
    return system, torch.tensor(atoms.positions) + noise


@pytest.mark.parametrize("atoms", [ase.build.molecule("CH3CH2OH"), ase.build.bulk("C", cubic=True)], ids=str)
def test_energies_forces_and_parameter_gradients_are_those_of_the_model(models, atoms):
    own, found, _ = models
    system, positions = _case(atoms)
    along = torch.randn(positions.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = []
    for model in (own, found):
        energy, forces = model(system, positions, create_graph=True)
        (energy.sum() + (along * forces).sum()).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    total, expected = found.total_energy(system, positions), own.total_energy(system, positions)
    torch.testing.assert_close(total, expected, rtol=1e-14, atol=1e-11)
    torch.testing.assert_close(found(system, positions)[1], own(system, positions)[1], rtol=0, atol=1e-11)
    assert len(gradients[0]) == len(gradients[1])
    for name, gradient in gradients[0].items():
        (same,) = (value for other, value in gradients[1].items() if other.endswith(f"force_field.{name}"))
        assert gradient.abs().max() > 0
        torch.testing.assert_close(same, gradient, rtol=1e-9, atol=1e-10, msg=name)


def test_copies_are_trained_on_their_own(models):
    system, positions = _case(ase.build.molecule("CH3CH2OH"))
    _, found, _ = models
    before = found(system, positions)[1]
    copied = copy.deepcopy(found)
    copied(system, positions, create_graph=True)[1].square().sum().backward()
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in copied.parameters())
    assert all(parameter.grad is None for parameter in found.parameters())
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.1)
    assert torch.equal(found(system, positions)[1], before) and not torch.equal(copied(system, positions)[1], before)


def test_the_precision_of_the_program_stays(models):
    system, positions = _case(ase.build.molecule("CH3CH2OH"))
    _, found, _ = models
    single = copy.deepcopy(found).float()
    assert {parameter.dtype for parameter in single.parameters()} == {torch.float64}
    energy, forces = single(system.to(dtype=torch.float32), positions.float())
    assert energy.dtype == forces.dtype == torch.float32
    torch.testing.assert_close(forces.double(), found(system, positions)[1], rtol=1e-5, atol=1e-4)


def test_a_checkpoint_needs_the_program(models, tmp_path):
    _, found, path = models
    moved = tmp_path / "model.pt"
    moved.write_bytes(path.read_bytes())
    save_force_field(load_force_field(moved, model="metatomic", allow_unpickling=True), tmp_path / "checkpoint.pt")
    assert read(tmp_path / "checkpoint.pt")["model"]["file"] == str(moved.resolve())
    save_native(found, tmp_path / "model.pt")  # another program
    with pytest.raises(ConfigError, match=r"model\.pt: is missing or has changed.*put it back"):
        load_force_field(tmp_path / "checkpoint.pt")


def test_a_program_without_its_model_says_so(models):
    with pytest.raises(CheckpointError, match=r"model\.pt.*; if it is a file of another package.*such as metatomic"):
        load_force_field(models[2])


def test_weights_alone_are_not_taken_for_a_program(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.pt")
    with pytest.raises(CheckpointError) as error:
        load_force_field(tmp_path / "linear.pt")
    assert "metatomic" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"linear\.pt: metatomic cannot read it"):
        load_force_field(tmp_path / "linear.pt", model="metatomic", allow_unpickling=True)
