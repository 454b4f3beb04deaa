"""Both neighbor searches against ASE's, and the choice between them."""

import math

import numpy as np
import pytest
import torch
from neighbor_pairs import assert_equals_ase, atoms_in, directed_edges, edges_by_ase, random_positions

from mdsim.neighbors import cell_list, fixed_pairs, neighbors, prefers_cells
from mdsim.neighbors import search as search_module
from mdsim.neighbors.cell_list import cell_list_search
from mdsim.neighbors.direct import direct_search

CUTOFF = 4.0
CELLS = {
    "wide": [[11.0, 0, 0], [0, 12.0, 0], [0, 0, 13.0]],
    "orthorhombic": [[6.0, 0, 0], [0, 7.5, 0], [0, 0, 9.0]],
    "exactly twice the cutoff": [[8.0, 0, 0], [0, 8.0, 0], [0, 0, 8.0]],
    "tiny": [[2.1, 0, 0], [0, 2.6, 0], [0, 0, 3.1]],
    "triclinic": [[7.0, 0, 0], [2.5, 6.5, 0], [-2.0, 1.5, 6.0]],
    "strongly skewed": [[5.0, 0, 0], [12.0, 6.0, 0], [-9.0, 11.0, 7.0]],
    "left-handed": [[0, 6.0, 0.5], [6.0, 0.3, 0], [1.0, 0, 6.0]],
    "flat": [[9.0, 0, 0], [0, 9.0, 0], [3.0, 2.0, 1.7]],
}


@pytest.fixture(params=["direct", "cells", "compiled cells"])
def search(request, monkeypatch):
    """Each of the searches: a function of cell, positions and cutoff."""
    monkeypatch.setattr(cell_list, "is_compiled", lambda device: request.param == "compiled cells")
    return direct_search if request.param == "direct" else cell_list_search


@pytest.mark.parametrize("n_atoms", [1, 2, 30])
def test_open_boundaries(search, n_atoms, generator):
    system = atoms_in(None, n_atoms)
    positions = random_positions(system, 3, generator)
    assert_equals_ase(search(None, positions, CUTOFF), system, positions, CUTOFF)


@pytest.mark.parametrize("n_atoms", [1, 2, 9])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_periodic_cells(search, cell, n_atoms, generator):
    system = atoms_in(cell, n_atoms)
    positions = random_positions(system, 3, generator)
    assert_equals_ase(search(system.cell, positions, CUTOFF), system, positions, CUTOFF)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_unwrapped_positions(search, cell, generator):
    system = atoms_in(cell, 6)
    jumps = torch.randint(-30, 31, (2, 6, 3), generator=generator).double()
    positions = random_positions(system, 2, generator) + jumps @ system.cell
    assert_equals_ase(search(system.cell, positions, CUTOFF), system, positions, CUTOFF)


@pytest.mark.parametrize("seed", range(12))
def test_random_triclinic_cells(search, seed):
    """Heights from a third to six times the cutoff, so that every number of cells and images occurs."""
    generator = torch.Generator().manual_seed(seed)
    heights = CUTOFF * torch.tensor([1 / 3, 1, 3]) * (1 + torch.rand(3, generator=generator))
    cell = torch.diag(heights[torch.randperm(3, generator=generator)]).double()
    cell += 4 * torch.rand(3, 3, generator=generator, dtype=torch.float64).tril(-1)
    system = atoms_in(cell, int(torch.randint(1, 40, (), generator=generator)))
    jumps = torch.randint(-3, 4, (2, system.n_atoms, 3), generator=generator).double()
    positions = random_positions(system, 2, generator) + jumps @ cell
    assert_equals_ase(search(cell, positions, CUTOFF), system, positions, CUTOFF)


def test_atoms_on_a_lattice_lie_on_the_borders_of_cells(search):
    """Simple cubic, cutoff between the first and the second shell, and all borders exactly on atoms."""
    lattice = torch.cartesian_prod(*[torch.arange(-2.0, 6.0, dtype=torch.float64)] * 3)[None] * CUTOFF / 2
    found = search(4 * CUTOFF * torch.eye(3, dtype=torch.float64), lattice, 1.2 * CUTOFF / 2)
    assert found.n_pairs == 3 * 8**3
    assert torch.equal(torch.bincount(torch.cat([found.first, found.second])), torch.full((8**3,), 6))


def test_each_pair_is_listed_once(search, generator):
    system = atoms_in(CELLS["tiny"], 5)
    found = search(system.cell, random_positions(system, 2, generator), CUTOFF)
    one, other = torch.cat([found.first, found.second]), torch.cat([found.second, found.first])
    shifts = torch.cat([found.shift, -found.shift]).mul(1e6).round()
    assert len(torch.unique(torch.column_stack([one, other, shifts]), dim=0)) == 2 * found.n_pairs


def test_single_precision_finds_the_pairs_of_wandering_atoms(search, generator):
    """After drifting over 200 cells, float32 finds every pair except those within its rounding of the cutoff."""
    system = atoms_in(CELLS["exactly twice the cutoff"], 20)
    positions = random_positions(system, 2, generator) + torch.randint(-200, 201, (2, 20, 3), generator=generator) * 8.0
    surely = search(system.cell, positions, CUTOFF - 2e-3).n_pairs
    possibly = search(system.cell, positions, CUTOFF + 2e-3).n_pairs
    found = search(system.cell.float(), positions.float(), CUTOFF).n_pairs
    assert surely <= found <= possibly


@pytest.mark.parametrize("cell", [None, *(CELLS[name] for name in ("wide", "triclinic", "tiny"))])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_replica_has_no_neighbors_and_no_influence(search, cell, bad, generator):
    system = atoms_in(cell, 12)
    positions = random_positions(system, 3, generator)
    positions[1] = bad
    found = search(system.cell, positions, CUTOFF)
    for replica in (0, 2):
        expected = edges_by_ase(system, positions[replica], CUTOFF)
        np.testing.assert_allclose(directed_edges(found, positions, replica), expected, atol=1e-9)
    assert not (found.first // 12 == 1).any()
    assert found.shift is None or found.shift.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replicas_flown_apart_need_no_more_cells(dtype, generator):
    """Empty space is squeezed out: the grid stays as small as its atoms are few, and neighbors are still found."""
    n_atoms, far = 40, 1e30
    positions = random_positions(atoms_in(None, n_atoms), 3, generator).to(dtype)
    positions[1] = far * torch.randn(n_atoms, 3, generator=generator).to(dtype)
    positions[1, 7] = positions[1, 3]
    positions[2, 20:] += 1e4
    grid, bins = cell_list._open_grid(positions, CUTOFF)
    assert max(grid.shape) <= n_atoms * (max(cell_list.CELLS_PER_CUTOFF) + 1) and (bins >= 0).all()
    found, expected = (search(None, positions, CUTOFF) for search in (cell_list_search, direct_search))
    for replica in range(3):
        np.testing.assert_array_equal(*(directed_edges(pairs, positions, replica) for pairs in (found, expected)))
    assert (found.first // n_atoms == 1).sum() == 1


def test_all_atoms_in_one_place():
    found = cell_list_search(None, torch.zeros(2, 30, 3), CUTOFF)
    assert found.n_pairs == 2 * 30 * 29 // 2


@pytest.mark.parametrize("cell", [None, CELLS["triclinic"]], ids=["open", "triclinic"])
def test_division_does_not_matter(cell, generator, monkeypatch):
    """Neither that of candidates nor that of replicas."""
    system = atoms_in(cell, 50)
    positions = random_positions(system, 5, generator, box=12.0)
    whole = cell_list_search(system.cell, positions, CUTOFF)
    monkeypatch.setattr(cell_list, "is_compiled", lambda device: False)
    monkeypatch.setattr(cell_list, "CANDIDATES_AT_ONCE", 37)
    monkeypatch.setattr(search_module, "ATOMS_AT_ONCE", 100)
    monkeypatch.setattr(search_module, "prefers_cells", lambda *_: True)
    divided = neighbors(system, positions, CUTOFF)
    for name in ("first", "second") + (() if cell is None else ("shift",)):
        assert torch.equal(getattr(whole, name), getattr(divided, name))
    monkeypatch.setattr(search_module, "prefers_cells", lambda *_: False)
    monkeypatch.setattr(search_module, "PAIRS_AT_ONCE", 50**2)
    assert_equals_ase(neighbors(system, positions, CUTOFF), system, positions, CUTOFF)


@pytest.mark.parametrize("periodic", [False, True])
def test_many_atoms_are_searched_through_cells(periodic, generator):
    """A liquid: from where on cells are quicker was measured, that both find the same is checked on either side."""
    choices = []
    for n_atoms, edge in ((20, 10.0), (600, 18.2)):
        system = atoms_in(edge * torch.eye(3) if periodic else None, n_atoms)
        positions = random_positions(system, 1, generator, box=edge)
        choices.append(prefers_cells(system.cell, n_atoms, CUTOFF, positions.device))
        expected = direct_search(system.cell, positions, CUTOFF)
        found = neighbors(system, positions, CUTOFF)
        np.testing.assert_allclose(*(directed_edges(pairs, positions, 0) for pairs in (found, expected)), atol=1e-9)
    assert choices == [False, True]


def test_candidates_grow_with_the_number_of_atoms(monkeypatch, generator):
    """The work of the search is linear: eight times the atoms at equal density, eight times the candidates."""
    looked_at = []
    monkeypatch.setattr(cell_list, "is_compiled", lambda device: False)
    monkeypatch.setattr(
        cell_list, "_candidates", lambda starts, stops: looked_at.append(int((stops - starts).sum())) or iter(())
    )
    for n_atoms, edge in ((1400, 6.05 * CUTOFF), (8 * 1400, 12.1 * CUTOFF)):
        positions = torch.rand(1, n_atoms, 3, generator=generator) * edge
        cell_list_search(edge * torch.eye(3), positions, CUTOFF)
    assert math.isclose(looked_at[1] / looked_at[0], 8, rel_tol=0.05)


def test_fixed_pairs_are_all_pairs(generator):
    system = atoms_in(None, 7)
    positions = random_positions(system, 4, generator)
    assert_equals_ase(fixed_pairs(system, 4, positions.device), system, positions, 100.0)


def test_gradients_flow_through_displacements(generator):
    system = atoms_in(CELLS["triclinic"], 4)
    positions = random_positions(system, 2, generator).requires_grad_()
    found = neighbors(system, positions, CUTOFF)
    vectors = found.displacements(positions)
    vectors.square().sum().backward()
    expected = torch.zeros(8, 3, dtype=torch.float64)
    expected.index_add_(0, found.first, -2 * vectors.detach()).index_add_(0, found.second, 2 * vectors.detach())
    torch.testing.assert_close(positions.grad.reshape(-1, 3), expected)
