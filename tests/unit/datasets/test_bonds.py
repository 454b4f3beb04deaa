"""Bonds of many frames: equal to a search over all pairs, at a cost linear in the number of atoms."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from ase.build import bulk

from mdsim.datasets.bonds import bond_matrix, bond_radii, close_pairs
from mdsim.datasets.sources.raw import RawFrames
from mdsim.datasets.sources.unit_detection import bond_ratio
from mdsim.geometry import all_pairs, pair_distances

SHEAR = torch.tensor([[0.0, 0, 0], [1.5, 0, 0], [0.5, 0.5, 0]]).double()


def silicon(repeats: int, n_frames: int, cell_change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers, rattled positions and a strained cell."""
    atoms = bulk("Si", cubic=True).repeat(repeats)
    atoms.set_cell(atoms.cell.array + cell_change.numpy(), scale_atoms=True)
    noise = 0.15 * np.random.default_rng(0).standard_normal((n_frames, len(atoms), 3))
    positions = torch.from_numpy(atoms.positions + noise)
    return torch.from_numpy(atoms.numbers).long(), positions, torch.from_numpy(atoms.cell.array.copy())


@pytest.mark.parametrize("change", [0 * SHEAR, SHEAR, 1e-15 * SHEAR], ids=["cubic", "triclinic", "rounding"])
@pytest.mark.parametrize("open_boundaries", [True, False])
def test_bonds_are_those_of_all_pairs(change, open_boundaries):
    numbers, positions, cell = silicon(3, 4, change)
    bonded, pairs = bond_matrix(numbers, positions, None if open_boundaries else cell)
    every = all_pairs(len(numbers))
    expected = pair_distances(positions, every, None if open_boundaries else cell) < bond_radii(numbers)[every].sum(-1)
    assert torch.equal(pairs, every[expected.any(0)]) and torch.equal(bonded, expected[:, expected.any(0)])
    assert 0 < int(bonded.sum()) < bonded.numel()


def test_an_atom_is_not_bonded_to_its_own_image():
    found = list(close_pairs(torch.zeros(2, 1, 3), 2.0 * torch.eye(3), torch.tensor([2.0]).double()))
    assert all(len(distances) == 0 for _, _, distances in found)


def test_many_atoms_in_a_triclinic_cell_take_no_time():
    numbers, positions, cell = silicon(7, 2, SHEAR)
    bond_matrix(numbers[:8], positions[:, :8], cell)  # what is compiled
    before = time.process_time()
    bonded, pairs = bond_matrix(numbers, positions, cell)
    assert time.process_time() - before < 5.0  # 0.1 s; all pairs with 27 images each take minutes
    assert len(pairs) < 4 * len(numbers) and bonded.shape == (2, len(pairs))


@pytest.mark.parametrize("scale", [1.0, 0.1, 1.8897])
def test_nearest_neighbors_are_found_in_any_unit(scale):
    numbers, positions, cell = silicon(2, 1, SHEAR)
    raw = RawFrames(numbers.numpy(), scale * positions.numpy(), np.zeros(1), cell=scale * cell.numpy())
    distances = pair_distances(positions[0], every := all_pairs(len(numbers)), cell)
    nearest = [float(distances[(every == atom).any(1)].min()) for atom in range(len(numbers))]
    expected = scale * float(torch.tensor(nearest).median()) / 2.22
    assert bond_ratio(raw) == pytest.approx(expected, rel=1e-6)
