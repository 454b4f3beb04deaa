"""Several systems of different atoms in one call, compared with each of them alone. float64."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from force_fields import PARAMETERS, build

from mdsim.export.batch import Batch
from mdsim.flat_batch import joined
from mdsim.force_field import ForceField
from mdsim.neighbors import neighbors
from mdsim.state import System
from mdsim.stress import atomic_energies_forces_stress

CLOSE = {"rtol": 1e-10, "atol": 1e-11}


class Uniform(ForceField):
    """An energy that no pair of atoms has: of the volume per atom, in the harmonic potential of the center."""

    def __init__(self) -> None:
        super().__init__(cutoff=3.0)
        self.stiffness = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        energy = self.stiffness * (positions - positions.mean(1, keepdim=True)).square().sum(-1)
        return energy if system.cell is None else energy + torch.linalg.det(system.cell).abs() / system.n_atoms**2


@pytest.fixture(params=[*PARAMETERS, "uniform"])
def force_field(request) -> ForceField:
    model = Uniform() if request.param == "uniform" else build(request.param)
    return model.requires_grad_(False)


def _systems(images: list[Atoms]) -> list[System]:
    cells = [image.cell.array if image.pbc.all() else None for image in images]
    return [
        System.from_geometry(image.numbers, image.positions, cell, torch.float64)
        for image, cell in zip(images, cells, strict=True)
    ]


@pytest.fixture(params=["molecules", "crystals"])
def images(request) -> list[Atoms]:
    if request.param == "molecules":
        found = [molecule(name) for name in ("H2O", "CH3CH2OH", "N2", "H2O")]
    else:
        cell = torch.tensor([[3.9, 0.0, 0.0], [1.2, 3.7, 0.0], [-0.8, 0.9, 3.6]], dtype=torch.float64).numpy()
        fractional = torch.cartesian_prod(torch.arange(3) / 3, torch.arange(2) / 2, torch.zeros(1)).double().numpy()
        scales = (1.0, 1.3, 1.1)
        elements = ([6, 1, 8, 7, 1, 6], [1, 8, 1, 6], [7, 7, 6, 1, 8])
        found = [
            Atoms(z, fractional[: len(z)] @ (scale * cell), cell=scale * cell, pbc=True)
            for z, scale in zip(elements, scales, strict=True)
        ]
    for number, atoms in enumerate(found):
        atoms.rattle(0.06, seed=number)
    return found


def _cells(images: list[Atoms]) -> torch.Tensor | None:
    return torch.stack([torch.tensor(a.cell.array) for a in images]) if images[0].pbc.all() else None


def _positions(images: list[Atoms]) -> torch.Tensor:
    return torch.cat([torch.tensor(atoms.positions) for atoms in images])


def _check(force_field: ForceField, batch: Batch, systems: list[System], positions, cells) -> None:
    results = batch(positions, cells)
    assert (results.stress is None) == (cells is None)
    assert results.forces.abs().max() > 1e-3, "nothing was tested"
    for number, (system, x) in enumerate(zip(systems, positions.split(batch.sizes), strict=True)):
        own = batch.owners == number
        if cells is None:
            pairs = neighbors(system, x[None], force_field.cutoff)
            x = x[None].clone().requires_grad_()
            atomic = force_field.atomic_energies(system, x, pairs)
            forces = -torch.autograd.grad(atomic.sum(), x)[0]
        else:
            system = replace(system, cell=cells[number])
            pairs = neighbors(system, x[None], force_field.cutoff)
            atomic, forces, stress = atomic_energies_forces_stress(force_field, system, x[None], pairs)
            torch.testing.assert_close(results.stress[number], stress[0], **CLOSE)
        torch.testing.assert_close(results.atomic[own], atomic[0].detach(), **CLOSE)
        torch.testing.assert_close(results.forces[own], forces[0], **CLOSE)


def test_each_system_is_as_alone_while_atoms_and_cells_move(force_field, images):
    systems, positions, cells = _systems(images), _positions(images), _cells(images)
    batch = Batch(force_field, systems)
    random = torch.Generator().manual_seed(1)
    for step in range(3):
        _check(force_field, batch, systems, positions, cells)
        positions = positions + 0.15 * torch.randn(positions.shape, generator=random, dtype=torch.float64)
        cells = None if cells is None else cells * (1.0 - 0.02 * step)


def test_only_systems_that_moved_are_searched_again(images):
    systems, positions, cells = _systems(images), _positions(images), _cells(images)
    batch = Batch(build("schnet").requires_grad_(False), systems, skin=0.5)
    batch(positions, cells)
    assert batch.pairs.searched == len(systems)
    batch(positions + 0.05, cells)
    assert batch.pairs.searched == len(systems)
    moved = positions.clone()
    moved[batch.owners == 1] += 0.4
    batch(moved, cells)
    assert batch.pairs.searched == len(systems) + 1
    if cells is not None:
        changed = cells.clone()
        changed[2] *= 1.01
        batch(moved, changed)
        assert batch.pairs.searched == len(systems) + 2


def test_an_atom_that_is_not_finite_leaves_other_systems_alone(images):
    systems, positions, cells = _systems(images), _positions(images), _cells(images)
    batch = Batch(build("schnet").requires_grad_(False), systems)
    expected = batch(positions, cells)
    broken = positions.clone()
    broken[0] = torch.nan
    results = batch(broken, cells)
    others = batch.owners > 0
    torch.testing.assert_close(results.forces[others], expected.forces[others], **CLOSE)
    assert not results.atomic[0].isfinite()


def test_joined_systems_keep_bonds_and_molecules_apart():
    water, ethanol = _systems([molecule("H2O"), molecule("CH3CH2OH")])
    both = joined([water, ethanol, water])
    assert both.n_molecules == 3
    assert len(both.bonds) == 2 + 8 + 2
    assert bool((both.molecules[both.bonds[:, 0]] == both.molecules[both.bonds[:, 1]]).all())
    assert both.molecules.tolist() == [0] * 3 + [1] * 9 + [2] * 3
