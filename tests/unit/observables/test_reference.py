import math

import numpy as np
import pytest
import torch

from mdsim.observables import RDF, VACF, BondLengths, reference_from_file, reference_from_frames, reweight
from mdsim.state import System, Trajectory
from mdsim.units import kT_eV


@pytest.fixture
def dimer() -> System:
    return System.from_geometry(np.array([1, 1]), np.array([[0.0, 0, 0], [0.74, 0, 0]]), dtype=torch.float64)


def stretched(lengths: torch.Tensor) -> torch.Tensor:
    """Positions of a dimer of the given lengths, of any batch shape."""
    positions = torch.zeros(*lengths.shape, 2, 3, dtype=torch.float64)
    positions[..., 1, 0] = lengths
    return positions


def test_mean_and_standard_error_of_independent_frames(dimer, generator):
    lengths = 1.0 + 0.1 * torch.randn(1000, dtype=torch.float64, generator=generator)
    mean, error = reference_from_frames(BondLengths(), dimer, stretched(lengths), n_blocks=100)
    assert mean.item() == pytest.approx(lengths.mean().item())
    blocks = lengths.reshape(100, 10).mean(1)
    assert error.item() == pytest.approx((blocks.std() / 10).item())
    assert error.item() == pytest.approx(0.1 / math.sqrt(1000), rel=0.3)  # a standard deviation of 7 % from 100 blocks


def test_blocks_see_correlation(dimer, generator):
    """Every frame repeated 50 times carries no new information: the error is that of the distinct ones."""
    distinct = 1.0 + 0.1 * torch.randn(200, dtype=torch.float64, generator=generator)
    _, error = reference_from_frames(BondLengths(), dimer, stretched(distinct.repeat_interleave(50)), n_blocks=100)
    _, expected = reference_from_frames(BondLengths(), dimer, stretched(distinct), n_blocks=100)
    torch.testing.assert_close(error, expected)


def test_trajectory_with_replicas_and_uneven_blocks(dimer, generator):
    lengths = 1.0 + 0.1 * torch.rand(23, 3, dtype=torch.float64, generator=generator)
    trajectory = Trajectory(stretched(lengths), None, None, 1.0)
    mean, error = reference_from_frames(BondLengths(), dimer, trajectory, n_blocks=5)
    assert mean.item() == pytest.approx(lengths.mean().item())
    assert error.item() == pytest.approx((lengths.std() / math.sqrt(69)).item(), rel=0.6)


def test_weights_equal_repetition(dimer, generator):
    lengths = 1.0 + 0.1 * torch.rand(20, dtype=torch.float64, generator=generator)
    counts = torch.randint(0, 4, (20,), generator=generator)
    rdf = RDF(2.0, 0.1)
    weighted, _ = reference_from_frames(rdf, dimer, stretched(lengths), weights=counts.double())
    repeated, _ = reference_from_frames(rdf, dimer, stretched(lengths.repeat_interleave(counts)))
    torch.testing.assert_close(weighted, repeated)


def test_wrong_frames(dimer):
    frames = stretched(torch.ones(12, dtype=torch.float64))
    with pytest.raises(ValueError, match="found 12 frames"):
        reference_from_frames(BondLengths(), dimer, frames, n_blocks=13)
    with pytest.raises(ValueError, match="not negative"):
        reference_from_frames(BondLengths(), dimer, frames, weights=-torch.ones(12))
    with pytest.raises(ValueError, match=r"found shape \(3,\)"):
        reference_from_frames(BondLengths(), dimer, Trajectory(frames[:, None], None, None, 1.0), torch.ones(3))
    with pytest.raises(ValueError, match="vacf is a dynamical observable"):
        reference_from_frames(VACF(0.0), dimer, Trajectory(frames[:, None], frames[:, None], None, 1.0))
    frames[7] = torch.nan
    with pytest.raises(ValueError, match="not finite in frame 7 of replica 0"):
        reference_from_frames(BondLengths(), dimer, frames)


@pytest.mark.parametrize(
    "text",
    [
        "0.0,1.0\n1.0,3.0\n2.0,5.0\n",
        "# O-O\nr (A), g(r)\n0.0,1.0\n\n1.0, 3.0\n# halfway\n2.0 ,5.0",
        "@ xmgrace\r\n0 1\r\n1\t3\r\n2e0   5.0\r\n",
        "\ufeffr;g\n0;1\n1;3\n2;5\n",
    ],
)
def test_reads_and_interpolates(tmp_path, text):
    path = tmp_path / "rdf.csv"
    path.write_bytes(text.encode())
    centers = torch.tensor([0.0, 0.25, 1.0, 1.9, 2.0], dtype=torch.float64)
    torch.testing.assert_close(reference_from_file(path, centers), 1.0 + 2.0 * centers)


@pytest.mark.parametrize(
    "text, message",
    [
        ("0,1\n1,2,3\n", r"rdf\.csv, line 2: expected two finite numbers, found '1,2,3'"),
        ("r g\n0 1\n1 nan\n", r"rdf\.csv, line 3: expected two finite numbers, found '1 nan'"),
        ("0 1\nend of table\n", r"rdf\.csv, line 2: expected two finite numbers"),
        ("0 1\n1 1\n1 2\n", r"rdf\.csv, line 3: the first column must increase"),
        ("r g\n", r"rdf\.csv: expected at least two rows of two numbers, found 0"),
        ("0 1\n1.5 2\n", r"rdf\.csv covers 0 to 1\.5, but bin centers reach from 0\.5 to 2"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "rdf.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        reference_from_file(path, torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize("name", ["H2O_288K_wu", "H2O_338K_wu", "H2O_388K_wu", "water_exp_298K_redd"])
def test_water_tables(reference_path, name):
    rdf = RDF(6.0, 0.05, pair=("O", "O"), normalization="ideal_gas")
    values = reference_from_file(reference_path / "water_rdf" / f"{name}.csv", rdf.bin_centers)
    peak = rdf.bin_centers[values.argmax()]
    assert 2.7 < peak < 2.9 and 2.2 < values.max() < 3.5
    assert (values[rdf.bin_centers < 2.0].abs() < 0.01).all()


def test_reweighting_a_harmonic_oscillator(generator):
    """Samples at 500 K give the mean energy at 450 K, kT/2 per degree of freedom."""
    hot, cold, n_modes = kT_eV(500.0), kT_eV(450.0), 6
    energies = 0.5 * hot * torch.randn(20000, n_modes, dtype=torch.float64, generator=generator).square().sum(-1)
    weights, effective = reweight(energies, 500.0, 450.0)
    assert weights.sum().item() == pytest.approx(1.0)
    found = (weights * energies).sum()
    error = ((weights * (energies - found)).square().sum()).sqrt()
    assert abs(found - 0.5 * n_modes * cold) < 4 * error
    # <w>²/<w²> of w = exp(-aU) with U = kT/2 χ², in closed form.
    a = hot / cold - 1.0
    assert effective.item() / 20000 == pytest.approx(((1 + 2 * a) / (1 + a) ** 2) ** (n_modes / 2), rel=0.01)


def test_reweighting_survives_total_energies():
    """Electronic energies of -17,000 eV over kT overflow exp; differences are what counts."""
    energies = torch.tensor([[-17000.0, -17000.1], [-17000.2, -16999.0]], dtype=torch.float64)
    weights, _ = reweight(energies, 500.0, 350.0)
    beta = 1 / kT_eV(350.0) - 1 / kT_eV(500.0)
    assert weights.shape == (2, 2) and weights.isfinite().all()
    assert (weights[0, 1] / weights[0, 0]).item() == pytest.approx(math.exp(0.1 * beta), rel=1e-6)


def test_reweighting_to_the_same_temperature():
    weights, effective = reweight(torch.tensor([1.0, -5.0, 3.0]), 300.0, 300.0)
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert effective.item() == pytest.approx(3.0)


def test_wrong_reweighting():
    with pytest.raises(ValueError, match="found 1 of 2 not finite"):
        reweight(torch.tensor([1.0, torch.nan]), 300.0, 310.0)
    with pytest.raises(ValueError, match="temperatures must be positive"):
        reweight(torch.tensor([1.0]), 300.0, 0.0)
