import numpy as np
import pytest
import torch

from mdsim.observables import BondLengthDistribution, BondLengths, max_bond_deviation
from mdsim.state import System, Trajectory


def trajectory_of(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, frame_interval_fs=1.0)


@pytest.fixture
def shaken(aspirin_geometry, generator) -> torch.Tensor:
    geometry = torch.as_tensor(aspirin_geometry[1])
    return geometry + 0.05 * torch.randn(4, 3, 21, 3, dtype=torch.float64, generator=generator)


def numpy_lengths(system: System, positions: torch.Tensor) -> np.ndarray:
    first, second = system.bonds.T.numpy()
    return np.linalg.norm(positions.numpy()[..., second, :] - positions.numpy()[..., first, :], axis=-1)


def test_lengths_equal_numpy(aspirin, shaken):
    found = BondLengths()(aspirin, trajectory_of(shaken))
    assert found.shape == (4, 3, 21)
    np.testing.assert_allclose(found.numpy(), numpy_lengths(aspirin, shaken))


def test_lengths_use_the_minimum_image():
    cell = torch.diag(torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64))
    intact = np.array([[3.8, 0.1, 0.0], [4.5, 0.1, 0.0]])
    system = System.from_geometry(np.array([1, 1]), intact, cell, dtype=torch.float64)
    wrapped = torch.tensor([[3.8, 0.1, 0.0], [0.5, 0.1, 0.0]], dtype=torch.float64)
    assert BondLengths()(system, trajectory_of(wrapped[None, None])).item() == pytest.approx(0.7)


@pytest.mark.parametrize("pair", [None, ("H", "C")])
def test_distribution_equals_numpy(aspirin, shaken, pair):
    lengths = numpy_lengths(aspirin, shaken)
    if pair is not None:
        numbers = aspirin.atomic_numbers[aspirin.bonds].numpy()
        lengths = lengths[..., (np.sort(numbers, axis=1) == [1, 6]).all(1)]
    found = BondLengthDistribution(2.0, 0.02, pair=pair, min_length_A=0.8)(aspirin, trajectory_of(shaken))
    counts = np.histogram(lengths[1, 2], bins=60, range=(0.8, 2.0))[0]
    np.testing.assert_allclose(found[1, 2].numpy(), counts / (lengths.shape[-1] * 0.02))
    inside = ((lengths >= 0.8) & (lengths <= 2.0)).mean(-1)
    np.testing.assert_allclose(0.02 * found.sum(-1).numpy(), inside)


def test_largest_deviation(aspirin, shaken):
    reference = torch.full((21,), 1.3, dtype=torch.float64)
    found = max_bond_deviation(aspirin, shaken, reference)
    np.testing.assert_allclose(found.numpy(), np.abs(numpy_lengths(aspirin, shaken) - 1.3).max(-1))


def test_largest_deviation_sees_nan(aspirin, shaken):
    shaken[2, 1, 0] = torch.nan
    found = max_bond_deviation(aspirin, shaken, torch.full((21,), 1.3))
    assert found.isnan().nonzero().tolist() == [[2, 1]]


def test_errors(aspirin, shaken):
    argon = System.from_geometry(np.array([18, 18]), np.array([[0.0, 0, 0], [9.0, 0, 0]]), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"elements Ar\) has no bond"):
        BondLengths()(argon, trajectory_of(shaken[:, :, :2]))
    with pytest.raises(ValueError, match="has no O-O bond"):
        BondLengthDistribution(2.0, 0.1, pair=("O", "O"))(aspirin, trajectory_of(shaken))
    with pytest.raises(ValueError, match="21 bonds need as many reference lengths, found 3"):
        max_bond_deviation(aspirin, shaken, torch.ones(3))
    with pytest.raises(ValueError, match="min_length_A must not be negative"):
        BondLengthDistribution(2.0, 0.1, min_length_A=-0.1)


def test_the_largest_deviation_in_moving_cells():
    """A bond through the boundary is as long as the cell of its frame says."""
    edges = torch.tensor([[10.0, 9.0]], dtype=torch.float64)
    cells = edges[..., None, None] * torch.eye(3, dtype=torch.float64)
    system = System.from_bonds(torch.tensor([1, 1]), torch.tensor([[0, 1]]), cells[0, 0], dtype=torch.float64)
    positions = torch.tensor([[0.1, 0.0, 0.0], [8.5, 0.0, 0.0]], dtype=torch.float64).expand(1, 2, 2, 3)
    trajectory = Trajectory(positions, None, None, 1.0, cells)
    found = max_bond_deviation(trajectory.in_cells(system), positions, torch.tensor([1.0]).double())
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4]], dtype=torch.float64))
