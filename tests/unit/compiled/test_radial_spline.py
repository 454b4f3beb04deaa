"""Radial splines: accuracy of values and derivatives, and SchNet with and without them."""

import copy

import pytest
import torch

from mdsim.compiled import radial_spline
from mdsim.models.schnet.model import SchNet
from mdsim.state import System

pytest.importorskip("numba")
CUTOFF = 5.0


def functions(d: torch.Tensor) -> torch.Tensor:
    """As sharp as the Gaussian basis of SchNet."""
    return torch.stack([torch.exp(-11.5 * (d - center) ** 2) for center in (0.3, 1.4, 2.5, 4.9)], dim=-1)


def test_values_and_two_derivatives() -> None:
    distances = torch.linspace(0.0, CUTOFF, 997).requires_grad_()
    values = functions(radial_spline.knots(CUTOFF))
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])

    def derivatives(value: torch.Tensor, at: torch.Tensor) -> list[torch.Tensor]:
        found = [value @ weights.to(value)]
        for _ in range(2):
            found.append(torch.autograd.grad(found[-1].sum(), at, create_graph=True)[0])
        return found

    exact_at = distances.detach().double().requires_grad_()
    exact = derivatives(functions(exact_at), exact_at)
    found = derivatives(radial_spline.interpolate(distances, values, CUTOFF), distances)
    for order, (a, b) in enumerate(zip(found, exact, strict=True)):
        error = (a.double() - b).abs().max() / b.abs().max()
        assert error < (3e-7, 3e-6, 1e-3)[order], (order, float(error))


def test_gradients_of_the_values_are_the_transpose() -> None:
    generator = torch.Generator().manual_seed(1)
    distances = CUTOFF * torch.rand(500, generator=generator)
    values = torch.randn(len(radial_spline.knots(CUTOFF)), 40, generator=generator, dtype=torch.float64)
    direction = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    seed = torch.randn(500, 40, generator=generator)
    values.requires_grad_()
    interpolated = radial_spline.interpolate(distances, values, CUTOFF)
    (gradient,) = torch.autograd.grad(interpolated, values, seed)
    along = radial_spline.interpolate(distances, direction, CUTOFF)
    torch.testing.assert_close((gradient * direction).sum(), (seed.double() * along.double()).sum())


def test_a_distance_that_is_not_a_number_spoils_no_other() -> None:
    values = functions(radial_spline.knots(CUTOFF))
    found = radial_spline.interpolate(torch.tensor([1.0, torch.nan, 2.0]), values, CUTOFF)
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


@pytest.fixture
def molecules() -> tuple[SchNet, System, torch.Tensor]:
    """A SchNet, and so many distorted hexagons of carbon that interpolation is worthwhile."""
    torch.manual_seed(0)
    angle = torch.arange(6) * torch.pi / 3
    ring = 1.4 * torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=-1)
    positions = ring + 0.1 * torch.randn(200, 6, 3)
    system = System.from_geometry(torch.full((6,), 6), ring)
    return SchNet(species=[6], num_interactions=2), system, positions


def _energies_forces_gradients(model, system, positions) -> list[torch.Tensor]:
    energy, forces = model(system, positions, create_graph=True)
    loss = (energy - 1).square().mean() + forces.square().mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return [energy.detach(), forces.detach(), torch.cat([gradient.reshape(-1) for gradient in gradients])]


def test_schnet_learns_the_same_with_interpolated_filters(molecules, monkeypatch) -> None:
    model, system, positions = molecules
    precise = _energies_forces_gradients(
        copy.deepcopy(model).double(), system.to(dtype=torch.float64), positions.double()
    )
    errors = {}
    for compiled in (True, False):
        monkeypatch.setattr(radial_spline, "HAS_NUMBA", compiled)
        found = _energies_forces_gradients(model, system, positions)
        errors[compiled] = [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, precise, strict=True)]
    assert max(errors[True]) < 1e-5
    assert all(with_spline < 3 * direct + 1e-6 for with_spline, direct in zip(*errors.values(), strict=True)), errors


def test_parameters_that_are_not_learned_are_not_interpolated(molecules, monkeypatch) -> None:
    model, system, positions = molecules

    def refused(*_):
        raise AssertionError("interpolated")

    monkeypatch.setattr(radial_spline, "interpolate", refused)
    model.bind(system)(positions)
    with pytest.raises(AssertionError, match="interpolated"):
        model.energy(system, positions)
