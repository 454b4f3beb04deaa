"""Contract of all force fields: the stress is the derivative of the energy with respect to strain. float64."""

from dataclasses import replace

import pytest
import torch
from force_fields import PARAMETERS, build
from scipy.spatial.transform import Rotation

from mdsim.force_field import ForceField
from mdsim.neighbors import neighbors
from mdsim.state import System
from mdsim.stress import energy_forces_stress

N_REPLICAS = 2
CLOSE = {"rtol": 1e-8, "atol": 1e-11}


@pytest.fixture(params=PARAMETERS)
def force_field(request) -> ForceField:
    return build(request.param)


@pytest.fixture(scope="module")
def crystals() -> tuple[System, torch.Tensor]:
    """Six atoms in a triclinic cell narrower than the cutoff, moved by several lattice vectors."""
    random = torch.Generator().manual_seed(4)
    cell = torch.tensor([[3.9, 0.0, 0.0], [1.2, 3.7, 0.0], [-0.8, 0.9, 3.6]], dtype=torch.float64)
    fractional = torch.cartesian_prod(torch.arange(3) / 3, torch.arange(2) / 2, torch.zeros(1)).double()
    jumps = torch.randint(-2, 3, (N_REPLICAS, 6, 3), generator=random).double()
    rattled = 0.1 * torch.randn(N_REPLICAS, 6, 3, generator=random, dtype=torch.float64)
    numbers = torch.tensor([6, 1, 8, 7, 1, 6])
    system = System.from_geometry(numbers, fractional @ cell, cell, dtype=torch.float64)
    return system, (fractional + jumps) @ cell + rattled


def _scaled(system: System, matrix: torch.Tensor) -> System:
    return replace(system, cell=system.cell @ matrix)


def _volume(system: System) -> torch.Tensor:
    return torch.linalg.det(system.cell).abs()


def test_finite_differences_of_the_energy(force_field, crystals):
    system, positions = crystals
    _, _, stress = energy_forces_stress(force_field, system, positions)
    assert stress.shape == (N_REPLICAS, 3, 3)
    assert stress.abs().amax() > 1e-3, "nothing was tested"
    h = 1e-5
    for i, j in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]:
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[i, j] += 0.5 * h
        strain[j, i] += 0.5 * h
        plus, minus = (torch.eye(3, dtype=torch.float64) + sign * strain for sign in (1, -1))
        with torch.no_grad():
            difference = force_field.energy(_scaled(system, plus), positions @ plus)
            difference -= force_field.energy(_scaled(system, minus), positions @ minus)
        expected = difference / (2 * h * _volume(system))
        torch.testing.assert_close(stress[:, i, j], expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(stress, stress.mT)


def test_energies_and_forces_are_those_of_the_model(force_field, crystals):
    energy, forces, _ = energy_forces_stress(force_field, *crystals)
    for new, old in zip((energy, forces), force_field(*crystals), strict=True):
        torch.testing.assert_close(new, old, **CLOSE)


def test_a_batch_is_its_replicas_one_by_one(force_field, crystals):
    system, positions = crystals
    together = energy_forces_stress(force_field, system, positions)[2]
    alone = [energy_forces_stress(force_field, system, one[None])[2] for one in positions]
    torch.testing.assert_close(together, torch.cat(alone), **CLOSE)


def test_a_broken_replica_leaves_the_others_alone(force_field, crystals):
    system, positions = crystals
    expected = energy_forces_stress(force_field, system, positions)[2]
    broken = positions.clone()
    broken[0, 2] = torch.nan
    stress = energy_forces_stress(force_field, system, broken)[2]
    assert not stress[0].isfinite().any()
    torch.testing.assert_close(stress[1], expected[1], **CLOSE)


def test_rotations_and_wrapping(force_field, crystals):
    system, positions = crystals
    stress = energy_forces_stress(force_field, system, positions)[2]
    turn = -torch.tensor(Rotation.random(random_state=5).as_matrix())
    turned = energy_forces_stress(force_field, _scaled(system, turn.T), positions @ turn.T)[2]
    torch.testing.assert_close(turned, turn @ stress @ turn.T, **CLOSE)
    jumps = torch.randint(-4, 5, positions.shape, generator=torch.Generator().manual_seed(4)).double()
    wrapped = energy_forces_stress(force_field, system, positions + jumps @ system.cell)[2]
    torch.testing.assert_close(wrapped, stress, **CLOSE)


def test_an_isolated_molecule_has_the_virial_of_its_forces(force_field):
    generator = torch.Generator().manual_seed(7)
    bent = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [1.0, 0.0, 0.2]], dtype=torch.float64)
    rest = bent + 0.1 * torch.randn(N_REPLICAS, 3, 3, generator=generator, dtype=torch.float64)
    open_system = System.from_geometry(torch.tensor([1, 8, 6]), bent, dtype=torch.float64)
    wide = replace(open_system, cell=50.0 * torch.eye(3, dtype=torch.float64))
    _, forces, stress = energy_forces_stress(force_field, wide, rest + 25.0)
    virial = -rest.mT @ forces
    assert virial.abs().amax() > 0.01
    torch.testing.assert_close(virial, virial.mT, rtol=1e-8, atol=1e-9)  # no torque
    torch.testing.assert_close(stress * _volume(wide), virial, rtol=1e-8, atol=1e-9)


def test_it_can_be_differentiated_with_respect_to_positions(force_field, crystals):
    system, positions = crystals
    random = torch.Generator().manual_seed(6)
    weights = torch.randn(N_REPLICAS, 3, 3, generator=random, dtype=torch.float64)
    direction = torch.randn(positions.shape, generator=random, dtype=torch.float64)

    def weighted(at: torch.Tensor, **options) -> torch.Tensor:
        return (weights * energy_forces_stress(force_field, system, at, **options)[2]).sum()

    at = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(weighted(at, create_graph=True), at)
    h = 1e-5
    difference = weighted(positions + h * direction) - weighted(positions - h * direction)
    torch.testing.assert_close((gradient * direction).sum(), difference / (2 * h), rtol=1e-5, atol=1e-8)


def test_float32_agrees_with_float64(force_field, crystals):
    system, positions = crystals
    stress = energy_forces_stress(force_field, system, positions)[2]
    single = energy_forces_stress(force_field.float(), system.to(dtype=torch.float32), positions.float())[2]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), stress, rtol=1e-3, atol=1e-4 * float(stress.abs().max()))


def test_mixed_precision_runs(force_field, crystals):
    system, positions = crystals[0].to(dtype=torch.float32), crystals[1].float()
    pairs = neighbors(system, positions, force_field.cutoff)  # in full precision, as in fits
    expected = energy_forces_stress(force_field.float(), system, positions, pairs)[2]
    with torch.autocast("cpu", torch.bfloat16):
        stress = energy_forces_stress(force_field, system, positions, pairs, create_graph=True)[2]
        stress.square().sum().backward()
    assert stress.dtype == torch.float32
    assert (stress - expected).norm() < 0.2 * expected.norm()


def test_nothing_that_goes_in_is_changed(force_field, crystals):
    system, positions = crystals
    results = energy_forces_stress(force_field, system, positions)
    assert not any(tensor.requires_grad for tensor in (*results, positions, system.cell))
    assert all(parameter.grad is None for parameter in force_field.parameters())
