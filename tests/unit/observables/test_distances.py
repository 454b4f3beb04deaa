"""Distributions of distances by elements."""

import numpy as np
import pytest
import torch
from scattered_waters import waters

from mdsim.geometry import all_pairs, pair_distances
from mdsim.observables import RDF, DistanceDistribution
from mdsim.observables.distances import pairs_of_elements
from mdsim.state import Trajectory

CELL = torch.diag(torch.tensor([11.0, 12.0, 13.0]))


@pytest.mark.parametrize("cell", [None, CELL], ids=["open", "periodic"])
@pytest.mark.parametrize("among", ["all", "within_molecules", "between_molecules"])
@pytest.mark.parametrize("pair", [None, ("O", "H"), ("H", "H")])
def test_equals_numpy(pair, among, cell):
    system, trajectory = waters(12, cell, 3, torch.float64)
    found = DistanceDistribution(5.0, 0.25, pair, among)(system, trajectory)
    pairs = all_pairs(system.n_atoms)
    same = system.molecules[pairs[:, 0]] == system.molecules[pairs[:, 1]]
    chosen = {"all": same | ~same, "within_molecules": same, "between_molecules": ~same}[among]
    if pair is not None:
        numbers = system.atomic_numbers[pairs].sort(-1).values
        chosen &= (numbers == torch.tensor(sorted({"O": 8, "H": 1}[one] for one in pair))).all(-1)
    distances = pair_distances(trajectory.positions, pairs[chosen], system.cell)
    for frame, replica in ((0, 0), (2, 1)):
        counts = np.histogram(distances[frame, replica].numpy(), bins=20, range=(0.0, 5.0))[0]
        np.testing.assert_allclose(found[frame, replica].numpy(), counts / (int(chosen.sum()) * 0.25))
    assert found[1, 1].isnan().all()


def test_pairs_of_elements_add_up(aspirin, aspirin_geometry):
    trajectory = Trajectory(torch.as_tensor(aspirin_geometry[1])[None, None], None, None, 1.0)
    pairs = pairs_of_elements(aspirin)
    assert pairs == [("O", "O"), ("O", "C"), ("O", "H"), ("C", "C"), ("C", "H"), ("H", "H")]
    each = [DistanceDistribution(12.0, 0.5, pair) for pair in pairs]
    total = sum(one.pairs.count(aspirin) * one(aspirin, trajectory) for one in each) / 210
    torch.testing.assert_close(total, DistanceDistribution(12.0, 0.5)(aspirin, trajectory))
    torch.testing.assert_close(total, RDF(12.0, 0.5)(aspirin, trajectory))  # of a molecule, the RDF of the paper
    assert total.sum() * 0.5 == pytest.approx(1.0)


def test_pairs_of_elements_within_and_between():
    system, _ = waters(2, None, 2)
    assert pairs_of_elements(system, "within_molecules") == [("O", "H"), ("H", "H")]
    assert pairs_of_elements(system, "between_molecules") == [("O", "O"), ("O", "H"), ("H", "H")]
    assert pairs_of_elements(waters(1, None, 2)[0], "between_molecules") == []


def test_names():
    assert DistanceDistribution(5.0, 0.5).name == "distances"
    assert DistanceDistribution(5.0, 0.5, ("C", "O")).name == "distances_CO"
    assert DistanceDistribution(5.0, 0.5, ("C", "O"), "within_molecules").name == "distances_CO_within_molecules"


def test_errors():
    system, trajectory = waters(12, CELL, 2)
    with pytest.raises(ValueError, match=r"max_distance_A = 6.0 is beyond half the smallest height of the cell, 5.5"):
        DistanceDistribution(6.0, 0.5)(system, trajectory)
    with pytest.raises(ValueError, match="no O-O pair within a molecule"):
        DistanceDistribution(5.0, 0.5, ("O", "O"), "within_molecules")(system, trajectory)
