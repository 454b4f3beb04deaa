"""Rotatable bonds, and the dihedral about each."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from mdsim.datasets.folder import load_dataset
from mdsim.observables import rotatable_dihedrals
from mdsim.observables.rotatable import copies, ring_bonds
from mdsim.state import System


def system_of(name: str) -> System:
    atoms = molecule(name)
    return System.from_geometry(atoms.numbers, atoms.positions)


def bonded(numbers: list[int], bonds: list[tuple[int, int]]) -> System:
    return System.from_bonds(np.array(numbers), torch.tensor(sorted(bonds), dtype=torch.long).reshape(-1, 2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("C2H6", []),  # methyl groups
        ("CH3OH", []),
        ("CH3CONH2", []),  # a methyl and an amino group
        ("C6H6", []),
        ("methylenecyclopropane", []),
        ("H2O2", ["H2_O0_O1_H3"]),
        ("CH3CH2OH", ["C0_C1_O2_H3"]),
        ("HCOOH", ["H3_O0_C1_O2"]),
        ("trans-butane", ["C0_C1_C2_C3"]),
        ("butadiene", ["C0_C1_C2_C3"]),
        ("2-butyne", []),  # its bonds are on a line
    ],
)
def test_rotatable_bonds_of_small_molecules(name, expected):
    assert list(rotatable_dihedrals(system_of(name))) == expected


def test_the_backbone_of_a_peptide():
    system = load_dataset("data/bundled", "ac_ala3_nhme_gfn2", "ac_Ala3_NHMe", "1percent").system()
    found = [one for (one,) in rotatable_dihedrals(system).values()]
    carbonyl, nitrogen, alpha = [5, 11, 21, 31], [6, 16, 26, 36], [3, 8, 18, 28, 38]
    phi = [(carbonyl[i], nitrogen[i], alpha[i + 1], carbonyl[i + 1]) for i in range(3)]
    psi = [(nitrogen[i], alpha[i + 1], carbonyl[i + 1], nitrogen[i + 1]) for i in range(3)]
    omega = [(alpha[i], carbonyl[i], nitrogen[i], alpha[i + 1]) for i in range(4)]
    assert sorted(found) == sorted(phi + psi + omega)


def test_the_rotatable_bonds_of_aspirin():
    system = load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "40").system()
    found = rotatable_dihedrals(system)
    assert list(found) == ["C6_C5_C10_O9", "C5_C6_O12_C11", "H13_O9_C10_C5", "C4_C11_O12_C6"]
    assert int(ring_bonds(system).sum()) == 6


def removed_bonds_leave_paths(system: System) -> list[bool]:
    """For each bond, whether its atoms are still connected without it: a search for each."""
    result = []
    for left_out, (start, goal) in enumerate(system.bonds.tolist()):
        rest = [bond for number, bond in enumerate(system.bonds.tolist()) if number != left_out]
        reached, new = {start}, {start}
        while new:
            new = {b for i, j in rest for a, b in ((i, j), (j, i)) if a in new} - reached
            reached |= new
        result.append(goal in reached)
    return result


@pytest.mark.parametrize("n_bonds", [5, 12, 20, 40])
def test_ring_bonds_of_random_graphs(n_bonds):
    """A bond is in a ring if its atoms remain connected without it. Fused rings, spiro atoms and chains all occur."""
    rng = np.random.default_rng(n_bonds)
    n_in_rings = 0
    for _ in range(20):
        bonds = {tuple(sorted(rng.choice(20, 2, replace=False).tolist())) for _ in range(n_bonds)}
        system = bonded([6] * 20, list(bonds))
        found = ring_bonds(system).tolist()
        assert found == removed_bonds_leave_paths(system)
        n_in_rings += sum(found)
    assert n_in_rings > 0 or n_bonds == 5


def test_a_biaryl_turns_about_the_bond_between_its_rings():
    rings = [(i, (i + 1) % 6) for i in range(6)] + [(6 + i, 6 + (i + 1) % 6) for i in range(6)]
    bonds = [(min(pair), max(pair)) for pair in [*rings, (0, 6)]]
    (dihedral,) = rotatable_dihedrals(bonded([6] * 12, bonds)).values()
    assert dihedral[0][1:3] == (0, 6)


def test_molecules_of_a_kind_are_together():
    """Two hydrogen peroxides with their atoms interleaved, and a third of another order of atoms."""
    numbers = [8, 8, 8, 8, 1, 1, 1, 1, 1, 8, 8, 1]
    bonds = [(0, 2), (1, 3), (0, 4), (1, 5), (2, 6), (3, 7), (8, 9), (9, 10), (10, 11)]
    system = bonded(numbers, bonds)
    found = rotatable_dihedrals(system)
    assert found == {"H4_O0_O2_H6": ((4, 0, 2, 6), (5, 1, 3, 7)), "H8_O9_O10_H11": ((8, 9, 10, 11),)}
    assert copies(system, (5, 1, 3, 7)) == ((5, 1, 3, 7), (4, 0, 2, 6))
    assert copies(system, (0, 1, 2, 3)) == ((0, 1, 2, 3),)  # of two molecules


def test_no_bonds_no_dihedrals():
    assert rotatable_dihedrals(bonded([18] * 3, [])) == {}
