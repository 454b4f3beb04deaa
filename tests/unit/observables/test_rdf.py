import math
import warnings

import numpy as np
import pytest
import torch

from mdsim.geometry import all_pairs, pair_distances
from mdsim.observables import RDF, histogram
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import histogram as plain_histogram
from mdsim.state import System, Trajectory


def gas(n_atoms: int, length: float | None, numbers: list[int] | None = None) -> System:
    """Atoms without bonds."""
    return System(
        atomic_numbers=torch.tensor(numbers or [18] * n_atoms),
        masses=torch.ones(n_atoms, dtype=torch.float64),
        cell=None if length is None else length * torch.eye(3, dtype=torch.float64),
        bonds=torch.empty(0, 2, dtype=torch.long),
        molecules=torch.arange(n_atoms),
    )


def trajectory_of(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, frame_interval_fs=1.0)


def uniform(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def test_counts_equal_numpy(generator):
    values = 5.0 * uniform(generator, 7, 400) - 1.0
    bins = Bins.spanning(0.0, 3.0, 0.1)
    expected = [np.histogram(row, bins=bins.count, range=(0.0, bins.stop))[0] for row in values.numpy()]
    np.testing.assert_array_equal(plain_histogram(values, bins).numpy(), np.array(expected))


def test_last_bin_includes_its_edge():
    counts = plain_histogram(torch.tensor([[0.0, 1.0, 2.0, 2.1, -0.1, torch.nan]]), Bins.spanning(0.0, 2.0, 1.0))
    assert counts.tolist() == [[1, 2]]


def test_pair_density_equals_numpy(aspirin, generator):
    geometry = torch.randn(4, 2, 21, 3, dtype=torch.float64, generator=generator) * 2.0
    rdf = RDF(10.0, 0.02)
    found = rdf(aspirin, trajectory_of(geometry))
    distances = pair_distances(geometry, all_pairs(21)).numpy()
    for frame, replica in [(0, 0), (3, 1)]:
        counts = np.histogram(distances[frame, replica], bins=500, range=(0.0, 10.0))[0]
        np.testing.assert_allclose(found[frame, replica].numpy(), counts / (210 * 0.02))
    within = (distances <= 10.0).mean(-1)
    np.testing.assert_allclose(found.sum(-1).numpy() * 0.02, within)


def test_element_pairs_add_up_to_all_pairs(aspirin, aspirin_geometry):
    trajectory = trajectory_of(torch.as_tensor(aspirin_geometry[1])[None, None])
    count = {"C": 9, "H": 8, "O": 4}
    total = 0.0
    for first, second in [("C", "C"), ("H", "H"), ("O", "O"), ("C", "H"), ("H", "O"), ("O", "C")]:
        n_pairs = count[first] * (count[first] - 1) / 2 if first == second else count[first] * count[second]
        total = total + n_pairs * RDF(10.0, 0.05, pair=(first, second))(aspirin, trajectory)
    torch.testing.assert_close(total / 210.0, RDF(10.0, 0.05)(aspirin, trajectory))
    swapped = RDF(10.0, 0.05, pair=("O", "C"))(aspirin, trajectory)
    assert torch.equal(RDF(10.0, 0.05, pair=("C", "O"))(aspirin, trajectory), swapped)


@pytest.mark.parametrize("pair", [None, ("O", "O"), ("O", "H")])
def test_ideal_gas_is_one(generator, pair):
    n_frames, length = 400, 10.0
    system = gas(30, length, [8] * 10 + [1] * 20)
    rdf = RDF(5.0, 0.5, pair=pair, normalization="ideal_gas")
    values = rdf(system, trajectory_of(length * uniform(generator, n_frames, 2, 30, 3)))
    samples = values.flatten(0, 1)
    error = samples.std(0) / math.sqrt(len(samples))
    sigmas = (samples.mean(0) - 1.0) / error
    assert sigmas.abs().max() < 4.0
    assert error[-1] < 0.02


def test_simple_cubic_shells():
    """6, 12 and 8 neighbors at 1, √2 and √3 lattice constants; g(r) counts them again when it is integrated."""
    n, a = 4, 2.5
    grid = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64)] * 3) * a
    system = gas(n**3, n * a)
    rdf = RDF(5.0, 0.25, normalization="ideal_gas")
    g = rdf(system, trajectory_of(grid[None, None]))[0, 0]
    shell = 4 / 3 * math.pi * rdf.bins.edges.pow(3).diff()
    neighbors = g * shell * (n**3 - 1) / (n * a) ** 3
    expected = torch.zeros(20, dtype=torch.float64)
    expected[int(a / 0.25)], expected[int(a * math.sqrt(2) / 0.25)], expected[int(a * math.sqrt(3) / 0.25)] = 6, 12, 8
    expected[-1] = 6 / 2  # at exactly half the cell an atom and its image are one pair
    torch.testing.assert_close(neighbors, expected)


@pytest.mark.parametrize("smearing", [0.05, 0.4])
def test_smeared_pairs_contribute_one(generator, smearing):
    system = gas(6, None)
    positions = 0.1 * torch.randn(3, 2, 6, 3, dtype=torch.float64, generator=generator)
    positions[..., 0] += 4.0 * torch.arange(6, dtype=torch.float64)  # all distances well inside the range
    values = RDF(24.0, 0.1, smearing_A=smearing)(system, trajectory_of(positions))
    torch.testing.assert_close(values.sum(-1) * 0.1, torch.ones(3, 2, dtype=torch.float64), rtol=0, atol=1e-7)


def test_smeared_is_the_integral_of_gaussians():
    system = gas(2, None)
    distance = torch.tensor(1.234, dtype=torch.float64)
    positions = torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    positions[..., 1, 0] = distance
    rdf = RDF(2.0, 0.001, smearing_A=0.1)
    expected = torch.exp(-0.5 * ((rdf.bin_centers - distance) / 0.1) ** 2) / (0.1 * math.sqrt(2 * math.pi))
    found = rdf(system, trajectory_of(positions))[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_smeared_becomes_plain(aspirin, aspirin_geometry):
    trajectory = trajectory_of(torch.as_tensor(aspirin_geometry[1])[None, None])
    plain = RDF(10.0, 0.1)(aspirin, trajectory)
    deviations = [
        float((RDF(10.0, 0.1, smearing_A=smearing)(aspirin, trajectory) - plain).abs().max())
        for smearing in (1e-1, 1e-2, 1e-3, 1e-6)
    ]
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[0] > 0.05 and deviations[-1] < 1e-6


@pytest.mark.parametrize("length", [None, 6.0])
def test_smeared_gradient(generator, length):
    system = gas(4, length)
    positions = (6.0 * uniform(generator, 2, 1, 4, 3)).requires_grad_()
    rdf = RDF(3.0, 0.25, smearing_A=0.3, normalization="pair_density" if length is None else "ideal_gas")
    assert torch.autograd.gradcheck(lambda x: rdf(system, trajectory_of(x)), positions, atol=1e-6)


def test_gradient_is_clean_beside_a_broken_replica(generator):
    system = gas(5, None)
    rdf = RDF(4.0, 0.2, smearing_A=0.2)

    def gradient(positions: torch.Tensor) -> torch.Tensor:
        positions = positions.clone().requires_grad_()
        rdf(system, trajectory_of(positions))[:, 0].square().sum().backward()
        return positions.grad

    healthy = 3.0 * uniform(generator, 3, 2, 5, 3)
    broken = healthy.clone()
    broken[1:, 1, 2] = torch.nan
    assert torch.equal(gradient(broken)[:, 0], gradient(healthy)[:, 0])
    assert (gradient(broken)[:, 1] == 0).all()


@pytest.mark.parametrize("smearing", [None, 0.1])
def test_chunks_do_not_matter(generator, monkeypatch, smearing):
    system = gas(9, 8.0)
    trajectory = trajectory_of(8.0 * uniform(generator, 5, 3, 9, 3))
    rdf = RDF(4.0, 0.1, smearing_A=smearing)
    whole = rdf(system, trajectory)
    for values_per_chunk in (1000, 77, 5):
        monkeypatch.setattr(histogram, "VALUES_PER_CHUNK", values_per_chunk)
        torch.testing.assert_close(rdf(system, trajectory), whole, rtol=1e-12, atol=1e-12)


def test_intermolecular_only_leaves_out_molecules(generator):
    system = System.from_geometry(
        np.array([8, 1, 1, 8, 1, 1]),
        np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [3, 0, 0], [3.96, 0, 0], [2.76, 0.93, 0]]),
        dtype=torch.float64,
    )
    positions = 2.0 * torch.randn(4, 1, 6, 3, dtype=torch.float64, generator=generator)
    found = RDF(8.0, 0.1, pair=("H", "H"), intermolecular_only=True)(system, trajectory_of(positions))
    between = torch.tensor([[1, 4], [1, 5], [2, 4], [2, 5]])
    expected = plain_histogram(pair_distances(positions[:, 0], between), Bins.spanning(0.0, 8.0, 0.1))
    torch.testing.assert_close(found[:, 0], expected / (4 * 0.1), check_dtype=False)


def mdanalysis_rdf(positions, first, second, length, stop, n_bins, exclusion_block):
    mda = pytest.importorskip("MDAnalysis")
    from MDAnalysis.analysis.rdf import InterRDF

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = mda.Universe.empty(positions.shape[1], trajectory=True)
        box = np.tile([length, length, length, 90.0, 90.0, 90.0], (len(positions), 1))
        universe.load_new(positions.numpy().astype(np.float32), order="fac", dimensions=box)
        groups = universe.atoms[first], universe.atoms[second]
        rdf = InterRDF(*groups, nbins=n_bins, range=(0.0, stop), exclusion_block=exclusion_block).run()
    return rdf.results.rdf, rdf.results.count


def test_mdanalysis_on_a_random_box(generator):
    length, stop, n_bins = 9.0, 4.5, 45
    system = gas(40, length)
    positions = length * (2.0 * uniform(generator, 20, 40, 3) - 0.5)
    rdf, _ = mdanalysis_rdf(positions, range(40), range(40), length, stop, n_bins, (1, 1))
    found = RDF(stop, 0.1, normalization="ideal_gas")(system, trajectory_of(positions[:, None])).mean((0, 1))
    one_pair = found / torch.as_tensor(rdf).nan_to_num(nan=1.0).clamp_min(1e-12)
    assert (one_pair[torch.as_tensor(rdf) > 0] - 1.0).abs().max() < 0.02  # a pair on an edge, rounded to float32


@pytest.mark.parametrize("pair", [("O", "O"), ("O", "H"), ("H", "H")])
def test_mdanalysis_on_dft_water(reference_path, pair):
    """64 water molecules; MDAnalysis works in float32, which moves the odd pair across the edge of a bin."""
    folder = reference_path / "water_dft" / "data_0"
    numbers = np.array([8, 1])[np.loadtxt(folder / "type.raw", dtype=int)]
    positions = torch.as_tensor(np.load(folder / "set.000" / "coord.npy")[::20]).double().unflatten(1, (-1, 3))
    length = float(np.load(folder / "set.000" / "box.npy")[0, 0])
    system = gas(192, length, numbers.tolist())
    stop, n_bins = 6.0, 120
    groups = [np.flatnonzero(numbers == {"O": 8, "H": 1}[symbol]) for symbol in pair]
    same = pair[0] == pair[1]
    rdf, count = mdanalysis_rdf(positions, *groups, length, stop, n_bins, (1, 1) if same else None)
    trajectory = trajectory_of(positions[:, None])
    ours = RDF(stop, 0.05, pair=pair, normalization="ideal_gas")(system, trajectory).mean((0, 1)).numpy()
    pairs_per_count = np.divide(rdf, count, out=np.zeros_like(rdf), where=count > 0)
    filled = count > 0
    differing = np.abs(ours[filled] / pairs_per_count[filled] - count[filled])
    assert count.sum() > 1000
    assert differing.max() < 0.01 * count.max() and differing.sum() < 2e-3 * count.sum()
    assert (ours[~filled] < 1e-6).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RDF(10.0, 0.03), "whole number of bins"),
        (lambda: RDF(10.0, -0.1), "positive width"),
        (lambda: RDF(10.0, 0.1, smearing_A=0.0), "smearing_A must be positive"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "rdf, length, message",
    [
        (RDF(5.1, 0.1), 10.0, r"beyond half the smallest height of the cell, 5\.0000 Å"),
        (RDF(5.0, 0.1, normalization="ideal_gas"), None, "has no cell"),
        (RDF(5.0, 0.1, pair=("O", "O")), 10.0, r"elements Ar\) has no O-O pair"),
        (RDF(5.0, 0.1, pair=("Ar", "Xx")), 10.0, "unknown element 'Xx'"),
    ],
)
def test_wrong_system(generator, rdf, length, message):
    with pytest.raises(ValueError, match=message):
        rdf(gas(4, length), trajectory_of(uniform(generator, 1, 1, 4, 3)))


def test_no_pair_between_molecules(aspirin, aspirin_geometry):
    with pytest.raises(ValueError, match="no pair between molecules"):
        RDF(5.0, 0.1, intermolecular_only=True)(
            aspirin, trajectory_of(torch.as_tensor(aspirin_geometry[1])[None, None])
        )
