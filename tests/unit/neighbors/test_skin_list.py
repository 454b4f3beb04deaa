"""Neighbor lists with a skin: when they are rebuilt, and that no pair is missing."""

import numpy as np
import pytest
import torch
from neighbor_pairs import atoms_in, directed_edges, random_positions

from mdsim.neighbors import ALL_PAIRS_UP_TO_ATOMS, NeighborList, Neighbors, neighbors
from mdsim.state import System

CUTOFF = 4.0
TRICLINIC = [[7.0, 0, 0], [2.5, 6.5, 0], [-2.0, 1.5, 6.0]]


def contains_all(listed: Neighbors, system: System, positions: torch.Tensor) -> bool:
    """Whether the pairs of a list that lie within the cutoff are exactly those that a fresh search finds."""
    within = listed.displacements(positions).norm(dim=-1) < CUTOFF
    listed = Neighbors(
        listed.first[within], listed.second[within], None if listed.shift is None else listed.shift[within]
    )
    fresh = neighbors(system, positions, CUTOFF)
    return all(
        np.allclose(directed_edges(listed, positions, replica), directed_edges(fresh, positions, replica), atol=1e-9)
        for replica in range(len(positions))
    )


def case(cell, generator) -> tuple[System, torch.Tensor]:
    system = atoms_in(cell, ALL_PAIRS_UP_TO_ATOMS + 6 if cell is None else 10)
    return system, random_positions(system, 2, generator, box=12.0)


@pytest.mark.parametrize("cell", [None, TRICLINIC], ids=["open", "triclinic"])
def test_misses_no_pair_along_a_random_walk(cell, generator):
    system, positions = case(cell, generator)
    listed = NeighborList(system, CUTOFF, skin=0.6)
    for _ in range(40):
        assert contains_all(listed(positions), system, positions)
        positions = positions + 0.03 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
    assert 2 <= listed.builds <= 20


@pytest.mark.parametrize("cell", [None, TRICLINIC], ids=["open", "triclinic"])
def test_evaluating_ahead_misses_no_pair_of_fast_atoms(cell, generator):
    """Now and then an atom jumps by several Å in one step: what is returned is that of a list that holds there."""
    system, positions = case(cell, generator)
    ahead, patient = NeighborList(system, CUTOFF, skin=0.6, ahead=True), NeighborList(system, CUTOFF, skin=0.6)
    evaluations = 0

    def pairs_of(found: Neighbors) -> Neighbors:
        nonlocal evaluations
        evaluations += 1
        return found

    for step in range(60):
        found = ahead.evaluate(positions, pairs_of)
        assert contains_all(found, system, positions)
        expected = patient.evaluate(positions, lambda pairs: pairs)
        assert torch.equal(found.first, expected.first) and torch.equal(found.second, expected.second)
        positions = positions + 0.02 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        if step % 7 == 3:
            positions[step % 2, step % 10] += 3.0
    assert ahead.builds == patient.builds >= 9
    assert evaluations == 60 + ahead.builds - 1, "each rebuild but the first throws one evaluation away"


def test_is_rebuilt_when_an_atom_has_moved_half_the_skin(generator):
    system = atoms_in(TRICLINIC, 10)
    positions = random_positions(system, 2, generator)
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


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_replica_that_recovers_gets_its_neighbors_back(bad, ahead, generator):
    system = atoms_in(TRICLINIC, 10)
    positions = random_positions(system, 2, generator)
    broken = positions.clone()
    broken[1, 4] = bad
    listed = NeighborList(system, CUTOFF, ahead=ahead)
    for _ in range(3):
        listed.evaluate(broken, lambda pairs: pairs)
    assert listed.builds == 1, "a broken replica does not force a search at every step"
    assert contains_all(listed.evaluate(positions, lambda pairs: pairs), system, positions)
    assert listed.builds == 2


def test_small_open_systems_are_never_searched(generator):
    system = atoms_in(None, 8)
    listed = NeighborList(system, CUTOFF, ahead=True)
    positions = random_positions(system, 2, generator)
    first = listed(positions)
    moved = positions + 50 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
    assert listed(moved) is first and listed.evaluate(moved, lambda pairs: pairs) is first
    assert first.n_pairs == 2 * 8 * 7 // 2
