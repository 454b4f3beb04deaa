"""The bundled water: integrity, agreement with its card, and comparison with independent programs."""

import warnings

import numpy as np
import pytest
import spcfw
import torch
from paths import BUNDLED

from mdsim.datasets import Dataset, load_dataset
from mdsim.datasets.splits import parse_indices
from mdsim.geometry import angles_deg, center_of_mass, pair_distances, wrap
from mdsim.observables import MSD, RDF, Diffusivity, MinimumDistance
from mdsim.observables.adf import bonded_triplets
from mdsim.observables.reference import reference_from_file
from mdsim.state import kinetic_temperature_K
from mdsim.units import FS

NAME, MOLECULE = "water_spcfw", "water"
BOX_A = 12.41713
PAIRS = [("O", "O"), ("O", "H"), ("H", "H")]
LIMIT_BYTES = 8_000_000


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(BUNDLED, NAME, MOLECULE, "1k")


@pytest.mark.parametrize(("size", "expected"), [("100", (95, 5, 250, 400)), ("1k", (950, 50, 250, 400))])
def test_every_size_is_whole(size, expected):
    dataset = load_dataset(BUNDLED, NAME, MOLECULE, size)
    frames = (dataset.train, dataset.val, dataset.test, dataset.contiguous)
    assert tuple(len(part) for part in frames) == expected
    assert dataset.metadata.temperature_K == 300.0
    assert "not quantum mechanics" in dataset.metadata.level_of_theory


def test_it_is_small():
    assert sum(path.stat().st_size for path in (BUNDLED / NAME).rglob("*") if path.is_file()) < LIMIT_BYTES


def test_the_small_size_is_part_of_the_large_one(dataset):
    small = load_dataset(BUNDLED, NAME, MOLECULE, "100")
    indices = [parse_indices(d.metadata.split["indices"]["train"]) for d in (small, dataset)]
    where = torch.from_numpy(np.searchsorted(indices[1], indices[0]))
    assert torch.equal(small.train.positions, dataset.train.positions[where])


def test_no_training_frame_is_near_a_test_frame_in_time(dataset):
    indices = {name: parse_indices(text) for name, text in dataset.metadata.split["indices"].items()}
    trained = np.concatenate([indices["train"], indices["val"]])
    assert indices["test"].min() - trained.max() > dataset.metadata.settings["gap_frames"]


def test_the_system_is_64_water_molecules_at_1_g_per_cm3(dataset):
    system = dataset.system(torch.float64)
    torch.testing.assert_close(system.cell, BOX_A * torch.eye(3, dtype=torch.float64), rtol=1e-6, atol=0)
    assert system.atomic_numbers.tolist() == [8, 1, 1] * 64
    assert system.bonds.tolist() == [[3 * m, 3 * m + h] for m in range(64) for h in (1, 2)]
    grams = float(system.masses.sum()) / 6.02214076e23
    assert grams / (BOX_A * 1e-8) ** 3 == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("name", ["train", "val", "test", "contiguous"])
def test_molecules_are_whole_and_keep_their_distance(dataset, name):
    frames, system = getattr(dataset, name)[::3], dataset.system(torch.float64)
    positions = frames.positions.double()
    assert (pair_distances(positions, system.bonds) - 1.031).abs().max() < 0.15, "without the minimum image"
    assert (angles_deg(positions, bonded_triplets(system), system.cell) - 107.7).abs().max() < 30
    closest = MinimumDistance()(system, frames.as_trajectory(1.0).to(dtype=torch.float64))
    assert 1.3 < closest.min() < 1.5, "hydrogen bonds"
    assert center_of_mass(positions, system.masses).std(0).max() < 0.02, "the box does not drift"


@pytest.mark.parametrize("index", [3, 200])
def test_labels_are_those_of_a_plain_ewald_sum(dataset, index):
    energy, forces = spcfw.energy_and_forces(dataset.test.positions[index], float(dataset.test.cell[0, 0]))
    assert dataset.test.energy[index].item() == pytest.approx(energy.item(), abs=3e-4)
    error = dataset.test.labels[index].double() - forces
    assert error.square().mean().sqrt() < 3e-5 and error.abs().max() < 2e-4  # the tolerance of particle-mesh Ewald


def test_the_temperature_of_the_contiguous_frames(dataset):
    frames, system = dataset.contiguous.to(dtype=torch.float64), dataset.system(torch.float64)
    molecules = frames.velocities.reshape(400, 64, 3, 3)
    masses = system.masses[:3]
    centers = (molecules * masses[:, None]).sum(2) / masses.sum()
    translation = kinetic_temperature_K(centers, masses.sum().expand(64), 3 * 64 - 3).mean()
    # One draw of a total energy that hardly changes: the temperature spreads by T / sqrt(3N) = 12.5 K, and this one
    # third of the momenta, in 1.6 ps, by some 15 K more.
    assert abs(translation - 300.0) < 60.0
    everything = kinetic_temperature_K(frames.velocities, system.masses, 3 * 192 - 3).mean()
    assert abs(everything - 300.0) < 40.0


def test_contiguous_velocities_are_the_derivative_of_the_positions(dataset):
    """Of the molecules: with 4 fs between frames the trapezoid rule is of no use for the O-H stretch."""
    frames, masses = dataset.contiguous, dataset.system().masses[:3]
    moved, velocities = (
        (values.reshape(400, 64, 3, 3) * masses[:, None]).sum(2) / masses.sum()
        for values in (frames.positions, frames.velocities)
    )
    interval = dataset.metadata.contiguous_frame_interval_fs * FS
    residual = moved.diff(dim=0) / interval - 0.5 * (velocities[1:] + velocities[:-1])
    assert residual.norm() / velocities.norm() < 0.02


@pytest.mark.parametrize("pair", PAIRS, ids="".join)
def test_test_frames_and_the_whole_run_have_the_same_rdf(dataset, pair):
    rdf = RDF(6.0, 0.1, pair, "ideal_gas")
    expected, error = dataset.reference_run.mean_and_error(rdf)
    values = rdf(dataset.system(), dataset.test.as_trajectory(400.0))[:, 0].double()
    blocks = values.reshape(10, 25, -1).mean(1)
    own = blocks.std(0) / np.sqrt(10)
    filled = expected > 1e-3
    sigmas = (blocks.mean(0) - expected)[filled] / (own.square() + error.square()).sqrt()[filled]
    assert sigmas.square().mean() < 2.0 and sigmas.abs().max() < 5.0


def test_the_first_peak_of_the_oxygens(dataset):
    rdf = RDF(6.0, 0.02, ("O", "O"), "ideal_gas")
    expected, error = dataset.reference_run.mean_and_error(rdf)
    peak = int(expected.argmax())
    assert rdf.bin_centers[peak] == pytest.approx(2.73, abs=0.03)
    assert expected[peak] == pytest.approx(3.24, abs=0.05) and error[peak] < 0.03
    shells = 4 / 3 * np.pi * rdf.bins.edges.pow(3).diff()
    neighbors = (expected * shells * 63 / BOX_A**3)[rdf.bin_centers < 3.3].sum()
    assert neighbors == pytest.approx(4.4, abs=0.3)


def test_the_oxygens_agree_with_published_tables_of_flexible_spc(dataset, reference_path):
    """Between the tables at 288 and 338 K; those are of larger boxes and another cutoff."""
    rdf = RDF(6.0, 0.1, ("O", "O"), "ideal_gas")
    found, _ = dataset.reference_run.mean_and_error(rdf)
    cold, warm = (
        reference_from_file(reference_path / "water_rdf" / f"H2O_{kelvin}K_wu.csv", rdf.bin_centers)
        for kelvin in (288, 338)
    )
    between = cold + (300 - 288) / (338 - 288) * (warm - cold)
    assert (found - between).abs().mean() < 0.05


def test_the_diffusivity_of_the_whole_run(dataset):
    mean, error = dataset.reference_run.mean_and_error(Diffusivity(1000.0, 10000.0, "O"))
    assert 1.6 < mean.item() < 2.2 and error.item() < 0.15


@pytest.fixture(scope="module")
def universe(dataset):
    """The contiguous frames in MDAnalysis, wrapped, in float32."""
    mda = pytest.importorskip("MDAnalysis")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = mda.Universe.empty(192, trajectory=True)
        wrapped = wrap(dataset.contiguous.positions[::10], dataset.contiguous.cell).numpy()
        box = np.tile([BOX_A] * 3 + [90.0] * 3, (40, 1))
        made.load_new(wrapped, order="fac", dimensions=box)
    return made


@pytest.mark.parametrize("pair", PAIRS, ids="".join)
def test_rdfs_are_those_of_mdanalysis(dataset, universe, pair):
    from MDAnalysis.analysis.rdf import InterRDF

    groups = [universe.atoms[dataset.contiguous.atomic_numbers.numpy() == {"O": 8, "H": 1}[s]] for s in pair]
    same = pair[0] == pair[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = InterRDF(*groups, nbins=60, range=(0.0, 6.0), exclusion_block=(1, 1) if same else None).run()
    trajectory = dataset.contiguous_trajectory()[::10]
    found = RDF(6.0, 0.1, pair, "ideal_gas")(dataset.system(), trajectory).mean((0, 1)).numpy()
    # float32 moves the odd pair to the next bin
    np.testing.assert_allclose(found, run.results.rdf, rtol=0.01, atol=0.01)


def test_displacements_are_those_of_mdanalysis(dataset):
    mda = pytest.importorskip("MDAnalysis")
    from MDAnalysis.analysis.msd import EinsteinMSD

    oxygens = dataset.contiguous.positions[::10, ::3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = mda.Universe.empty(64, trajectory=True)
        universe.load_new(oxygens.numpy(), order="fac")
        expected = EinsteinMSD(universe, msd_type="xyz", fft=False).run().results.timeseries
    trajectory = dataset.contiguous_trajectory()[::10]
    found = MSD(39 * trajectory.frame_interval_fs, "O")(dataset.system(), trajectory)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
