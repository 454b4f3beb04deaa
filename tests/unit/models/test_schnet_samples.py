"""Energies of many fixed structures: those of the plain path, with its gradient in every parameter."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("numba")

from mdsim.models import schnet_samples
from mdsim.models.schnet import SchNet
from mdsim.neighbors import neighbors


@pytest.fixture
def model() -> SchNet:
    torch.manual_seed(3)
    model = SchNet(hidden_channels=32, num_filters=24, num_interactions=3, energy_scale=1.7)
    with torch.no_grad():  # biases are zero at first, and would hide mistakes
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
    return model


@pytest.fixture
def samples(positions, generator) -> torch.Tensor:
    moved = positions.repeat(10, 1, 1)
    return moved + 0.05 * torch.randn(moved.shape, generator=generator)


@pytest.mark.parametrize("periodic", [False, True])
def test_energies_and_gradients_of_the_plain_path(model, system, samples, periodic, monkeypatch):
    if periodic:
        system = replace(system, cell=torch.diag(torch.tensor([10.5, 11.0, 12.0])))
    taken = []
    quick = schnet_samples.atomic_energies
    monkeypatch.setattr(schnet_samples, "atomic_energies", lambda *a: taken.append(True) or quick(*a))
    found = model.sampled_atomic_energies(system, samples)
    assert taken, "the quick path was not chosen"
    exact = SchNet(**model.hyperparameters, energy_scale=1.7).double()
    exact.load_state_dict(model.state_dict())
    double = system.to(dtype=torch.float64)
    expected = exact.atomic_energies(double, samples.double(), neighbors(double, samples.double(), model.cutoff))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)

    coefficients = torch.linspace(-1, 2, found.numel()).reshape(found.shape)
    of_found = torch.autograd.grad((coefficients * found).sum(), model.parameters())
    of_expected = torch.autograd.grad((coefficients.double() * expected).sum(), exact.parameters())
    names = [name for name, _ in model.named_parameters()]
    for name, gradient, reference in zip(names, of_found, of_expected, strict=True):
        error = float((gradient.double() - reference).norm() / reference.norm())
        assert error < 2e-5, f"{name}: {error:.1e}"


def test_few_structures_take_the_plain_path(model, system, positions):
    few = positions[:1]
    plain = model.atomic_energies(system, few, neighbors(system, few, model.cutoff))
    assert torch.equal(model.sampled_atomic_energies(system, few), plain)


def test_the_gradient_does_not_depend_on_the_number_of_threads(model, system, samples):
    gradients = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            energies = model.sampled_atomic_energies(system, samples)
            gradients.append(torch.autograd.grad(energies.sum(), model.interactions[0].mlp[0].weight)[0])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
