"""Contributions of single molecules: their mean is the observable."""

import pytest
import torch

from mdsim.interfaces import LocalObservable
from mdsim.observables import (
    ADF,
    RDF,
    BondLengthDistribution,
    CoordinationNumber,
    DihedralDistribution,
    DistanceDistribution,
    EndToEndDistance,
    FourierStructureFactor,
    HydrogenBonds,
    RadiusOfGyration,
    TetrahedralOrder,
)
from mdsim.state import System, Trajectory

OBSERVABLES = {
    "bonds": BondLengthDistribution(2.0, 0.1),
    "bonds_OH": BondLengthDistribution(2.0, 0.1, pair=("O", "H")),
    "angles": ADF(10.0),
    "dihedrals": DihedralDistribution(((1, 0, 3, 4), (9, 10, 11, 12)), 30.0),
    "distances_OH": DistanceDistribution(4.0, 0.2, ("O", "H")),
    "distances_within": DistanceDistribution(4.0, 0.2, ("H", "H"), "within_molecules"),
    "distances_between": DistanceDistribution(4.0, 0.2, ("H", "H"), "between_molecules"),
    "structure_factor": FourierStructureFactor(6.0, 0.5, max_distance_A=4.0),
    "structure_factor_OH": FourierStructureFactor(6.0, 0.5, ("O", "H"), max_distance_A=4.0),
    "radius_of_gyration": RadiusOfGyration(1.0, 0.1),
    "end_to_end": EndToEndDistance(((1, 2), (13, 14)), 2.0, 0.1),
    "coordination": CoordinationNumber(("O", "H"), 2.5),
    "tetrahedral_order": TetrahedralOrder(0.1),
    "hydrogen_bonds": HydrogenBonds(max_angle_deg=60.0),
    "rdf": RDF(4.0, 0.2, normalization="ideal_gas"),
    "rdf_OO": RDF(4.0, 0.2, pair=("O", "O"), normalization="ideal_gas"),
}


@pytest.fixture
def waters() -> tuple[System, Trajectory]:
    """Six water molecules in a triclinic cell; 3 frames of 2 replicas, one of them broken."""
    molecule = torch.tensor([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], dtype=torch.float64)
    places = torch.tensor([[0.0, 0, 0], [3, 0, 0], [6, 0, 0], [0, 3, 3], [3, 3, 3], [6, 3, 6]], dtype=torch.float64)
    cell = torch.tensor([[9.0, 0, 0], [1, 9, 0], [0, 1, 9]], dtype=torch.float64)
    positions = torch.cat([molecule + place for place in places])
    system = System.from_geometry(torch.tensor([8, 1, 1] * 6), positions, cell, torch.float64)
    noise = torch.randn(3, 2, 18, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frames = positions + 0.15 * noise
    frames[1, 1, 4] = torch.nan
    return system, Trajectory(frames, None, None, 10.0)


@pytest.mark.parametrize("name", OBSERVABLES)
def test_the_mean_over_molecules_is_the_observable(name, waters):
    system, trajectory = waters
    observable = OBSERVABLES[name]
    assert isinstance(observable, LocalObservable)
    found = observable.per_molecule(system, trajectory)
    assert found.shape == (3, 2, 6, len(observable.bin_centers))
    assert found[1, 1].isnan().all() and int(found.isnan().sum()) == found[1, 1].numel()
    torch.testing.assert_close(found.mean(2), observable(system, trajectory), equal_nan=True, rtol=1e-12, atol=1e-12)


def test_bonds_of_a_molecule_are_its_own(waters):
    system, trajectory = waters
    observable = OBSERVABLES["bonds"]
    found = observable.per_molecule(system, trajectory)
    alone = System.from_geometry(torch.tensor([8, 1, 1]), trajectory.positions[0, 0, 9:12], system.cell, torch.float64)
    expected = observable(alone, Trajectory(trajectory.positions[:, :, 9:12], None, None, 10.0))
    torch.testing.assert_close(found[0, :, 3], expected[0])


def test_a_pair_counts_half_for_each_molecule():
    """Two oxygen atoms 2.7 Å apart, and a third one out of reach of both."""
    positions = torch.tensor([[0.0, 0, 0], [2.7, 0, 0], [0, 6, 6]], dtype=torch.float64)
    system = System.from_geometry(torch.tensor([8, 8, 8]), positions, 12 * torch.eye(3), torch.float64)
    rdf = RDF(4.0, 1.0)
    found = rdf.per_molecule(system, Trajectory(positions[None, None], None, None, 1.0))[0, 0]
    assert found[:, 2].tolist() == pytest.approx([0.5, 0.5, 0.0])  # 3 molecules × ½ pair / 3 pairs, per Å
    assert float(found[:, [0, 1, 3]].abs().max()) == 0
