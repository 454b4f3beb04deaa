"""Replicas share a neighbor list, but neither pairs nor sums of a replica depend on which others are beside it."""

import pytest
import torch
from force_fields import build
from neighbor_pairs import assert_equals_ase, atoms_in, random_positions

from mdsim.integrators.nve import VelocityVerlet
from mdsim.neighbors import NeighborList, Neighbors, prefers_cells
from mdsim.state import System
from mdsim.typing import Tensor

CUTOFF, SKIN = 4.0, 0.6
CELLS = {  # and numbers of atoms
    "open": (None, 70),
    "open with cells": (None, 140),
    "orthorhombic": ([[7.0, 0, 0], [0, 8.0, 0], [0, 0, 9.0]], 10),
    "triclinic": ([[7.0, 0, 0], [2.5, 6.5, 0], [-2.0, 1.5, 6.0]], 10),
    "pair by pair": ([[11.0, 0, 0], [2.5, 10.5, 0], [-2.0, 1.5, 12.0]], 20),
    "wide": ([[22.0, 0, 0], [4.0, 19.0, 0], [-5.0, 3.0, 20.0]], 140),
}
WITHOUT_CELLS = ("open", "pair by pair")
STEP_A = torch.tensor([400.0, 0.03, 0.05, 0.02, 0.0])[:, None, None].double()  # of each replica, the first is absurd


def walk(case: str, generator: torch.Generator) -> tuple[System, list[Tensor]]:
    system = atoms_in(*CELLS[case])
    positions = [random_positions(system, len(STEP_A), generator, box=14.0)]
    for _ in range(25):
        steps = STEP_A * torch.randn(positions[0].shape, generator=generator, dtype=torch.float64)
        positions.append(positions[-1] + steps)
    return system, positions


def pairs_of(found: Neighbors, replica: int, n_replicas: int, n_atoms: int) -> Neighbors:
    edges = found.boundaries(n_replicas, n_atoms).tolist()
    return found.of_replicas(replica * n_atoms, slice(edges[replica], edges[replica + 1]))


def same_bits(one: Neighbors, other: Neighbors) -> bool:
    if (one.shift is None) != (other.shift is None):
        return False
    same = torch.equal(one.first, other.first) and torch.equal(one.second, other.second)
    return same and (one.shift is None or torch.equal(one.shift, other.shift))


def within(found: Neighbors, positions: Tensor) -> Neighbors:
    close = found.displacements(positions).norm(dim=-1) < CUTOFF
    shift = None if found.shift is None else found.shift[close]
    return Neighbors(found.first[close], found.second[close], shift)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("case", CELLS)
def test_pairs_are_those_of_the_replica_alone(case, ahead, generator):
    """To the bit and in the same order, while all are rebuilt at different times."""
    system, positions = walk(case, generator)
    by_cells = prefers_cells(system.cell, system.n_atoms, CUTOFF + SKIN, positions[0].device)
    assert by_cells == (case not in WITHOUT_CELLS), "both searches are tested"
    together = NeighborList(system, CUTOFF, SKIN, ahead)
    alone = [NeighborList(system, CUTOFF, SKIN) for _ in STEP_A]
    for at in positions:
        found = together.evaluate(at, lambda pairs: pairs)
        for replica, own in enumerate(alone):
            expected = own(at[replica : replica + 1])
            assert same_bits(pairs_of(found, replica, *at.shape[:2]), expected)
    builds = [own.builds for own in alone]
    assert builds[0] == len(positions) and builds[-1] == 1
    assert len(set(builds)) >= 4, "all have their own times"
    assert together.searched == sum(builds), "each replica is searched for itself only"


@pytest.mark.parametrize("case", CELLS)
def test_no_pair_is_missed_by_any_of_them(case, generator):
    system, positions = walk(case, generator)
    listed = NeighborList(system, CUTOFF, SKIN)
    for at in positions:
        assert_equals_ase(within(listed(at), at), system, at, CUTOFF)


def test_a_broken_replica_is_searched_again_once_it_recovers(generator):
    system, positions = walk("triclinic", generator)
    listed = NeighborList(system, CUTOFF, SKIN)
    calm = positions[0]
    found = listed(calm)
    broken = calm.clone()
    broken[2, 4] = torch.nan
    assert listed(broken) is found, "what is not finite has not moved"
    broken[2, 5] += 1.0
    without = listed(broken)
    assert listed.searched == len(calm) + 1
    assert len(pairs_of(without, 2, *calm.shape[:2]).first) < len(pairs_of(found, 2, *calm.shape[:2]).first)
    assert same_bits(listed(calm), found)
    assert listed.searched == len(calm) + 2


def box(dtype: torch.dtype, n_replicas: int) -> tuple[System, Tensor, Tensor]:
    """Atoms near the points of a grid, and velocities in ASE units; those of the first replica are absurd."""
    generator = torch.Generator().manual_seed(5)
    cell = torch.tensor([[9.0, 0, 0], [1.5, 9.0, 0], [-1.0, 1.0, 9.0]], dtype=dtype)
    grid = torch.cartesian_prod(*[torch.arange(4.0)] * 3) / 4
    numbers = torch.tensor([6, 1, 8, 7]).repeat(16)
    system = System.from_geometry(numbers, grid.to(dtype) @ cell, cell, dtype=dtype)
    positions = grid @ cell.float() + 0.1 * torch.randn(n_replicas, 64, 3, generator=generator)
    velocities = 0.15 * torch.randn(n_replicas, 64, 3, generator=generator)
    velocities[0] *= 1e3
    return system, positions.to(dtype), velocities.to(dtype)


def run(system: System, potential, positions: Tensor, velocities: Tensor, n_steps: int) -> list[Tensor]:
    integrator = VelocityVerlet(1.0)
    state = integrator.init(system, potential, positions, velocities)
    visited = []
    for _ in range(n_steps):
        state = integrator.step(system, potential, state)
        visited.append(torch.cat([state.positions, state.velocities, state.forces]).unflatten(0, (3, -1)))
    return visited


# Compiled loops over atoms and pairs give the same bits. Matrix products over all pairs or atoms may round differently
# when they have more rows; frozen GemNet-T has them as well.
PATHS = [
    ("gemnet_t", False, torch.float64, 1e-11),
    ("gemnet_t", True, torch.float64, 1e-11),
    ("nequip_l1", False, torch.float64, 1e-11),
    pytest.param("nequip_l1", True, torch.float64, 0.0, marks=pytest.mark.slow),
    ("schnet", False, torch.float64, 1e-11),
    ("schnet", True, torch.float32, 0.0),
]


@pytest.mark.parametrize(("name", "fast", "dtype", "tolerance"), PATHS)
def test_trajectories_beside_an_absurdly_fast_replica(name, fast, dtype, tolerance):
    if tolerance == 0.0:
        pytest.importorskip("numba")
    model = build(name).to(dtype)
    system, positions, velocities = box(dtype, 4)
    beside = run(system, model.bind(system, fast=fast), positions, velocities, 12)
    without = run(system, model.bind(system, fast=fast), positions[1:], velocities[1:], 12)
    assert (without[-1][0] - positions[1:]).norm(dim=-1).amax(1).min() > 0.5, "lists were rebuilt"
    for found, expected in zip(beside, without, strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(found[:, 1:], expected, rtol=0, atol=tolerance)
