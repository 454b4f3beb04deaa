import torch
from ase.build import molecule

from mdsim.stability.topology import (
    bonded_quadruplets,
    classes_of_tuples,
    equivalence_classes,
    pairs_held_by_bonds,
)
from mdsim.state import System


def _system(name: str) -> System:
    atoms = molecule(name)
    return System.from_geometry(atoms.numbers, atoms.positions, dtype=torch.float64)


def _bond_distances(system: System) -> torch.Tensor:
    """Number of bonds between all atoms (Floyd & Warshall)."""
    distances = torch.full((system.n_atoms, system.n_atoms), 99)
    distances.fill_diagonal_(0)
    for i, j in system.bonds.tolist():
        distances[i, j] = distances[j, i] = 1
    for k in range(system.n_atoms):
        distances = torch.minimum(distances, distances[:, k : k + 1] + distances[k : k + 1])
    return distances


def test_atoms_that_bonds_do_not_distinguish_are_alike():
    system = _system("CH3CH2OH")  # C C O H H H H H H, the hydroxyl hydrogen is bonded to O
    classes = equivalence_classes(system).tolist()
    partner = {atom: other for bond in system.bonds.tolist() for atom, other in (bond, bond[::-1])}
    hydrogens = {}
    for atom in range(3, 9):
        hydrogens.setdefault(partner[atom], set()).add(classes[atom])
    assert all(len(kinds) == 1 for kinds in hydrogens.values())
    assert len(set(classes)) == 6, "two C, one O, and three kinds of H"


def test_benzene_has_two_kinds_of_atoms():
    assert len(set(equivalence_classes(_system("C6H6")).tolist())) == 2


def test_quadruplets_are_all_chains_of_three_bonds():
    system = _system("CH3CH2OH")
    found = {tuple(chain) for chain in bonded_quadruplets(system).tolist()}
    bonded = {tuple(bond) for bond in system.bonds.tolist()}
    bonded |= {bond[::-1] for bond in bonded}
    atoms = range(system.n_atoms)
    expected = {
        (i, j, k, end)
        for j, k in system.bonds.tolist()
        for i in atoms
        for end in atoms
        if (i, j) in bonded and (k, end) in bonded and len({i, j, k, end}) == 4
    }
    assert found == expected
    assert len(bonded_quadruplets(system)) == len(expected) == 9 + 3


def test_no_bonds_have_no_tuples():
    system = System.from_geometry(torch.tensor([2, 2]), torch.tensor([[0.0, 0, 0], [5.0, 0, 0]]))
    assert bonded_quadruplets(system).shape == (0, 4)
    assert classes_of_tuples(system, bonded_quadruplets(system)) == []
    assert equivalence_classes(system).tolist() == [0, 0]


def test_tuples_are_alike_in_either_direction():
    system = _system("CH3OCH3")
    groups = classes_of_tuples(system, system.bonds)
    assert sorted(len(members) for members in groups) == [2, 6], "C-O and C-H"
    dihedrals = classes_of_tuples(system, bonded_quadruplets(system))
    assert [len(members) for members in dihedrals] == [6], "H-C-O-C and C-O-C-H"


def test_nonbonded_pairs_are_three_bonds_apart():
    system = _system("CH3CH2OH")
    held = {tuple(pair) for pair in pairs_held_by_bonds(system).tolist()}
    near = torch.nonzero(torch.triu(_bond_distances(system) <= 2, diagonal=1))
    assert held == {tuple(pair) for pair in near.tolist()}
