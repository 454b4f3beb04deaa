"""Coordination numbers, tetrahedral order and hydrogen bonds against lattices, ASE and MDAnalysis."""

import math
from itertools import combinations

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.geometry import get_distances
from paths import ROOT

from mdsim.datasets import load_dataset
from mdsim.observables import RDF, CoordinationNumber, HydrogenBonds, TetrahedralOrder
from mdsim.observables.pairs import PairKind, searchable
from mdsim.observables.tetrahedral import nearest_of_kind
from mdsim.state import System, Trajectory

F64 = torch.float64


def frames(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, 1.0)


def unbonded(atoms: Atoms) -> tuple[System, torch.Tensor]:
    """A crystal of single atoms."""
    n = len(atoms)
    cell = torch.as_tensor(np.array(atoms.cell), dtype=F64)
    system = System(
        torch.as_tensor(atoms.numbers), torch.ones(n, dtype=F64), cell, torch.empty(0, 2).long(), torch.arange(n)
    )
    return system, torch.as_tensor(atoms.positions)[None, None]


def mean(observable, system: System, trajectory: Trajectory) -> torch.Tensor:
    values = observable(system, trajectory)
    return observable.bins.width * values @ observable.bin_centers.to(values)


@pytest.fixture(scope="module")
def liquid() -> tuple[System, Trajectory]:
    """Five frames of the bundled water."""
    dataset = load_dataset(str(ROOT / "data" / "bundled"), "water_spcfw", "water", "20")
    return dataset.system().to(dtype=F64), frames(dataset.train.positions[:5, None].to(F64))


@pytest.mark.parametrize("repeat", [2, 4])
def test_a_diamond_lattice_is_perfectly_tetrahedral(repeat):
    """64 atoms are visited in pairs, 512 by a neighbor search."""
    system, positions = unbonded(ase.build.bulk("Si", "diamond", 5.43, cubic=True).repeat(repeat))
    trajectory = frames(positions)
    order = TetrahedralOrder(0.01, "Si").values(system, positions[0])
    torch.testing.assert_close(order, torch.ones_like(order))
    number = CoordinationNumber(("Si", "Si"), 2.6)(system, trajectory)[0, 0]
    assert number.tolist() == [0.0] * 4 + [1.0] + [0.0] * 8


def test_a_simple_cubic_lattice_has_six_neighbors_and_known_order():
    """Any four of the six directions give q = 1 - 3/8 Σ: each straight pair adds 4/9, each right angle 1/9."""
    system, positions = unbonded(ase.build.bulk("Po", "sc", 3.35).repeat(6))
    assert mean(CoordinationNumber(("Po", "Po"), 4.0), system, frames(positions)).tolist() == [[6.0]]
    found = TetrahedralOrder(0.01, "Po").values(system, positions[0])
    possible = [1 - 3 / 8 * (straight * 4 / 9 + (6 - straight) / 9) for straight in (1, 2)]
    assert torch.isclose(found[..., None], torch.tensor(possible, dtype=F64)).any(-1).all()


def test_random_directions_have_no_order_on_average(generator):
    """<cos ψ> = 0 and <cos² ψ> = 1/3 for independent directions, so that <q> = 0."""
    n = 4000
    directions = torch.nn.functional.normalize(torch.randn(n, 1, 4, 3, dtype=F64, generator=generator), dim=-1)
    distances = 2.5 + 0.1 * torch.arange(4, dtype=F64)[:, None]
    positions = torch.cat([torch.zeros(n, 1, 1, 3, dtype=F64), distances * directions], dim=2)
    system = System(torch.full((5,), 8), torch.ones(5, dtype=F64), None, torch.empty(0, 2).long(), torch.arange(5))
    order = TetrahedralOrder(0.01, min_order=-3.0).values(system, positions[:, 0])[:, 0]
    assert abs(float(order.mean())) < 5 * float(order.std()) / math.sqrt(n)


def test_tetrahedral_order_of_water_is_that_of_a_loop(liquid):
    system, trajectory = liquid
    found = TetrahedralOrder().values(system, trajectory.positions[:2, 0])
    oxygen = (system.atomic_numbers == 8).numpy()
    for row in range(2):
        places = trajectory.positions[row, 0].numpy()[oxygen]
        vectors, distances = get_distances(places, cell=system.cell.numpy(), pbc=True)
        for i in range(0, 64, 7):
            near = [j for j in np.argsort(distances[i]) if j != i][:4]
            arms = [vectors[i, j] / distances[i, j] for j in near]
            expected = 1 - 3 / 8 * sum((a @ b + 1 / 3) ** 2 for a, b in combinations(arms, 2))
            assert float(found[row, i]) == pytest.approx(expected, abs=1e-9)


def test_neighbor_search_and_all_pairs_find_the_same(generator):
    """343 atoms, searched within 3 Å, against the distances of ASE."""
    length = 21.0
    positions = length * torch.rand(2, 343, 3, dtype=F64, generator=generator)
    system = System(
        torch.full((343,), 8), torch.ones(343, dtype=F64), length * torch.eye(3, dtype=F64), torch.empty(0, 2).long(),
        torch.arange(343),
    )  # fmt: skip
    kind = PairKind(("O", "O"))
    assert searchable(system, 343, 3.0) and not searchable(system, 343, 10.0), "both ways are taken"
    nearest = nearest_of_kind(system, positions, kind, 4)
    for row in range(2):
        distances = get_distances(positions[row].numpy(), cell=system.cell.numpy(), pbc=True)[1]
        np.fill_diagonal(distances, np.inf)
        np.testing.assert_array_equal(nearest[row].numpy(), np.argsort(distances, axis=1)[:, :4])
        numbers = CoordinationNumber(("O", "O"), 3.0).values(system, positions[row : row + 1])[0]
        np.testing.assert_array_equal(numbers.numpy(), (distances < 3.0).sum(1))


@pytest.mark.parametrize("intermolecular", [False, True])
def test_coordination_of_water_is_that_of_mdanalysis(liquid, intermolecular):
    distances = pytest.importorskip("MDAnalysis.lib.distances")
    system, trajectory = liquid
    found = mean(CoordinationNumber(("O", "H"), 2.4, intermolecular_only=intermolecular), system, trajectory)[:, 0]
    box = [12.4171, 12.4171, 12.4171, 90.0, 90.0, 90.0]
    oxygen = (system.atomic_numbers == 8).numpy()
    for row in range(trajectory.n_frames):
        positions = trajectory.positions[row, 0].numpy().astype(np.float32)
        pairs = distances.capped_distance(positions[oxygen], positions[~oxygen], 2.4, box=box, return_distances=False)
        within = 2.0 if intermolecular else 0.0
        assert float(found[row]) == pytest.approx(len(pairs) / 64 - within, abs=1e-6)


def test_a_smooth_coordination_number_switches_over_its_width():
    """One neighbor at distances around the cutoff of 3 Å, with a width of 1 Å."""
    distance = torch.tensor([2.0, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0], dtype=F64)
    positions = torch.zeros(7, 2, 3, dtype=F64)
    positions[:, 1, 0] = distance
    system = System(torch.tensor([8, 1]), torch.ones(2, dtype=F64), None, torch.empty(0, 2).long(), torch.arange(2))
    observable = CoordinationNumber(("O", "H"), 3.0, 2, switching_width_A=1.0, bin_width=0.5)
    values = observable.values(system, positions)[:, 0]
    expected = [1, 1, 0.5 + 0.25 * math.sqrt(2), 0.5, 0.5 - 0.25 * math.sqrt(2), 0, 0]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=F64))


def test_numbers_beyond_the_range_count_in_the_last_bin():
    system, positions = unbonded(ase.build.bulk("Po", "sc", 3.35).repeat(6))
    assert CoordinationNumber(("Po", "Po"), 4.0, 4)(system, frames(positions)).tolist() == [[[0, 0, 0, 0, 1.0]]]


@pytest.mark.parametrize(("degrees", "bonded"), [(0.0, True), (29.0, True), (31.0, False), (120.0, False)])
@pytest.mark.parametrize(("distance", "near"), [(2.8, True), (3.49, True), (3.51, False)])
def test_a_water_dimer_has_a_bond_within_the_limits(degrees, bonded, distance, near):
    """The acceptor is in the direction of a hydrogen of the donor, turned by an angle, with its hydrogens behind it."""
    angle = math.radians(degrees)
    donor = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0, 0.93]]
    center = distance * np.array([math.cos(angle), math.sin(angle), 0.0])
    away = center / np.linalg.norm(center)
    across = np.array([0, 0, 1.0])
    acceptor = [center, center + 0.6 * away + 0.75 * across, center + 0.6 * away - 0.75 * across]
    positions = torch.tensor(np.array([*donor, *acceptor]), dtype=F64)
    bonds = torch.tensor([[0, 1], [0, 2], [3, 4], [3, 5]])
    system = System.from_bonds(torch.tensor([8, 1, 1, 8, 1, 1]), bonds, dtype=F64)
    found = HydrogenBonds().values(system, positions[None])[0]
    assert found.tolist() == ([1.0, 1.0] if bonded and near else [0.0, 0.0])


def test_hydrogen_bonds_of_water_are_those_of_a_loop(liquid):
    """Every donor, hydrogen and acceptor with ASE's minimum image."""
    system, trajectory = liquid
    found = HydrogenBonds().values(system, trajectory.positions[:, 0])
    for row in range(2):
        atoms = Atoms(system.atomic_numbers.numpy(), trajectory.positions[row, 0].numpy(), cell=system.cell.numpy())
        atoms.pbc = True
        expected = np.zeros(64)
        distances = atoms.get_all_distances(mic=True)
        for donor in range(64):
            for acceptor in range(64):
                if donor == acceptor or distances[3 * donor, 3 * acceptor] >= 3.5:
                    continue
                for hydrogen in (1, 2):
                    if atoms.get_angle(3 * donor + hydrogen, 3 * donor, 3 * acceptor, mic=True) < 30:
                        expected[[donor, acceptor]] += 1
        np.testing.assert_array_equal(found[row].numpy(), expected)


def test_hydrogen_bonds_of_water_are_those_of_mdanalysis(liquid):
    """Its criterion is the angle at the hydrogen. Without a limit on angles both count the same pairs of molecules."""
    hbonds = pytest.importorskip("MDAnalysis.analysis.hydrogenbonds")
    import MDAnalysis
    from MDAnalysis.transformations.boxdimensions import set_dimensions

    system, trajectory = liquid
    universe = MDAnalysis.Universe.empty(192, n_residues=64, atom_resindex=np.arange(192) // 3, trajectory=True)
    universe.add_TopologyAttr("name", ["O", "H1", "H2"] * 64)
    universe.add_TopologyAttr("type", ["O", "H", "H"] * 64)
    universe.load_new(trajectory.positions[:, 0].numpy().astype(np.float32))
    box = [12.4171, 12.4171, 12.4171, 90.0, 90.0, 90.0]
    universe.trajectory.add_transformations(set_dimensions(box))
    analysis = hbonds.hbond_analysis.HydrogenBondAnalysis(
        universe, donors_sel="name O", hydrogens_sel="name H1 H2", acceptors_sel="name O", d_a_cutoff=3.2,
        d_h_cutoff=1.2, d_h_a_angle_cutoff=0.0,
    ).run()  # fmt: skip
    found = analysis.results.hbonds
    expected = np.array([(found[:, 0] == frame).sum() for frame in range(5)]) / 64 * 2
    ours = HydrogenBonds(3.2, 180.0, max_number=40)(system, trajectory)
    numbers = HydrogenBonds(3.2, 180.0, max_number=40).values(system, trajectory.positions[:, 0]).mean(1)
    np.testing.assert_allclose(numbers.numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(ours[:, 0] @ torch.arange(41, dtype=F64), numbers)


def test_the_bundled_water_is_a_tetrahedral_liquid():
    """Neighbors as the integral of g(r) of the whole run; bonds and order in the range of SPC-like models."""
    dataset = load_dataset(str(ROOT / "data" / "bundled"), "water_spcfw", "water", "100")
    system, trajectory = dataset.system(), frames(dataset.train.positions[:, None].float())
    rdf = RDF(3.3, 0.02, ("O", "O"), "ideal_gas")
    g, _ = dataset.reference_run.mean_and_error(rdf)
    integral = float((g * 4 / 3 * math.pi * rdf.bins.edges.pow(3).diff()).sum()) * 63 / 12.4171**3
    assert float(mean(CoordinationNumber(("O", "O"), 3.3), system, trajectory).mean()) == pytest.approx(
        integral, abs=0.1
    )
    assert 3.4 < float(mean(HydrogenBonds(), system, trajectory).mean()) < 3.8
    assert 0.6 < float(mean(TetrahedralOrder(), system, trajectory).mean()) < 0.68


def test_only_molecules_that_can_bond_are_counted():
    """Argon beside two waters: two molecules have hydrogen bonds or not."""
    positions = torch.tensor(
        [[9.0, 9, 9], [0, 0, 0], [0.96, 0, 0], [-0.24, 0, 0.93], [2.8, 0, 0], [3.4, 0, 0.75], [3.4, 0, -0.75]],
        dtype=F64,
    )
    bonds = torch.tensor([[1, 2], [1, 3], [4, 5], [4, 6]])
    system = System.from_bonds(torch.tensor([18, 8, 1, 1, 8, 1, 1]), bonds, dtype=F64)
    assert HydrogenBonds()(system, frames(positions[None, None]))[0, 0, 1] == 1.0
    local = HydrogenBonds().per_molecule(system, frames(positions[None, None]))[0, 0]
    assert local[0].abs().sum() == 0 and local[1, 1] == 1.5


def test_wrong_input_is_named(aspirin, aspirin_geometry):
    still = frames(torch.as_tensor(aspirin_geometry[1])[None, None])
    with pytest.raises(ValueError, match="needs 5 atoms of O, but the system has 4"):
        TetrahedralOrder()(aspirin, still)
    with pytest.raises(ValueError, match="no atom of element 'N'"):
        CoordinationNumber(("N", "H"), 3.0)(aspirin, still)
    with pytest.raises(ValueError, match="no donor or acceptor of N, S"):
        HydrogenBonds(elements=("N", "S"))(aspirin, still)
    with pytest.raises(ValueError, match="no pair between molecules"):
        HydrogenBonds(elements=("O", "C"))(aspirin, still)
    bare = System.from_bonds(torch.tensor([8, 8]), torch.empty(0, 2).long(), dtype=F64)
    with pytest.raises(ValueError, match="the system has no bonds"):
        HydrogenBonds()(bare, frames(torch.rand(1, 1, 2, 3, dtype=F64)))
    with pytest.raises(ValueError, match="angle of at most 180 degrees"):
        HydrogenBonds(max_angle_deg=200.0)
    with pytest.raises(ValueError, match="cutoff_A must be positive"):
        CoordinationNumber(("O", "O"), 3.0, switching_width_A=6.0)
