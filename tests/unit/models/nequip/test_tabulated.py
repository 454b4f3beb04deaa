"""The tabulated path gives the plain path's energies and forces, conserves energy, and keeps replicas apart."""

import copy

import pytest
import torch

pytest.importorskip("numba")

from mdsim.force_field import NoFastPath
from mdsim.models.nequip.fast.tables import tabulate
from mdsim.models.nequip.fast.tabulated import TabulatedNequIP
from mdsim.models.nequip.fast.vectors import KNOTS
from mdsim.models.nequip.model import NequIP


@pytest.fixture(scope="module")
def model() -> NequIP:
    torch.manual_seed(3)
    model = NequIP((1, 6, 8), l_max=2, num_layers=3, num_features=8, radial_mlp_width=16)
    model.avg_num_neighbors.fill_(14.0)
    model.energy_scale.fill_(30.0)
    return model.eval()


def test_equals_the_plain_path_within_float32_rounding(model, errors_of_rounding):
    exact = copy.deepcopy(model).double()
    (energy, forces), (rounding_energy, rounding_forces) = errors_of_rounding(model, exact)
    assert energy < 5 * rounding_energy + 1e-6
    assert forces < 5 * rounding_forces + 1e-5


def test_the_splines_are_finer_than_that(model):
    """Weights and their derivatives, between the knots, against the radial network in float64."""
    precise = copy.deepcopy(model).double()
    distances = torch.linspace(0.5, model.cutoff - 1e-6, 997, dtype=torch.float64)
    place = distances * (KNOTS / model.cutoff)
    t, powers = place.frac(), torch.arange(6.0, dtype=torch.float64)
    for layer in precise.layers:
        exact, slope = torch.func.jvp(
            lambda d, layer=layer: layer.convolution.radial_network(precise.radial_basis(d)),
            (distances,),
            (torch.ones_like(distances),),
        )
        coefficients = tabulate(precise, layer.convolution)[place.long()]
        value = (coefficients * (t[:, None] ** powers)[..., None]).sum(1)
        derivative = (coefficients[:, 1:] * (powers[1:] * t[:, None] ** powers[:-1])[..., None]).sum(1)
        assert (value - exact).abs().max() < 1e-7 * exact.abs().max()
        assert (derivative * (KNOTS / model.cutoff) - slope).abs().max() < 3e-6 * slope.abs().max()


def test_bind_takes_it_when_asked(model, system):
    assert isinstance(model.bind(system, fast=True), TabulatedNequIP)
    assert not isinstance(model.bind(system), TabulatedNequIP)
    assert not isinstance(model.bind(system, differentiable=True, fast=True), TabulatedNequIP)
    with pytest.raises(NoFastPath, match="the model is in"):
        model.fast_potential(system.to(dtype=torch.float64))
    with pytest.raises(NoFastPath, match="above the tolerance"):
        model.fast_potential(system, tolerance=1e-14)


def test_parameters_are_frozen_at_the_time_of_binding(model, system, positions):
    trained = copy.deepcopy(model)
    potential = trained.fast_potential(system)
    energy, _ = potential(positions)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.5)
    assert torch.equal(potential(positions)[0], energy)


def test_broken_replica_is_not_finite_and_touches_no_other(model, system, positions):
    potential = model.fast_potential(system)
    energy, forces = potential(positions)
    broken = positions.clone()
    broken[2, 4] = torch.nan
    broken[3] *= 1e6
    broken_energy, broken_forces = potential(broken)
    assert broken_energy[2].isnan() and broken_forces[2, 4].isnan().all()
    assert torch.equal(broken_energy[[0, 1, 4]], energy[[0, 1, 4]])
    assert torch.equal(broken_forces[[0, 1, 4]], forces[[0, 1, 4]])


def test_conserves_energy_as_well_as_the_plain_path(model, system, energy_fluctuation):
    fast, plain = (energy_fluctuation(bound, 2, 60) for bound in (model.fast_potential(system), model.bind(system)))
    assert fast < 1.1 * plain + 2e-5


def test_same_bits_every_time(model, system, positions):
    potential = model.fast_potential(system)
    for first, second in zip(potential(positions), potential(positions), strict=True):
        assert torch.equal(first, second)
