"""Neighbors of replicas whose cells differ and move, against ASE in the cell of each replica."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from neighbor_pairs import assert_equals_ase, atoms_in

from mdsim.neighbors import MovingCellList, pairs_within

CELLS = {
    "cube": torch.diag(torch.tensor([9.0, 9.0, 9.0], dtype=torch.float64)),
    "triclinic": torch.tensor([[7.0, 0.0, 0.0], [2.5, 6.5, 0.0], [-1.5, 2.0, 7.5]], dtype=torch.float64),
    "narrow": torch.tensor([[3.0, 0.0, 0.0], [0.5, 3.2, 0.0], [0.0, -0.7, 9.0]], dtype=torch.float64),
}
CUTOFF = 4.0


def strained(cell: torch.Tensor, size: float, n_replicas: int, seed: int = 0) -> torch.Tensor:
    """Cells with independent strains."""
    random = torch.Generator().manual_seed(seed)
    return cell @ (torch.eye(3) + size * torch.randn(n_replicas, 3, 3, generator=random, dtype=torch.float64))


def positions_in(cells: torch.Tensor, n_atoms: int = 20, seed: int = 1) -> torch.Tensor:
    """Evenly spread, and several cells away from the origin."""
    random = torch.Generator().manual_seed(seed)
    return (4 * torch.rand(len(cells), n_atoms, 3, generator=random, dtype=torch.float64) - 2) @ cells


def assert_right(found, cells, positions, cutoff=CUTOFF):
    for replica in range(len(cells)):
        n_atoms = positions.shape[1]
        mine = found.first // n_atoms == replica
        one = replace(found.chosen(torch.nonzero(mine)[:, 0]))
        one = replace(one, first=one.first - replica * n_atoms, second=one.second - replica * n_atoms)
        assert_equals_ase(one, atoms_in(cells[replica], n_atoms), positions[replica : replica + 1], cutoff)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("size", [0.02, 0.3])
def test_pairs_of_each_replica_in_its_own_cell(name, size):
    """Also with strains so different that the replicas cannot be searched in one cell."""
    cells = strained(CELLS[name], size, n_replicas=4)
    positions = positions_in(cells)
    found = pairs_within(cells, positions, CUTOFF)
    assert found.n_pairs > 50
    assert (found.first.diff() >= 0).all()
    assert_right(found, cells, positions)
    torch.testing.assert_close(found.in_cells(cells, 20).shift, found.shift)
    assert torch.equal(found.image, found.image.round())


def test_shifts_are_differentiable_by_the_cells_and_equal_the_compiled_ones():
    cells = strained(CELLS["triclinic"], 0.02, n_replicas=3)
    found = pairs_within(cells, positions_in(cells), CUTOFF)
    variable = cells.clone().requires_grad_()
    shifts = found.in_cells(variable, 20).shift
    torch.testing.assert_close(shifts.detach(), found.in_cells(cells, 20).shift)
    (gradient,) = torch.autograd.grad(shifts[:, 0].sum(), variable)
    of_replica = found.first // 20
    expected = torch.stack([found.image[of_replica == replica].sum(0) for replica in range(3)])
    torch.testing.assert_close(gradient[:, :, 0], expected)


def test_a_lost_replica_has_no_pairs_and_does_not_change_those_of_others():
    cells = strained(CELLS["cube"], 0.02, n_replicas=4)
    positions = positions_in(cells)
    alone = pairs_within(cells[[0, 2]], positions[[0, 2]], CUTOFF)
    cells[1], positions[1], cells[3] = torch.nan, torch.nan, 0.0
    found = pairs_within(cells, positions, CUTOFF)
    assert not torch.isin(found.first // 20, torch.tensor([1, 3])).any()
    assert_right(found.chosen(torch.nonzero(found.first // 20 == 0)[:, 0]), cells[:1], positions[:1])
    assert found.n_pairs == alone.n_pairs


@pytest.mark.parametrize("name", CELLS)
def test_the_list_holds_every_pair_while_atoms_and_cells_move(name):
    """A random walk of cells and atoms: nothing within the cutoff is missing, and most steps need no search."""
    random = torch.Generator().manual_seed(5)
    cells = strained(CELLS[name], 0.02, n_replicas=3)
    positions = positions_in(cells, n_atoms=8)
    moving = MovingCellList(atoms_in(CELLS[name], 8), CUTOFF, skin=0.8)
    n_steps = 60
    for _ in range(n_steps):
        strain = torch.eye(3) + 0.003 * torch.randn(3, 3, 3, generator=random, dtype=torch.float64)
        cells, positions = cells @ strain, positions @ strain
        positions = positions + 0.02 * torch.randn(3, 8, 3, generator=random, dtype=torch.float64)
        listed = moving.in_cells(positions, cells)
        near = torch.nonzero(listed.displacements(positions).norm(dim=-1) < CUTOFF)[:, 0]
        assert_right(listed.chosen(near), cells, positions)
    assert 1 < moving.searched < 3 * n_steps / 2


def test_a_strain_of_the_cell_alone_makes_a_list_stale():
    """Atoms that follow a shrinking cell do not move relative to it, but pairs beyond the list come closer."""
    cells = CELLS["cube"][None].clone()
    positions = positions_in(cells)
    moving = MovingCellList(atoms_in(CELLS["cube"], 20), CUTOFF, skin=0.5)
    moving.in_cells(positions, cells)
    moving.in_cells(0.99 * positions, 0.99 * cells)
    assert moving.builds == 1
    listed = moving.in_cells(0.85 * positions, 0.85 * cells)
    assert moving.builds == 2
    near = torch.nonzero(listed.displacements(0.85 * positions).norm(dim=-1) < CUTOFF)[:, 0]
    assert_right(listed.chosen(near), 0.85 * cells, 0.85 * positions)
