"""The bundled data sets: integrity, agreement with their cards, and statistical mechanics."""

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from ase.io import read
from paths import BUNDLED

from mdsim.datasets import Dataset, Frames, load_dataset
from mdsim.datasets.splits import parse_indices
from mdsim.geometry import all_pairs, center_of_mass, pair_distances
from mdsim.state import System, kinetic_temperature_K
from mdsim.units import FS, KB_EV_PER_K

ASPIRIN, PEPTIDE = ("aspirin_gfn2", "aspirin"), ("ac_ala3_nhme_gfn2", "ac_Ala3_NHMe")
SIZES = {  # frames that train, validate, test, and are contiguous
    (*ASPIRIN, "40"): (38, 2, 1000, 3000),
    (*ASPIRIN, "100"): (95, 5, 1000, 3000),
    (*ASPIRIN, "1k"): (950, 50, 1000, 3000),
    (*ASPIRIN, "5k"): (4750, 250, 1000, 3000),
    (*PEPTIDE, "1percent"): (12, 2, 400, 1000),
    (*PEPTIDE, "5percent"): (68, 4, 400, 1000),
    (*PEPTIDE, "25percent"): (342, 18, 400, 1000),
    (*PEPTIDE, "100percent"): (1368, 72, 400, 1000),
}
LIMIT_BYTES = 5_000_000


@pytest.fixture(scope="module")
def aspirin_5k() -> Dataset:
    return load_dataset(BUNDLED, *ASPIRIN, "5k")


@pytest.fixture(scope="module")
def peptide() -> Dataset:
    return load_dataset(BUNDLED, *PEPTIDE, "100percent")


@pytest.fixture(scope="module", params=["aspirin_5k", "peptide"])
def dataset(request) -> Dataset:
    """The largest size of each data set."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("size", SIZES, ids="-".join)
def test_every_size_is_whole(size):
    dataset = load_dataset(BUNDLED, *size)
    frames = (dataset.train, dataset.val, dataset.test, dataset.contiguous)
    assert tuple(len(part) for part in frames) == SIZES[size]
    assert dataset.metadata.temperature_K == 500.0


@pytest.mark.parametrize("name", [ASPIRIN[0], PEPTIDE[0]])
def test_each_bundle_is_small(name):
    assert sum(path.stat().st_size for path in (BUNDLED / name).rglob("*") if path.is_file()) < LIMIT_BYTES


def test_metadata_say_that_labels_are_not_dft(dataset):
    assert "not density-functional theory" in dataset.metadata.level_of_theory


def test_no_training_frame_is_near_a_test_frame_in_time(dataset):
    indices = {name: parse_indices(text) for name, text in dataset.metadata.split["indices"].items()}
    frames, gap_frames = (dataset.metadata.settings[key] for key in ("frames", "gap_frames"))
    trained = np.concatenate([indices["train"], indices["val"]])
    same_trajectory = trained[:, None] // frames == indices["test"] // frames
    gap = np.where(same_trajectory, np.abs(trained[:, None] - indices["test"]), 10**6).min()
    assert gap > gap_frames


def test_the_system_is_one_aspirin(aspirin_5k, aspirin):
    system = aspirin_5k.system(torch.float64)
    assert torch.equal(system.atomic_numbers, aspirin.atomic_numbers)  # in the order of MD17
    assert set(map(tuple, system.bonds.tolist())) == set(map(tuple, aspirin.bonds.tolist()))
    assert system.molecules.unique().numel() == 1


@pytest.mark.parametrize("name", ["train", "val", "test", "contiguous"])
def test_no_frame_has_reacted(dataset, name):
    positions = getattr(dataset, name).positions.double()
    system = dataset.system()
    lengths = pair_distances(positions, system.bonds)
    assert (lengths - dataset.reference_bond_lengths()).abs().max() < 0.5  # Å, the usual limit of stability
    bonded = {tuple(bond) for bond in system.bonds.tolist()}
    others = torch.tensor([pair for pair in all_pairs(system.n_atoms).tolist() if tuple(pair) not in bonded])
    assert pair_distances(positions, others).min() > 1.2


def test_the_peptide_is_in_the_order_of_md22(peptide):
    symbols = "".join(chemical_symbols[number] for number in peptide.metadata.atomic_numbers)
    residue = "NHCHCCOHHH"  # N, its H, alpha carbon and its H, beta carbon, carbonyl, the hydrogens of the beta carbon
    assert symbols == "HHHCOC" + 3 * residue + "NHCHHH"
    assert peptide.system().molecules.unique().numel() == 1


def test_the_peptide_has_the_bonds_of_md22(peptide, reference_path):
    real = read(reference_path / "md22" / "md22_Ac-Ala3-NHMe_5frames.xyz")
    expected = System.from_geometry(real.numbers, real.positions)
    assert torch.equal(peptide.system().atomic_numbers, expected.atomic_numbers)
    assert set(map(tuple, peptide.system().bonds.tolist())) == set(map(tuple, expected.bonds.tolist()))


@pytest.mark.parametrize("name", ["train", "val", "test", "contiguous"])
def test_no_residue_has_racemized(peptide, name):
    positions = getattr(peptide, name).positions.double()
    alpha, nitrogen, carbonyl, beta = ([start + 10 * residue for residue in range(3)] for start in (8, 6, 11, 10))
    arms = torch.stack([positions[:, atoms] - positions[:, alpha] for atoms in (nitrogen, carbonyl, beta)], dim=-2)
    assert torch.linalg.det(arms).min() > 1.0  # Å³; 2.5 at the minimum of an L-residue, -2.5 of a D-residue


def test_frames_are_centered(dataset):
    masses = dataset.system(torch.float64).masses
    assert center_of_mass(dataset.test.positions.double(), masses).abs().max() < 1e-5


def test_positions_and_forces_obey_the_virial_theorem_at_500_K(dataset):
    parts = {name: getattr(dataset, name) for name in ("train", "val", "test")}
    n_atoms = len(dataset.metadata.atomic_numbers)
    virial = torch.cat([-(frames.positions.double() * frames.forces.double()).sum((1, 2)) for frames in parts.values()])
    temperature = virial.numpy() / ((3 * n_atoms - 3) * KB_EV_PER_K)  # -<Σ r·F> = (3N-3) kT about the center of mass
    time_order = np.concatenate([parse_indices(dataset.metadata.split["indices"][name]) for name in parts]).argsort()
    # A frame alone is off by 1000 K, which blocks of a tenth of a trajectory (0.5 to 2 ps) average independently.
    blocks = np.array_split(temperature[time_order], 10 * dataset.metadata.settings["trajectories"])
    means = np.array([block.mean() for block in blocks])
    assert abs(means.mean() - 500.0) < 3 * means.std(ddof=1) / np.sqrt(len(means))


def test_the_temperature_of_the_contiguous_frames(dataset):
    frames, system = dataset.contiguous.to(dtype=torch.float64), dataset.system(torch.float64)
    temperature = kinetic_temperature_K(frames.velocities, system.masses, 3 * system.n_atoms - 3).mean()
    # In a few ps at 0.1/ps the total energy hardly changes: the mean over the stretch spreads as the canonical total
    # energy does, by T·sqrt(2/f)/sqrt(2), not by the much smaller error of uncorrelated frames.
    standard_deviation = 500.0 / np.sqrt(3 * system.n_atoms - 6)
    assert abs(temperature.item() - 500.0) < 3 * standard_deviation


def test_contiguous_velocities_are_the_derivative_of_the_positions(dataset):
    trajectory = dataset.contiguous_trajectory()
    moved = trajectory.positions[1:] - trajectory.positions[:-1]
    mean_velocity = 0.5 * (trajectory.velocities[1:] + trajectory.velocities[:-1])
    residual = (moved / (trajectory.frame_interval_fs * FS) - mean_velocity).norm() / trajectory.velocities.norm()
    # Trapezoid rule: (ωΔt)²/12 is 11 % for O-H stretches (ω = 0.65/fs, Δt = 2 fs), less for others.
    assert residual < 0.15


def test_labels_are_those_of_gfn2(dataset):
    pytest.importorskip("tblite")
    from ase import Atoms
    from tblite.ase import TBLite

    test: Frames = dataset.test
    atoms = Atoms(test.atomic_numbers.numpy(), test.positions[300].double().numpy())
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert atoms.get_potential_energy() == pytest.approx(test.energy[300].item(), abs=1e-3)
    torch.testing.assert_close(torch.from_numpy(atoms.get_forces()).float(), test.forces[300], rtol=0, atol=1e-3)
