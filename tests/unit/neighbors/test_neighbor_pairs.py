"""Neighbor pairs grouped by replica."""

import pytest
import torch
from neighbor_pairs import atoms_in, random_positions

from mdsim.neighbors import groups_of_replicas, neighbors

N_ATOMS, N_REPLICAS = 9, 7


@pytest.fixture(params=[None, 7.0], ids=["open", "periodic"])
def case(request, generator):
    system = atoms_in(None if request.param is None else request.param * torch.eye(3), N_ATOMS)
    positions = random_positions(system, N_REPLICAS, generator)
    positions[2] = torch.nan  # a replica without pairs
    return positions, neighbors(system, positions, 4.0)


def test_boundaries(case):
    _, found = case
    edges = found.boundaries(N_REPLICAS, N_ATOMS)
    assert edges[0] == 0 and edges[-1] == found.n_pairs and edges[2] == edges[3]
    for replica in range(N_REPLICAS):
        assert (found.first[edges[replica] : edges[replica + 1]] // N_ATOMS == replica).all()


@pytest.mark.parametrize("replicas_each", [0, 1, 2.5, 100])
def test_groups_have_the_pairs_of_their_replicas(case, replicas_each):
    positions, found = case
    most = int(found.boundaries(N_REPLICAS, N_ATOMS).diff().max())
    groups = groups_of_replicas(found, N_REPLICAS, N_ATOMS, int(replicas_each * most))
    assert len(groups) == {0: 7, 1: 7, 2.5: 4, 100: 1}[replicas_each]
    assert [r for replicas, _ in groups for r in range(N_REPLICAS)[replicas]] == list(range(N_REPLICAS))
    vectors = torch.cat([pairs.displacements(positions[replicas]) for replicas, pairs in groups])
    assert torch.equal(vectors, found.displacements(positions))
