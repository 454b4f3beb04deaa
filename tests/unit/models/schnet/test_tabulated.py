"""The tabulated path gives the plain path's energies and forces, conserves energy, and keeps replicas apart."""

import copy
import re

import pytest
import torch

pytest.importorskip("numba")

from mdsim.force_field import NoFastPath
from mdsim.models.schnet.fast.tabulated import TabulatedSchNet
from mdsim.models.schnet.model import SchNet
from mdsim.state import System


@pytest.fixture(scope="module")
def model() -> SchNet:
    torch.manual_seed(3)
    model = SchNet(hidden_channels=32, num_filters=24, num_interactions=3, num_gaussians=25, energy_scale=1.7)
    with torch.no_grad():  # biases are zero at first, and would hide mistakes
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
    return model.eval()


def test_equals_the_plain_path_within_float32_rounding(model, errors_of_rounding):
    exact = SchNet(**model.hyperparameters, energy_scale=1.7).double()
    exact.load_state_dict(model.state_dict())
    (energy, forces), (rounding_energy, rounding_forces) = errors_of_rounding(model, exact)
    assert energy < 5 * rounding_energy + 1e-6
    assert forces < 5 * rounding_forces + 1e-5


def test_bind_takes_it_when_asked(model, system):
    assert isinstance(model.bind(system, fast=True), TabulatedSchNet)
    assert not isinstance(model.bind(system), TabulatedSchNet)
    assert not isinstance(model.bind(system, differentiable=True, fast=True), TabulatedSchNet)


def test_plain_path_where_it_does_not_apply(model, system):
    with pytest.raises(NoFastPath, match=r"model is in torch\.float32, the system in torch\.float64"):
        model.fast_potential(system.to(dtype=torch.float64))
    with pytest.raises(NoFastPath, match=r"in float32, not in torch\.float64"):
        copy.deepcopy(model).double().fast_potential(system.to(dtype=torch.float64))


def test_the_tolerance_bounds_the_error_of_the_filters(model, system, caplog):
    error = float(re.search(r"error (\S+)\)", model.fast_potential(system).description).group(1))
    assert 0 < error < 1e-6
    with pytest.raises(NoFastPath, match="above the tolerance"):
        model.fast_potential(system, error / 10)
    caplog.set_level("INFO", logger="mdsim")
    for _ in range(2):
        assert not isinstance(model.bind(system, fast=True, tolerance=error / 10), TabulatedSchNet)
    assert len(caplog.messages) == 1 and "plain path" in caplog.text and "above the tolerance" in caplog.text
    assert isinstance(model.bind(system, fast=True), TabulatedSchNet)
    assert "tabulated filters" in caplog.messages[-1]


@pytest.mark.parametrize("triclinic", [False, True])
def test_periodic_systems_equal_the_plain_path(model, generator, triclinic):
    """A gas in a cell so narrow that pairs meet through several images, with atoms that have wandered across cells."""
    cell = torch.diag(torch.tensor([9.0, 11.3, 13.1], dtype=torch.float64))
    if triclinic:
        cell[1, 0], cell[2, 1] = 3.0, -4.0
    fractional = torch.rand(3, 60, 3, dtype=torch.float64, generator=generator)
    wandered = (fractional + torch.randint(-3, 4, (3, 60, 3), generator=generator)) @ cell
    system = System(
        torch.tensor([8, 1, 1]).repeat(20),
        torch.ones(60, dtype=torch.float64),
        cell,
        torch.empty(0, 2, dtype=torch.long),
        torch.arange(60),
    )
    exact = SchNet(**model.hyperparameters, energy_scale=1.7).double()
    exact.load_state_dict(model.state_dict())
    single = system.to(dtype=torch.float32)
    potential = model.bind(single, fast=True)
    assert isinstance(potential, TabulatedSchNet)
    for moved in (0.0, 0.03, 2.0):  # within the skin, and beyond it
        positions = (wandered + moved * torch.randn(wandered.shape, generator=generator).double()).float()
        expected, found, plain = exact(system, positions.double()), potential(positions), model(single, positions)
        for i in range(2):
            rounding = (plain[i].double() - expected[i]).abs().max()
            assert (found[i].double() - expected[i]).abs().max() < 5 * rounding + 1e-5
        assert expected[1].abs().max() > 0.1
    assert potential.neighbor_list.builds == 2


def test_broken_replica_is_not_finite_and_touches_no_other(model, system, positions):
    potential = model.fast_potential(system)
    energy, forces = potential(positions)
    broken = positions.clone()
    broken[2, 4] = torch.nan
    broken[3] *= 1e6
    broken_energy, broken_forces = potential(broken)
    assert broken_energy[2].isnan() and broken_forces[2].isnan().all()
    assert torch.equal(broken_energy[[0, 1, 4]], energy[[0, 1, 4]])
    assert torch.equal(broken_forces[[0, 1, 4]], forces[[0, 1, 4]])


def test_forces_are_the_gradient_of_the_same_spline(model, system, positions, generator):
    """Along a random direction, by central differences wide enough for float32."""
    potential = model.fast_potential(system)
    direction = torch.randn(positions.shape, generator=generator)
    step = 2e-2 / direction.norm(dim=(1, 2), keepdim=True)
    ahead, behind = potential(positions + step * direction)[0], potential(positions - step * direction)[0]
    slope = (ahead.double() - behind.double()) / (2 * step[:, 0, 0].double())
    expected = -(potential(positions)[1].double() * direction).sum((1, 2))
    torch.testing.assert_close(slope, expected, rtol=2e-3, atol=2e-3)


def test_conserves_energy_as_well_as_the_plain_path(model, system, energy_fluctuation):
    fast, plain = (energy_fluctuation(bound, 4, 200) for bound in (model.fast_potential(system), model.bind(system)))
    assert fast < 1.1 * plain + 2e-5


def test_same_bits_every_time_and_for_any_batch(model, system, positions):
    potential = model.fast_potential(system)
    first, second = potential(positions), potential(positions)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    alone = potential(positions[1:2])
    assert torch.equal(alone[1][0], first[1][1])
