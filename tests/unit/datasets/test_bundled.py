"""The bundled data set is whole, is what its card says, and obeys statistical mechanics."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mdsim.datasets import Dataset, Frames, load_dataset
from mdsim.datasets.splits import parse_indices
from mdsim.geometry import all_pairs, center_of_mass, pair_distances
from mdsim.state import kinetic_temperature_K
from mdsim.units import FS, KB_EV_PER_K

BUNDLED = Path(__file__).parents[3] / "data" / "bundled"
SIZES = {"40": (38, 2), "100": (95, 5), "1k": (950, 50), "5k": (4750, 250)}
LIMIT_BYTES = 8_000_000


@pytest.fixture(scope="module")
def aspirin_5k() -> Dataset:
    return load_dataset(BUNDLED, "aspirin_gfn2", "aspirin", "5k")


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_whole(size):
    dataset = load_dataset(BUNDLED, "aspirin_gfn2", "aspirin", size)
    assert (len(dataset.train), len(dataset.val)) == SIZES[size]
    assert (len(dataset.test), len(dataset.contiguous)) == (1000, 3000)


def test_the_bundle_is_small():
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < LIMIT_BYTES


def test_metadata_say_that_labels_are_not_dft(aspirin_5k):
    assert "not density-functional theory" in aspirin_5k.metadata.level_of_theory


def test_no_training_frame_is_near_a_test_frame_in_time(aspirin_5k):
    indices = {name: parse_indices(text) for name, text in aspirin_5k.metadata.split["indices"].items()}
    trained = np.concatenate([indices["train"], indices["val"]])
    same_trajectory = trained[:, None] // 1400 == indices["test"] // 1400
    gap = np.where(same_trajectory, np.abs(trained[:, None] - indices["test"]), 10**6).min()
    assert gap > aspirin_5k.metadata.settings["gap_frames"]


def test_the_system_is_one_aspirin(aspirin_5k, aspirin):
    system = aspirin_5k.system(torch.float64)
    assert torch.equal(system.atomic_numbers, aspirin.atomic_numbers)  # in the order of MD17
    assert set(map(tuple, system.bonds.tolist())) == set(map(tuple, aspirin.bonds.tolist()))
    assert system.molecules.unique().numel() == 1


@pytest.mark.parametrize("name", ["train", "val", "test", "contiguous"])
def test_no_frame_has_reacted(aspirin_5k, name):
    positions = getattr(aspirin_5k, name).positions.double()
    system = aspirin_5k.system()
    lengths = pair_distances(positions, system.bonds)
    assert (lengths - aspirin_5k.reference_bond_lengths()).abs().max() < 0.5  # Å, the usual limit of stability
    bonded = {tuple(bond) for bond in system.bonds.tolist()}
    others = torch.tensor([pair for pair in all_pairs(system.n_atoms).tolist() if tuple(pair) not in bonded])
    assert pair_distances(positions, others).min() > 1.2


def test_frames_are_centered(aspirin_5k):
    masses = aspirin_5k.system(torch.float64).masses
    assert center_of_mass(aspirin_5k.test.positions.double(), masses).abs().max() < 1e-5


def test_positions_and_forces_obey_the_virial_theorem_at_500_K(aspirin_5k):
    parts = [aspirin_5k.train, aspirin_5k.val, aspirin_5k.test]
    n_atoms = len(aspirin_5k.metadata.atomic_numbers)
    virial = torch.cat([-(frames.positions.double() * frames.forces.double()).sum((1, 2)) for frames in parts])
    temperature = virial.numpy() / ((3 * n_atoms - 3) * KB_EV_PER_K)  # -<Σ r·F> = (3N-3) kT about the center of mass
    indices = aspirin_5k.metadata.split["indices"]
    trajectory = np.concatenate([parse_indices(indices[name]) for name in ("train", "val", "test")]) // 1400
    means = np.array([temperature[trajectory == index].mean() for index in range(5)])
    assert abs(means.mean() - 500.0) < 3 * means.std(ddof=1) / np.sqrt(5)


def test_the_temperature_of_the_contiguous_frames(aspirin_5k):
    frames, system = aspirin_5k.contiguous.to(dtype=torch.float64), aspirin_5k.system(torch.float64)
    temperature = kinetic_temperature_K(frames.velocities, system.masses, 3 * system.n_atoms - 3).mean()
    # In 6 ps at 0.1/ps the total energy hardly changes: the mean over the stretch spreads as the canonical total energy
    # does, by T·sqrt(2/f)/sqrt(2), not by the much smaller error of uncorrelated frames.
    standard_deviation = 500.0 / np.sqrt(3 * system.n_atoms - 6)
    assert abs(temperature.item() - 500.0) < 3 * standard_deviation


def test_contiguous_velocities_are_the_derivative_of_the_positions(aspirin_5k):
    trajectory = aspirin_5k.contiguous_trajectory()
    moved = trajectory.positions[1:] - trajectory.positions[:-1]
    mean_velocity = 0.5 * (trajectory.velocities[1:] + trajectory.velocities[:-1])
    residual = (moved / (trajectory.frame_interval_fs * FS) - mean_velocity).norm() / trajectory.velocities.norm()
    assert (
        residual < 0.15
    )  # trapezoid rule: (ωΔt)²/12 is 11 % for O-H stretches (ω = 0.65/fs, Δt = 2 fs), less for others


def test_labels_are_those_of_gfn2(aspirin_5k):
    pytest.importorskip("tblite")
    from ase import Atoms
    from tblite.ase import TBLite

    test: Frames = aspirin_5k.test
    atoms = Atoms(test.atomic_numbers.numpy(), test.positions[500].double().numpy())
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert atoms.get_potential_energy() == pytest.approx(test.energy[500].item(), abs=1e-3)
    torch.testing.assert_close(torch.from_numpy(atoms.get_forces()).float(), test.forces[500], rtol=0, atol=1e-3)
