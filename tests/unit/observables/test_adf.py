import numpy as np
import pytest
import torch

from mdsim.geometry import angles
from mdsim.observables import ADF
from mdsim.observables.adf import bonded_triplets
from mdsim.state import System, Trajectory


def trajectory_of(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, frame_interval_fs=1.0)


def chain(bonds: list[list[int]], numbers: list[int], cell: torch.Tensor | None = None) -> System:
    n_atoms = len(numbers)
    return System(
        torch.tensor(numbers),
        torch.ones(n_atoms, dtype=torch.float64),
        cell,
        torch.tensor(bonds, dtype=torch.long).reshape(-1, 2),
        torch.zeros(n_atoms, dtype=torch.long),
    )


def bent(angle_deg: float) -> torch.Tensor:
    angle = np.deg2rad(angle_deg)
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [np.cos(angle), np.sin(angle), 0.0]], dtype=torch.float64)


def test_triplets_equal_a_search_atom_by_atom(aspirin):
    expected = set()
    partners: dict[int, set[int]] = {atom: set() for atom in range(21)}
    for i, j in aspirin.bonds.tolist():
        partners[i].add(j)
        partners[j].add(i)
    for center, around in partners.items():
        expected |= {(i, center, k) for i in around for k in around if i < k}
    found = bonded_triplets(aspirin).tolist()
    assert len(found) == len(expected) and {tuple(triplet) for triplet in found} == expected


@pytest.mark.parametrize("angle, filled", [(104.5, 104), (0.0, 0), (180.0, 179)])
def test_one_angle_fills_one_bin(angle, filled):
    values = ADF(1.0)(chain([[0, 1], [1, 2]], [1, 8, 1]), trajectory_of(bent(angle)[None, None]))[0, 0]
    assert values.nonzero().flatten().tolist() == [filled]
    assert values.sum() == pytest.approx(1.0)


def test_equals_numpy_and_integrates_to_one(aspirin, aspirin_geometry, generator):
    noise = 0.1 * torch.randn(3, 2, 21, 3, dtype=torch.float64, generator=generator)
    positions = torch.as_tensor(aspirin_geometry[1]) + noise
    found = ADF(2.0)(aspirin, trajectory_of(positions))
    degrees = np.rad2deg(angles(positions, bonded_triplets(aspirin)).numpy())
    expected = np.histogram(degrees[2, 1], bins=90, range=(0.0, 180.0), density=True)[0]
    np.testing.assert_allclose(found[2, 1].numpy(), expected)
    torch.testing.assert_close(2.0 * found.sum(-1), torch.ones(3, 2, dtype=torch.float64))


def test_minimum_image():
    cell = 5.0 * torch.eye(3, dtype=torch.float64)
    positions = bent(104.5)
    wrapped = (positions + 4.9) % 5.0
    assert (wrapped - positions - 4.9).abs().max() > 1.0  # the molecule is cut by the boundary
    values = ADF(1.0)(chain([[0, 1], [1, 2]], [1, 8, 1], cell), trajectory_of(wrapped[None, None]))
    assert values[0, 0].nonzero().flatten().tolist() == [104]


def test_element_triples_add_up(aspirin, aspirin_geometry):
    trajectory = trajectory_of(torch.as_tensor(aspirin_geometry[1])[None, None])
    kinds = aspirin.atomic_numbers[bonded_triplets(aspirin)]
    symbols = {1: "H", 6: "C", 8: "O"}
    kinds = [(min(i, k), j, max(i, k)) for i, j, k in kinds.tolist()]
    total = sum(
        kinds.count(kind) * ADF(5.0, tuple(symbols[number] for number in kind))(aspirin, trajectory)
        for kind in set(kinds)
    )
    torch.testing.assert_close(total / len(kinds), ADF(5.0)(aspirin, trajectory))
    assert torch.equal(ADF(5.0, ("H", "C", "C"))(aspirin, trajectory), ADF(5.0, ("C", "C", "H"))(aspirin, trajectory))


def test_errors(aspirin, aspirin_geometry):
    trajectory = trajectory_of(torch.as_tensor(aspirin_geometry[1])[None, None])
    with pytest.raises(ValueError, match="whole number of bins"):
        ADF(7.0)
    with pytest.raises(ValueError, match="has no O-H-O bonded angle"):
        ADF(1.0, ("O", "H", "O"))(aspirin, trajectory)
    with pytest.raises(ValueError, match="has no bonded angle"):
        ADF(1.0)(chain([], [18, 18, 18]), trajectory_of(bent(90.0)[None, None]))
