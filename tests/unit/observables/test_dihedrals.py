"""Distributions of dihedral angles, against MDAnalysis, numpy and closed forms."""

import math

import numpy as np
import pytest
import torch

from mdsim.estimator.boltzmann import boltzmann_gradient
from mdsim.geometry import dihedrals_deg
from mdsim.observables import DihedralDistribution, free_energy_eV, rotatable_dihedrals
from mdsim.state import System, Trajectory
from mdsim.units import kT_eV

CELLS = {
    "open": None,
    "orthorhombic": torch.diag(torch.tensor([9.0, 10.0, 11.0])),
    "triclinic": torch.tensor([[9.0, 0, 0], [2.5, 9.5, 0], [-2.0, 1.5, 10.0]]),
}


def trajectory_of(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, frame_interval_fs=1.0)


def chain(cell: torch.Tensor | None = None) -> System:
    bonds = torch.tensor([[0, 1], [1, 2], [2, 3]])
    lattice = None if cell is None else cell.double()
    return System(torch.tensor([1, 8, 8, 1]), torch.ones(4).double(), lattice, bonds, torch.zeros(4, dtype=torch.long))


def twisted(degrees: torch.Tensor) -> torch.Tensor:
    """Chains of four atoms with these dihedrals; positions (..., 4, 3)."""
    turn = torch.deg2rad(degrees.double())
    zero = torch.zeros_like(turn)
    first = torch.stack([zero - 0.3, zero + 0.9, zero], -1)
    end = torch.stack([zero + 1.9, 0.8 * turn.cos(), 0.8 * turn.sin()], -1)
    axis = torch.stack([zero + 1.4, zero, zero], -1)
    return torch.stack([first, torch.zeros_like(first), axis, end], -2)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_equal_to_mdanalysis(cell, generator):
    """Random quadruplets, wrapped into the cell atom by atom, in the single precision of MDAnalysis."""
    distances = pytest.importorskip("MDAnalysis.lib.distances")
    from MDAnalysis.lib.mdamath import triclinic_box

    corners = 3 * torch.rand(500, 4, 3, generator=generator)
    if cell is not None:
        corners = corners + torch.randint(-2, 3, corners.shape, generator=generator).float() @ cell
    box = None if cell is None else triclinic_box(*cell.numpy())
    expected = np.rad2deg(distances.calc_dihedrals(*corners.numpy().swapaxes(0, 1), box=box))
    found = dihedrals_deg(corners.double(), torch.tensor([[0, 1, 2, 3]]), None if cell is None else cell.double())
    difference = (found[:, 0].numpy() - expected + 180.0) % 360.0 - 180.0
    assert np.abs(difference).max() < 0.05 and np.median(np.abs(difference)) < 1e-4


@pytest.mark.parametrize(
    ("degrees", "filled"), [(-179.99, 0), (-170.1, 0), (-169.9, 1), (-0.1, 17), (0.1, 18), (179.9, 35), (180.0, 35)]
)
def test_one_angle_fills_one_bin(degrees, filled):
    values = DihedralDistribution(((0, 1, 2, 3),), 10.0)(chain(), trajectory_of(twisted(torch.tensor([[degrees]]))))
    assert values[0, 0].nonzero().flatten().tolist() == [filled]
    assert values.sum() * 10.0 == pytest.approx(1.0)


def test_the_mirror_image_has_the_mirrored_distribution(aspirin, aspirin_geometry, generator):
    noise = 0.2 * torch.randn(5, 3, 21, 3, dtype=torch.float64, generator=generator)
    positions = torch.as_tensor(aspirin_geometry[1]) + noise
    observable = DihedralDistribution(tuple(one for (one,) in rotatable_dihedrals(aspirin).values()), 20.0)
    found = observable(aspirin, trajectory_of(positions))
    mirrored = observable(aspirin, trajectory_of(positions * torch.tensor([1.0, 1.0, -1.0])))
    torch.testing.assert_close(mirrored, found.flip(-1))
    assert not torch.equal(found, found.flip(-1))


def test_equals_numpy_and_integrates_to_one(aspirin, aspirin_geometry, generator):
    noise = 0.2 * torch.randn(3, 2, 21, 3, dtype=torch.float64, generator=generator)
    positions = torch.as_tensor(aspirin_geometry[1]) + noise
    quadruplets = tuple(one for (one,) in rotatable_dihedrals(aspirin).values())
    found = DihedralDistribution(quadruplets, 20.0)(aspirin, trajectory_of(positions))
    degrees = dihedrals_deg(positions, torch.tensor(quadruplets)).numpy()
    expected = np.histogram(degrees[2, 1], bins=18, range=(-180.0, 180.0), density=True)[0]
    np.testing.assert_allclose(found[2, 1].numpy(), expected)
    torch.testing.assert_close(20.0 * found.sum(-1), torch.ones(3, 2, dtype=torch.float64))
    alone = [DihedralDistribution((one,), 20.0)(aspirin, trajectory_of(positions)) for one in quadruplets]
    torch.testing.assert_close(torch.stack(alone).mean(0), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_undefined_angle_is_not_counted(dtype):
    positions = twisted(torch.tensor([[20.0], [20.0], [20.0]])).to(dtype)
    positions[1, 0, 0] = torch.tensor([-2.0, 0.0, 0.0])
    positions[2, 0, 0] = torch.nan
    values = DihedralDistribution(((0, 1, 2, 3), (3, 2, 1, 0)), 10.0)(chain(), trajectory_of(positions))
    assert (values[:2].sum(-1) * 10.0).flatten().tolist() == pytest.approx([1.0, 0.0])
    assert values[2].isnan().all()


def test_free_energy():
    """Of p ∝ exp(-(k cos φ)/kT), up to a constant k cos φ; empty bins end at -kT ln of the floor."""
    angles = torch.deg2rad(torch.arange(-179.5, 180.0, 1.0, dtype=torch.float64))
    potential = 0.05 * angles.cos()
    density = torch.exp(-potential / kT_eV(500.0))
    profile = free_energy_eV(density / density.sum(), 500.0)
    torch.testing.assert_close(profile - profile.mean(), potential - potential.mean(), rtol=0, atol=1e-12)
    assert float(free_energy_eV(torch.tensor([1 / 360]), 500.0)) == pytest.approx(0.0, abs=1e-7)
    empty = free_energy_eV(torch.tensor([0.0, -1.0, 1e-9]), 500.0)
    assert empty.tolist() == pytest.approx([kT_eV(500.0) * math.log(1000)] * 3)


def test_the_estimator_has_the_exact_derivative_of_a_torsion():
    """U = k (1 + cos 3φ)/2 + c cos φ: d<g_b>/d(k, c) of samples, in standard errors, against quadrature."""
    kT, n_batches, n = 0.04, 40, 4000
    parameters = torch.tensor([0.06, -0.03], dtype=torch.float64, requires_grad=True)
    grid = torch.linspace(-180.0, 180.0, 36001, dtype=torch.float64)[:-1] + 0.005

    def features(degrees: torch.Tensor) -> torch.Tensor:
        turn = torch.deg2rad(degrees)
        return torch.stack([(1 + (3 * turn).cos()) / 2, turn.cos()], -1)

    def bins_of(values: torch.Tensor) -> torch.Tensor:
        weights = torch.exp(-(features(grid) @ values) / kT)
        return (weights / weights.sum()).reshape(12, -1).sum(-1) / 30.0

    exact = torch.autograd.functional.jacobian(bins_of, parameters.detach())
    direction = torch.linspace(-1, 1, 12, dtype=torch.float64).square()
    observable = DihedralDistribution(((0, 1, 2, 3),), 30.0)
    probabilities = torch.exp(-(features(grid) @ parameters.detach()) / kT)
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(n_batches):
        degrees = grid[torch.multinomial(probabilities, n, replacement=True, generator=generator)]
        values = observable(chain(), trajectory_of(twisted(degrees)[:, None]))[:, 0]
        energies = features(degrees)
        estimate = boltzmann_gradient(
            lambda index, energies=energies: energies[index] @ parameters,
            [parameters],
            values,
            lambda mean: direction @ mean,
            kT,
            minibatch_size=n,
        )
        found.append(estimate.gradients[0])
    gradients = torch.stack(found)
    error = gradients.std(0) / math.sqrt(n_batches)
    assert ((gradients.mean(0) - direction @ exact) / error).abs().max() < 4
    assert ((direction @ exact) / error).abs().min() > 10


@pytest.mark.parametrize(
    ("atoms", "width", "message"),
    [
        ((), 10.0, "at least one"),
        (((0, 1, 2, 2),), 10.0, r"four different atoms i, j, k, l; found \[0, 1, 2, 2\]"),
        (((0, 1, -1, 2),), 10.0, "four different atoms"),
        (((0, 1, 2, 3),), 7.0, "whole number of bins"),
    ],
)
def test_errors(atoms, width, message):
    with pytest.raises(ValueError, match=message):
        DihedralDistribution(atoms, width)


def test_an_atom_that_does_not_exist():
    with pytest.raises(ValueError, match=r"dihedral \[0, 1, 2, 4\]: the system has the atoms 0 to 3"):
        DihedralDistribution(((0, 1, 2, 4),), 10.0)(chain(), trajectory_of(twisted(torch.tensor([[20.0]]))))
