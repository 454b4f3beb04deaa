"""Radius of gyration and end-to-end distance against MDAnalysis, numpy and a rigid rod."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read
from paths import ROOT

from mdsim.observables import EndToEndDistance, RadiusOfGyration, chain_ends
from mdsim.observables.chains import radii_of_gyration_A
from mdsim.observables.rotatable import copies
from mdsim.state import System, Trajectory

F64 = torch.float64


def frames(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, 1.0)


@pytest.fixture(scope="module")
def butanes() -> tuple[System, torch.Tensor]:
    """Two butane molecules in a small triclinic cell, across its faces; 6 frames that shake."""
    one = molecule("trans-butane")
    centers = np.array([[0.5, 1.0, 0.3], [5.5, 6.5, 7.5]])
    whole = np.concatenate([one.positions + center for center in centers])
    cell = np.array([[10.0, 0, 0], [1.0, 9.5, 0], [0.5, -1.0, 11.0]])
    system = System.from_geometry(np.tile(one.numbers, 2), whole, cell, dtype=F64)
    noise = 0.1 * torch.randn(6, 28, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    return system, torch.as_tensor(whole) + noise


def wrapped(positions: torch.Tensor, system: System) -> torch.Tensor:
    fractions = positions @ torch.linalg.inv(system.cell)
    return (fractions - fractions.floor()) @ system.cell


def test_radii_are_those_of_mdanalysis(butanes):
    """Molecules are whole for MDAnalysis and wrapped into the cell for us."""
    MDAnalysis = pytest.importorskip("MDAnalysis")
    system, positions = butanes
    found = radii_of_gyration_A(system, wrapped(positions, system))
    assert (wrapped(positions, system) - positions).abs().max() > 5, "molecules are cut by the faces"
    universe = MDAnalysis.Universe.empty(28, n_residues=2, atom_resindex=np.arange(28) // 14, trajectory=True)
    universe.add_TopologyAttr("masses", system.masses.numpy())
    universe.load_new(positions.numpy().astype(np.float32))
    expected = [[one.atoms.radius_of_gyration() for one in universe.residues] for _ in universe.trajectory]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_a_diatomic_molecule_is_a_rod():
    """R_g² = m1 m2 r² / (m1 + m2)², and the end-to-end distance is r."""
    system = System.from_bonds(
        torch.tensor([6, 8]), torch.tensor([[0, 1]]), masses=torch.tensor([12.0, 16.0]), dtype=F64
    )
    positions = torch.zeros(1, 1, 2, 3, dtype=F64)
    positions[..., 1, 2] = 1.13
    expected = 1.13 * (12 * 16) ** 0.5 / 28
    assert float(radii_of_gyration_A(system, positions[0])) == pytest.approx(expected)
    density = RadiusOfGyration(1.0, 0.1)(system, frames(positions))[0, 0]
    assert density.tolist() == pytest.approx([0, 0, 0, 0, 0, 10, 0, 0, 0, 0])
    ends = EndToEndDistance(((0, 1),), 2.0, 0.5)(system, frames(positions))[0, 0]
    assert ends.tolist() == [0, 0, 2.0, 0]


def test_end_to_end_distances_are_those_of_whole_molecules(butanes):
    system, positions = butanes
    (name,) = ends = chain_ends(system)
    assert name == "C0_C3" and ends[name] == ((0, 3), (14, 17))
    found = EndToEndDistance(ends[name], 6.0, 0.5).values(system, wrapped(positions, system))
    expected = [np.linalg.norm(positions[:, i] - positions[:, j], axis=-1) for i, j in ends[name]]
    np.testing.assert_allclose(found.numpy(), np.stack(expected, 1), rtol=1e-12)
    assert 3.5 < float(found.mean()) < 4.5


def test_a_chain_longer_than_half_the_cell_is_not_folded_back():
    """Ten carbon atoms, 13.5 Å in a cell of 10 Å."""
    positions = torch.zeros(1, 10, 3, dtype=F64)
    positions[0, :, 0] = 1.5 * torch.arange(10)
    bonds = torch.stack([torch.arange(9), torch.arange(1, 10)], 1)
    system = System.from_bonds(torch.full((10,), 6), bonds, 10.0 * torch.eye(3, dtype=F64), dtype=F64)
    found = EndToEndDistance(((0, 9),), 20.0, 1.0).values(system, wrapped(positions, system))
    assert float(found) == pytest.approx(13.5)


def test_ends_of_a_peptide_are_its_methyl_groups():
    atoms = read(ROOT / "data" / "molecules" / "ac_Ala3_NHMe.xyz")
    ends = chain_ends(System.from_geometry(atoms.numbers, atoms.positions))
    assert len(ends) == 1
    ((name, ((i, j),)),) = ends.items()
    assert name.startswith("C") and "_C" in name
    for atom in (i, j):
        near = np.argsort(atoms.get_distances(atom, range(len(atoms))))[1:4]
        assert (atoms.numbers[near] == 1).all(), "a methyl group"
    far = atoms.get_all_distances()[atoms.numbers > 1][:, atoms.numbers > 1]
    assert atoms.get_distance(i, j) > 0.6 * far.max()


def test_small_molecules_have_no_ends():
    waters = molecule("H2O") + Atoms("Ar", [[9, 9, 9]])
    system = System.from_geometry(waters.numbers, waters.positions)
    assert chain_ends(system) == {}
    assert copies(system, (1, 2)) == ((1, 2),)


def test_values_beyond_the_range_are_in_the_outer_bins(butanes):
    system, positions = butanes
    observable = RadiusOfGyration(1.0, 0.25, 0.5)
    assert observable(system, frames(positions[:, None]))[..., -1].unique().tolist() == [4.0]


def test_wrong_input_is_named(butanes):
    system, positions = butanes
    still = frames(positions[:, None])
    with pytest.raises(ValueError, match="the system has 0 to 27"):
        EndToEndDistance(((0, 99),), 5.0, 0.5)(system, still)
    with pytest.raises(ValueError, match=r"atoms \[0, 20\] are not in one molecule"):
        EndToEndDistance(((0, 20),), 5.0, 0.5)(system, still)
    with pytest.raises(ValueError, match=r"two different atoms, found \[3, 3\]"):
        EndToEndDistance(((3, 3),), 5.0, 0.5)
    lone = System.from_bonds(torch.tensor([18, 18]), torch.empty(0, 2).long(), dtype=F64)
    with pytest.raises(ValueError, match="all atoms are alone"):
        RadiusOfGyration(1.0, 0.1)(lone, frames(torch.rand(1, 1, 2, 3, dtype=F64)))
