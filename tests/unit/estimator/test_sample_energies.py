"""Samples of the estimators: structures and neighborhoods."""

import pytest
import torch

from mdsim.estimator.sample_energies import closest_molecules, local_energies, neighborhood_energies, structure_energies
from mdsim.force_field import ForceField
from mdsim.state import System


class SquaredDistances(ForceField):
    """Half of the squared distances within the cutoff goes to each atom of the pair."""

    def __init__(self) -> None:
        super().__init__(cutoff=3.0)
        self.strength = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.structures_seen = 0

    def atomic_energies(self, system, positions, neighbors):
        self.structures_seen += len(positions)
        each = 0.5 * self.strength * neighbors.displacements(positions).square().sum(-1)
        atoms = positions.new_zeros(positions[..., 0].numel())
        atoms = atoms.index_add(0, neighbors.first, each).index_add(0, neighbors.second, each)
        return atoms.reshape(positions.shape[:2])


@pytest.fixture
def dimers() -> tuple[System, torch.Tensor]:
    """Three hydrogen molecules in a row in a periodic box of 12 Å, and two jittered copies of them."""
    x = torch.tensor([0.5, 1.2, 4.5, 5.2, 10.5, 11.2], dtype=torch.float64)
    positions = torch.zeros(6, 3, dtype=torch.float64)
    positions[:, 0] = x
    system = System.from_geometry(torch.ones(6, dtype=torch.long), positions, 12 * torch.eye(3), torch.float64)
    jitter = 0.05 * torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return system, positions + jitter


def test_local_energies_sum_the_members():
    energies = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, torch.nan]])
    membership = torch.tensor([[True, False, True], [True, True, False]])
    assert local_energies(energies, membership).tolist() == [5.0, 24.0]  # what is outside never enters


def test_structure_energies_are_total_energies(dimers):
    system, positions = dimers
    model = SquaredDistances()
    energies = structure_energies(model, system, positions)(torch.tensor([1, 0, 1]))
    torch.testing.assert_close(energies, model.energy(system, positions)[[1, 0, 1]])


def test_neighborhood_energies_evaluate_each_structure_once(dimers):
    system, positions = dimers
    model = SquaredDistances()
    frames = torch.tensor([0, 0, 0, 1, 1])
    molecule = torch.tensor([0, 1, 2, 2, 0])
    membership = system.molecules == molecule[:, None]
    energy = neighborhood_energies(model, system, positions, frames, membership)
    found = energy(torch.arange(5))
    assert model.structures_seen == 2
    frame_zero = structure_energies(model, system, positions)(torch.tensor([0]))
    torch.testing.assert_close(found[:3].sum()[None], frame_zero)
    torch.testing.assert_close(energy(torch.tensor([4, 1])), found[[4, 1]])
    assert found.requires_grad


def test_closest_molecules_across_the_boundary(dimers):
    system, positions = dimers
    assert system.molecules.tolist() == [0, 0, 1, 1, 2, 2]
    samples = positions[[0, 1]]
    alone = closest_molecules(system, samples, torch.tensor([0, 3]), 1)
    assert alone.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]
    pair = closest_molecules(system, samples, torch.tensor([0, 3]), 2)
    # The last molecule is 1.3 Å from the first through the boundary, the middle one 3.3 Å.
    assert pair.int().tolist() == [[1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0]]
    assert closest_molecules(system, samples, torch.tensor([0, 3]), 3).all()


def test_more_molecules_than_there_are(dimers):
    with pytest.raises(ValueError, match="between 1 and the 3 molecules"):
        closest_molecules(dimers[0], dimers[1], torch.tensor([0, 0]), 4)
