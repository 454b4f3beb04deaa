"""The pairs that repel each other."""

import torch
from ase.build import molecule

from mdsim.geometry import all_pairs
from mdsim.repulsion.pairs import selected
from mdsim.state import System


def chosen(selection: str, system: System) -> set[tuple[int, int]]:
    first, second = all_pairs(system.n_atoms).T
    mask = selected(selection, system, first, second)
    assert torch.equal(mask, selected(selection, system, second, first))
    return {(int(i), int(j)) for i, j in zip(first[mask], second[mask], strict=True)}


def test_ends_of_bonds_and_angles_are_left_out():
    """Butane's carbon chain: of its six pairs, the ends of the chain alone are more than two bonds apart."""
    atoms = molecule("trans-butane")
    system = System.from_geometry(atoms.numbers, atoms.positions)
    carbons = torch.nonzero(system.atomic_numbers == 6)[:, 0].tolist()
    distance = torch.full((14, 14), 99, dtype=torch.long)  # in bonds, by Floyd and Warshall
    distance[system.bonds[:, 0], system.bonds[:, 1]] = distance[system.bonds[:, 1], system.bonds[:, 0]] = 1
    for k in range(14):
        distance = torch.minimum(distance, distance[:, k : k + 1] + distance[k])
    expected = {(i, j) for i in range(14) for j in range(i + 1, 14) if distance[i, j] > 2}
    found = chosen("nonbonded", system)
    assert found == expected
    assert len([pair for pair in found if set(pair) <= set(carbons)]) == 1


def test_molecules():
    system = System.from_bonds(torch.tensor([8, 1, 1, 2, 8, 1]).numpy(), torch.tensor([[0, 1], [0, 2], [4, 5]]))
    different = {(0, 3), (1, 3), (2, 3), (0, 4), (0, 5), (1, 4), (1, 5), (2, 4), (2, 5), (3, 4), (3, 5)}
    assert chosen("between_molecules", system) == chosen("nonbonded", system) == different
    assert len(chosen("all", system)) == 15


def test_a_ring_of_three_and_a_system_without_bonds():
    ring = System.from_bonds(torch.tensor([6, 6, 6]).numpy(), torch.tensor([[0, 1], [1, 2], [0, 2]]))
    assert chosen("nonbonded", ring) == set()
    gas = System.from_bonds(torch.tensor([2, 2, 2]).numpy(), torch.zeros(0, 2, dtype=torch.long))
    assert len(chosen("nonbonded", gas)) == 3
