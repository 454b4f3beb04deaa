"""Directed edges of GemNet compared with a direct search, and the layouts of their features."""

import pytest
import torch

from mdsim.models.gemnet.edges import ALIGNMENT, Edges, on_both, swapped, times_pairs
from mdsim.neighbors import neighbors
from mdsim.state import System

CUTOFF, N_ATOMS = 3.0, 40  # Å; more atoms than a bucket of the dense layout has


@pytest.fixture
def crystal(generator) -> tuple[System, torch.Tensor]:
    """Two replicas of different density in one cell that is wider than twice the cutoff."""
    cell = torch.diag(torch.tensor([7.0, 7.5, 8.0], dtype=torch.float64))
    positions = torch.rand(2, N_ATOMS, 3, generator=generator, dtype=torch.float64) @ cell
    positions[1] *= 0.8
    return System.from_geometry(torch.tensor([8] * N_ATOMS), positions[0], cell, torch.float64), positions


@pytest.fixture(params=["within", "aligned"])
def edges(request, crystal) -> Edges:
    system, positions = crystal
    return getattr(Edges, request.param)(CUTOFF, positions, neighbors(system, positions, CUTOFF + 1.0))


def _present(edges: Edges) -> torch.Tensor:
    if edges.present is None:
        return torch.ones(len(edges.receivers), dtype=torch.bool)
    return on_both(edges.present)[:, 0] == 1


def test_both_directions_of_every_pair_within_the_cutoff(edges, crystal):
    system, positions = crystal
    box = system.cell.diagonal()
    difference = positions[:, None, :, :] - positions[:, :, None, :]  # from the receiver to the sender
    difference -= box * torch.round(difference / box)
    distance = difference.norm(dim=-1)
    replica, receiver, sender = torch.nonzero((distance < CUTOFF) & (distance > 0), as_tuple=True)
    expected = {
        (int(r * N_ATOMS + a), int(r * N_ATOMS + b)): difference[r, a, b]
        for r, a, b in zip(replica, receiver, sender, strict=True)
    }
    present, distances = _present(edges), on_both(edges.distances[:, None])[:, 0]
    directions = torch.stack([edges.directions, -edges.directions], 1).flatten(0, 1)
    found = {}
    for edge in torch.nonzero(present)[:, 0].tolist():
        found[int(edges.receivers[edge]), int(edges.senders[edge])] = distances[edge] * directions[edge]
    assert len(found) == int(present.sum())
    assert found.keys() == expected.keys()
    for key, vector in found.items():
        torch.testing.assert_close(vector, expected[key], rtol=0, atol=1e-12)


def test_the_dense_layout_holds_the_edges_of_each_atom(edges, generator):
    x = torch.rand(len(edges.receivers), 3, generator=generator, dtype=torch.float64) + 1.0
    dense = edges.dense(x)
    torch.testing.assert_close(edges.sparse(dense), x)
    sums = torch.cat([bucket.of(dense).sum(1) for bucket in edges.buckets])
    torch.testing.assert_close(sums, edges.sum_to_receivers(x))
    assert int((dense[:, 0] != 0).sum()) == len(x)  # the rest are zeros
    assert len(edges.buckets) > 1


def test_an_edge_is_part_of_as_many_triplets_as_its_atom_has_other_edges(edges):
    together = edges.receivers[:, None] == edges.receivers
    torch.testing.assert_close(edges.triplets_of_each(), together.sum(1) - 1)


def test_the_two_directions_of_a_pair(edges, generator):
    x = torch.rand(len(edges.receivers), 2, generator=generator)
    reverse = swapped(torch.stack([edges.senders, edges.receivers], 1).double())
    assert torch.equal(reverse, torch.stack([edges.receivers, edges.senders], 1).double())
    assert torch.equal(swapped(swapped(x)), x)
    radial = torch.rand(edges.n_pairs, 2, generator=generator)
    assert torch.equal(times_pairs(x, radial), x * on_both(radial))


def test_pairs_that_only_fill_up_carry_nothing(crystal):
    system, positions = crystal
    pairs = neighbors(system, positions, CUTOFF)
    plain, aligned = (make(CUTOFF, positions, pairs) for make in (Edges.within, Edges.aligned))
    per_replica = torch.bincount(aligned.receivers[::2] // N_ATOMS, minlength=2)
    assert (per_replica % ALIGNMENT == 0).all() and aligned.n_pairs > plain.n_pairs
    values = aligned.radial(lambda distances: distances[:, None])
    assert int((values == 0).sum()) == aligned.n_pairs - plain.n_pairs
    torch.testing.assert_close(values[values > 0].sort().values, plain.distances.sort().values)


def test_alignment_keeps_the_places_of_a_replica_when_another_changes(crystal):
    system, positions = crystal
    spread = positions.clone()
    spread[1] *= 1.02  # as many filled-up pairs, other pairs
    first, second = (Edges.aligned(CUTOFF, x, neighbors(system, x, CUTOFF)) for x in (positions, spread))
    of_first = first.receivers < N_ATOMS
    n = int(of_first.sum())
    assert of_first[:n].all()
    for name in ("receivers", "senders"):
        assert torch.equal(getattr(first, name)[:n], getattr(second, name)[:n])
    assert torch.equal(first.distances[: n // 2], second.distances[: n // 2])
