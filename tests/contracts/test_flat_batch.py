"""Contract of all force fields: structures evaluated in one call have the values of each alone. float64."""

import pytest
import torch
from force_fields import PARAMETERS, build

from mdsim.flat_batch import FlatBatch, evaluate
from mdsim.force_field import ForceField
from mdsim.state import System
from mdsim.stress import energy_forces_stress

CLOSE = {"rtol": 1e-9, "atol": 1e-10}
PERIODIC = (1, 3, 4)  # of the structures below


def _structure(
    numbers: list[int], cell: list[list[float]] | None, seed: int, spacing: float = 1.1
) -> tuple[System, torch.Tensor]:
    """Atoms on a rattled grid, moved by lattice vectors where there are some."""
    generator = torch.Generator().manual_seed(seed)
    grid = spacing * torch.cartesian_prod(*[torch.arange(3)] * 3)[: len(numbers)].double()
    positions = grid + 0.1 * torch.randn(len(numbers), 3, generator=generator, dtype=torch.float64)
    lattice = None if cell is None else torch.tensor(cell, dtype=torch.float64)
    system = System.from_geometry(torch.tensor(numbers), positions, lattice, torch.float64)
    if lattice is not None:
        positions = positions + torch.randint(-2, 3, positions.shape, generator=generator).double() @ lattice
    return system, positions


@pytest.fixture(scope="module")
def structures() -> list[tuple[System, torch.Tensor]]:
    """Molecules and crystals of several compositions, one of them a single atom, two of them in narrow cells."""
    narrow = [[3.9, 0.0, 0.0], [1.2, 3.7, 0.0], [-0.8, 0.9, 3.6]]
    wide = [[9.0, 0.0, 0.0], [0.0, 8.5, 0.0], [1.0, 0.0, 9.5]]
    return [
        _structure([6, 1, 1, 8, 1], None, seed=1),
        _structure([6, 1, 8, 7, 1, 6], narrow, seed=2),
        _structure([8], None, seed=3),
        _structure([8, 1, 1, 7, 6, 1, 1], wide, seed=4),
        _structure([7, 1, 6, 8], [[4.0, 0.0, 0.0], [0.0, 3.8, 0.3], [0.0, 0.0, 4.1]], seed=5),
        _structure([1, 6, 1, 8, 1], None, seed=6),
    ]


@pytest.fixture(params=PARAMETERS)
def force_field(request) -> ForceField:
    return build(request.param)


def _batch(force_field: ForceField, structures) -> FlatBatch:
    systems, positions = zip(*structures, strict=True)
    return FlatBatch.of(systems, positions, force_field.cutoff)


def test_energies_and_forces_of_each_structure(force_field, structures):
    found = evaluate(force_field, _batch(force_field, structures))
    alone = [force_field(system, positions[None], create_graph=True) for system, positions in structures]
    torch.testing.assert_close(found.energy, torch.cat([energy for energy, _ in alone]), **CLOSE)
    torch.testing.assert_close(found.forces, torch.cat([forces[0] for _, forces in alone]), **CLOSE)
    assert found.stress is None
    assert found.forces.abs().max() > 0.1 and found.energy.std() > 0.01, "nothing was tested"


def test_stresses_of_each_periodic_structure(force_field, structures):
    found = evaluate(force_field, _batch(force_field, structures), with_stress=True)
    assert found.stress is not None
    alone = [energy_forces_stress(force_field, structures[i][0], structures[i][1][None])[2][0] for i in PERIODIC]
    torch.testing.assert_close(found.stress[list(PERIODIC)], torch.stack(alone), **CLOSE)
    assert torch.stack(alone).abs().max() > 1e-3, "nothing was tested"
    is_open = [i for i in range(len(structures)) if i not in PERIODIC]
    assert found.stress[is_open].isnan().all()


def _loss(energy, forces, stress) -> torch.Tensor:
    """Some function of everything, different for each structure."""
    weights = torch.arange(1.0, len(energy) + 1, dtype=energy.dtype)
    of_forces = sum(weight * one.square().sum() for weight, one in zip(weights, forces, strict=True))
    return (weights * energy).sum() + of_forces + 10 * sum(stress[i].square().sum() for i in PERIODIC)


def test_parameter_gradients(force_field, structures):
    batch = _batch(force_field, structures)
    found = evaluate(force_field, batch, create_graph=True, with_stress=True)
    forces = found.forces.split(batch.n_atoms.tolist())
    together = torch.autograd.grad(_loss(found.energy, forces, found.stress), force_field.trainable_parameters)
    energies, forces, stresses = [], [], {}
    for i, (system, positions) in enumerate(structures):
        if i in PERIODIC:
            energy, force, stress = energy_forces_stress(force_field, system, positions[None], create_graph=True)
            stresses[i] = stress[0]
        else:
            energy, force = force_field(system, positions[None], create_graph=True)
        energies.append(energy)
        forces.append(force[0])
    alone = torch.autograd.grad(_loss(torch.cat(energies), forces, stresses), force_field.trainable_parameters)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9 * float(other.abs().max()) + 1e-12)
    assert max(float(gradient.abs().max()) for gradient in alone) > 1.0, "nothing was tested"


def test_the_order_of_structures_does_not_matter(force_field, structures):
    found = evaluate(force_field, _batch(force_field, structures), with_stress=True)
    backward = evaluate(force_field, _batch(force_field, structures[::-1]), with_stress=True)
    torch.testing.assert_close(backward.energy.flip(0), found.energy, **CLOSE)
    torch.testing.assert_close(backward.stress.flip(0), found.stress, equal_nan=True, **CLOSE)


def test_nothing_that_goes_in_is_changed(force_field, structures):
    batch = _batch(force_field, structures)
    found = evaluate(force_field, batch, with_stress=True)
    tensors = (found.energy, found.forces, found.stress, batch.positions, batch.pairs.shift)
    assert not any(tensor.requires_grad for tensor in tensors)
    assert all(parameter.grad is None for parameter in force_field.parameters())
