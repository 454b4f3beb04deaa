"""SchNet compared with PyTorch Geometric's, for the same parameters."""

import copy

import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch_geometric.nn.models import SchNet as ReferenceSchNet
from torch_geometric.nn.models.schnet import InteractionBlock as ReferenceBlock

from mdsim.models import SchNet
from mdsim.models.schnet.layers import InteractionBlock
from mdsim.state import System

ARGUMENTS = {"hidden_channels": 32, "num_filters": 24, "num_interactions": 3, "num_gaussians": 15, "cutoff": 4.5}
OWN_BUFFERS = {"species", "energy_shift_eV", "reference_energies_eV", "reference_compositions", "energy_scale"}


@pytest.fixture
def model() -> SchNet:
    torch.manual_seed(11)
    model = SchNet(**ARGUMENTS).double()
    torch.nn.init.normal_(model.lin2.weight, std=4.0)
    return model


def _reference(model: SchNet, edges: torch.Tensor, vectors_of) -> ReferenceSchNet:
    """PyTorch Geometric's SchNet with the same weights, on the given directed edges."""
    reference = ReferenceSchNet(
        **ARGUMENTS, interaction_graph=lambda positions, batch: (edges, vectors_of(positions).norm(dim=-1))
    ).double()
    reference.load_state_dict({name: v for name, v in model.state_dict().items() if name not in OWN_BUFFERS})
    return reference


def _reference_energy_and_forces(model: SchNet, system: System, positions: torch.Tensor):
    cell = None if system.cell is None else system.cell.numpy()
    atoms = Atoms(system.atomic_numbers.numpy(), positions.numpy(), cell=cell, pbc=cell is not None)
    senders, receivers, images = neighbor_list("ijS", atoms, model.cutoff)
    shifts = torch.as_tensor(images @ atoms.cell.array)
    edges = torch.as_tensor([senders.tolist(), receivers.tolist()])
    reference = _reference(model, edges, lambda x: x[edges[1]] - x[edges[0]] + shifts)
    positions = positions.clone().requires_grad_()
    energy = reference(system.atomic_numbers, positions).reshape(1)
    return energy.detach(), -torch.autograd.grad(energy.sum(), positions)[0]


def _compare(model: SchNet, system: System, positions: torch.Tensor) -> None:
    energy, forces = model(system, positions)
    assert forces.abs().mean() > 0.05
    for replica in range(len(positions)):
        expected_energy, expected_forces = _reference_energy_and_forces(model, system, positions[replica])
        torch.testing.assert_close(energy[replica : replica + 1], expected_energy, rtol=0, atol=1e-10)
        torch.testing.assert_close(forces[replica], expected_forces, rtol=0, atol=1e-10)


def test_layers_have_the_names_and_the_initial_values_of_the_reference():
    torch.manual_seed(1)
    own, after = InteractionBlock(16, 10, 12), torch.rand(1)
    torch.manual_seed(1)
    reference, after_reference = ReferenceBlock(16, 10, 12, 5.0), torch.rand(1)
    assert list(own.state_dict()) == list(reference.state_dict())
    assert [name for name, _ in own.named_parameters()] == [name for name, _ in reference.named_parameters()]
    for name, value in reference.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name
    assert torch.equal(after, after_reference), "later layers have the same random numbers as well"


def test_equals_the_reference_on_a_molecule(model, aspirin, aspirin_geometry, generator):
    positions = torch.tensor(aspirin_geometry[1]) + 0.1 * torch.randn(
        3, 21, 3, generator=generator, dtype=torch.float64
    )
    _compare(model, aspirin, positions)


def test_equals_the_reference_in_a_narrow_triclinic_cell(model, generator):
    cell = torch.tensor([[4.1, 0, 0], [1.5, 3.9, 0], [-0.8, 1.2, 5.2]], dtype=torch.float64)
    positions = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64) @ cell
    system = System.from_geometry(torch.tensor([6, 1, 8, 8, 1]), positions[0], cell, dtype=torch.float64)
    _compare(model, system, positions)


def test_more_than_32_neighbors_are_all_counted(model, generator):
    system = System.from_geometry(torch.full((60,), 6), torch.zeros(60, 3), dtype=torch.float64)
    positions = 4.0 * torch.rand(1, 60, 3, generator=generator, dtype=torch.float64)
    _compare(model, system, positions)


def test_parameters_are_those_of_the_reference(model):
    reference = ReferenceSchNet(**ARGUMENTS)
    ours = {name: value.shape for name, value in model.named_parameters()}
    assert ours == {name: value.shape for name, value in reference.named_parameters()}
    assert model.state_dict().keys() - OWN_BUFFERS == reference.state_dict().keys()


def test_the_filter_network_stays_shared(model):
    for block in copy.deepcopy(model).float().interactions:
        assert block.conv.nn is block.mlp


def test_initial_weights_follow_the_reference():
    torch.manual_seed(0)
    ours = SchNet(**ARGUMENTS)
    reference = ReferenceSchNet(**ARGUMENTS)
    for (name, value), expected in zip(ours.named_parameters(), reference.parameters(), strict=True):
        size, expected_size = value.square().mean().sqrt(), expected.square().mean().sqrt()
        torch.testing.assert_close(size, expected_size, rtol=0.25, atol=0.0, msg=name)


def test_the_scale_multiplies_energies_and_forces(model, aspirin, aspirin_geometry):
    positions = torch.tensor(aspirin_geometry[1])[None]
    energy, forces = model(aspirin, positions)
    model.energy_scale.fill_(2.5)
    scaled_energy, scaled_forces = model(aspirin, positions)
    torch.testing.assert_close(scaled_energy, 2.5 * energy)
    torch.testing.assert_close(scaled_forces, 2.5 * forces)


def test_the_shift_stays_in_float64():
    model = SchNet(**ARGUMENTS, energy_shift_eV=-17637.827343506295)
    for moved in (model.float(), model.half(), model.to("cpu", torch.float32), model.double()):
        assert moved.energy_shift_eV.dtype == torch.float64
        assert moved.energy_shift_eV.item() == -17637.827343506295
        assert moved.state_dict()["energy_shift_eV"].dtype == torch.float64


def test_hyperparameters_rebuild_the_model(model, aspirin, aspirin_geometry):
    again = SchNet(**model.hyperparameters).double()
    again.load_state_dict(model.state_dict())
    positions = torch.tensor(aspirin_geometry[1])[None]
    assert torch.equal(again.energy(aspirin, positions), model.energy(aspirin, positions))
