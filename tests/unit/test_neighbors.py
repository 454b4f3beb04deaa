"""Neighbour search against ASE's, and the rebuilding of skin lists."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from mdsim.neighbors import ALL_PAIRS_UP_TO_ATOMS, NeighborList, Neighbors, fixed_pairs, neighbors
from mdsim.state import System

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


def _system(n_atoms: int, cell=None) -> System:
    positions = 20.0 * torch.arange(3 * n_atoms, dtype=torch.float64).reshape(n_atoms, 3)
    cell = None if cell is None else torch.tensor(cell, dtype=torch.float64)
    return System.from_geometry(torch.full((n_atoms,), 6), positions, cell, dtype=torch.float64)


def _random(system: System, n_replicas: int, generator: torch.Generator, box: float = 8.0) -> torch.Tensor:
    fractional = torch.rand(n_replicas, system.n_atoms, 3, generator=generator, dtype=torch.float64)
    return fractional * box if system.cell is None else fractional @ system.cell


def _sorted(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(np.round(rows, 5).T[::-1])]


def _edges(found: Neighbors, positions: torch.Tensor, replica: int) -> np.ndarray:
    """Directed edges (i, j, vector) of one replica, sorted."""
    n_atoms = positions.shape[1]
    chosen = torch.div(found.first, n_atoms, rounding_mode="floor") == replica
    assert torch.equal(chosen, torch.div(found.second, n_atoms, rounding_mode="floor") == replica)
    first, second = found.first[chosen] % n_atoms, found.second[chosen] % n_atoms
    vectors = found.displacements(positions)[chosen]
    forward = torch.cat([first[:, None], second[:, None], vectors], dim=1)
    backward = torch.cat([second[:, None], first[:, None], -vectors], dim=1)
    return _sorted(torch.cat([forward, backward]).numpy())


def _expected(system: System, positions: torch.Tensor, cutoff: float = CUTOFF) -> np.ndarray:
    cell = None if system.cell is None else system.cell.numpy()
    atoms = Atoms(system.atomic_numbers.numpy(), positions.numpy(), cell=cell, pbc=cell is not None)
    first, second, vectors = neighbor_list("ijD", atoms, cutoff)
    return _sorted(np.column_stack([first, second, vectors]))


def _assert_equals_ase(system: System, positions: torch.Tensor) -> None:
    found = neighbors(system, positions, CUTOFF)
    for replica in range(len(positions)):
        expected = _expected(system, positions[replica])
        edges = _edges(found, positions, replica)
        assert edges.shape == expected.shape
        np.testing.assert_allclose(edges, expected, atol=1e-9)


@pytest.mark.parametrize("n_atoms", [1, 2, 30])
def test_open_boundaries(n_atoms, generator):
    system = _system(n_atoms)
    _assert_equals_ase(system, _random(system, 3, generator))


@pytest.mark.parametrize("n_atoms", [1, 2, 9])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_periodic_cells(cell, n_atoms, generator):
    system = _system(n_atoms, cell)
    _assert_equals_ase(system, _random(system, 3, generator))


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_unwrapped_positions(cell, generator):
    system = _system(6, cell)
    jumps = torch.randint(-30, 31, (2, 6, 3), generator=generator).double()
    _assert_equals_ase(system, _random(system, 2, generator) + jumps @ system.cell)


def test_each_pair_is_listed_once(generator):
    system = _system(5, CELLS["tiny"])
    found = neighbors(system, _random(system, 2, generator), CUTOFF)
    both = torch.cat([found.first, found.second]), torch.cat([found.second, found.first])
    shifts = torch.cat([found.shift, -found.shift]).mul(1e6).round()
    assert len(torch.unique(torch.column_stack([*both, shifts]), dim=0)) == 2 * found.n_pairs


def test_single_precision_finds_the_pairs_of_wandering_atoms(generator):
    """After drifting over 200 cells, float32 finds every pair except those within its rounding of the cutoff."""
    system = _system(20, CELLS["exactly twice the cutoff"])
    positions = _random(system, 2, generator) + torch.randint(-200, 201, (2, 20, 3), generator=generator) * 8.0
    surely = neighbors(system, positions, CUTOFF - 2e-3).n_pairs
    possibly = neighbors(system, positions, CUTOFF + 2e-3).n_pairs
    found = neighbors(system.to(dtype=torch.float32), positions.float(), CUTOFF).n_pairs
    assert surely <= found <= possibly


@pytest.mark.parametrize("cell", [None, CELLS["wide"], CELLS["triclinic"]], ids=["open", "wide", "triclinic"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_replica_has_no_neighbors_and_no_influence(cell, bad, generator):
    system = _system(12, cell)
    positions = _random(system, 3, generator)
    positions[1] = bad
    found = neighbors(system, positions, CUTOFF)
    for replica in (0, 2):
        np.testing.assert_allclose(_edges(found, positions, replica), _expected(system, positions[replica]), atol=1e-9)
    between_atoms = found.first != found.second
    assert not (found.first[between_atoms] // 12 == 1).any()
    assert found.shift is None or found.shift.isfinite().all()


def test_fixed_pairs_are_all_pairs(generator):
    system = _system(7)
    positions = _random(system, 4, generator)
    found = fixed_pairs(system, 4, positions.device)
    for replica in range(4):
        expected = _expected(system, positions[replica], cutoff=100.0)
        np.testing.assert_allclose(_edges(found, positions, replica), expected, atol=1e-9)


def test_gradients_flow_through_displacements(generator):
    system = _system(4, CELLS["triclinic"])
    positions = _random(system, 2, generator).requires_grad_()
    found = neighbors(system, positions, CUTOFF)
    vectors = found.displacements(positions)
    vectors.square().sum().backward()
    expected = torch.zeros(8, 3, dtype=torch.float64)
    expected.index_add_(0, found.first, -2 * vectors.detach()).index_add_(0, found.second, 2 * vectors.detach())
    torch.testing.assert_close(positions.grad.reshape(-1, 3), expected)


def _contains_all(listed: Neighbors, system: System, positions: torch.Tensor) -> bool:
    """Whether the pairs of a list that lie within the cutoff are exactly those that a fresh search finds."""
    within = listed.displacements(positions).norm(dim=-1) < CUTOFF
    listed = Neighbors(
        listed.first[within], listed.second[within], None if listed.shift is None else listed.shift[within]
    )
    fresh = neighbors(system, positions, CUTOFF)
    return all(
        np.allclose(_edges(listed, positions, replica), _edges(fresh, positions, replica), atol=1e-9)
        for replica in range(len(positions))
    )


@pytest.mark.parametrize("cell", [None, CELLS["triclinic"]], ids=["open", "triclinic"])
def test_a_skin_list_misses_no_pair_along_a_random_walk(cell, generator):
    system = _system(ALL_PAIRS_UP_TO_ATOMS + 6 if cell is None else 10, cell)
    positions = _random(system, 2, generator, box=12.0)
    listed = NeighborList(system, CUTOFF, skin=0.6)
    for _ in range(40):
        assert _contains_all(listed(positions), system, positions)
        positions = positions + 0.03 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
    assert 2 <= listed.builds <= 20


def test_the_list_is_rebuilt_when_an_atom_has_moved_half_the_skin(generator):
    system = _system(10, CELLS["triclinic"])
    positions = _random(system, 2, generator)
    listed = NeighborList(system, CUTOFF, skin=1.0)
    listed(positions)
    step = torch.zeros_like(positions)
    step[1, 3, 2] = 0.49
    listed(positions + step)
    assert listed.builds == 1
    listed(positions + 1.1 * step)
    assert listed.builds == 2
    listed((positions + 1.1 * step)[:1])
    assert listed.builds == 3, "another number of replicas needs another list"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_replica_that_recovers_gets_its_neighbors_back(bad, generator):
    system = _system(10, CELLS["triclinic"])
    positions = _random(system, 2, generator)
    broken = positions.clone()
    broken[1, 4] = bad
    listed = NeighborList(system, CUTOFF)
    for _ in range(3):
        listed(broken)
    assert listed.builds == 1, "a broken replica does not force a search at every step"
    assert _contains_all(listed(positions), system, positions)
    assert listed.builds == 2


def test_small_open_systems_are_never_searched(generator):
    system = _system(8)
    listed = NeighborList(system, CUTOFF)
    positions = _random(system, 2, generator)
    first = listed(positions)
    assert listed(positions + 50 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)) is first
    assert first.n_pairs == 2 * 8 * 7 // 2
