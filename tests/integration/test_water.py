"""The bundled water from labels to metrics: fit, simulation, results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT

from mdsim.cli import main as cli
from mdsim.datasets import load_dataset
from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.integrators import VelocityVerlet
from mdsim.models import NequIP
from mdsim.observables import Diffusivity
from mdsim.reporting.trajectories import read_trajectory
from mdsim.state import kinetic_energy_eV

CONFIGS = ROOT / "configs"
DATA = f"--data.path={ROOT / 'data' / 'bundled'}"
TINY_MODEL = ["--model.hidden_channels=8", "--model.num_filters=8", "--model.num_interactions=1"]
SHORT = [
    "--epochs=2",
    "--dynamics.replicas=2",
    "--dynamics.steps_per_epoch=40",
    "--dynamics.dump_every_steps=8",
    "--dynamical_observables.0.max_lag_fs=16",
    "--dynamical_observables.1.fit_start_fs=16",
    "--dynamical_observables.1.fit_end_fs=64",
    "--dense_window.epochs=2",
    "--max_temperature_K=1.0e6",
    "--stability.1.bond_dev_tol_A=50",
    "--stability.0.tolerance_A=1.0e-6",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a small SchNet has been fitted for an epoch, and simulated."""
    root = tmp_path_factory.mktemp("water")
    fit = [str(CONFIGS / "pretraining" / "water_spcfw" / "schnet.yml"), "--size", "100", DATA, "--cpu", *TINY_MODEL]
    settings = ["--optim.max_epochs=1", "--optim.batch_size=19", "--model.cutoff_A=3.0", f"--run-dir={root / 'fits'}"]
    assert cli.pretraining(["--config-yml", *fit, *settings]) == 0
    simulate = [str(CONFIGS / "stable_training" / "water_spcfw" / "simulate.yml"), "--eval_model", "pre", "--cpu", DATA]
    places = ["--data.size=100", f"--model_dir={root / 'fits'}", f"--log_dir={root / 'runs'}"]
    assert cli.stable_training(["--config-yml", *simulate, *places, *SHORT]) == 0
    return root / "runs" / "water_spcfw" / "schnet_water_default" / "inference" / "pre"


@pytest.fixture(scope="module")
def metrics(folder) -> dict:
    return json.loads((folder / "final_metrics.json").read_text())


def test_each_element_pair_has_an_rdf_of_its_own(folder, metrics):
    for pair in ("OO", "OH", "HH"):
        reference, axis = (np.load(folder / f"rdf_{pair}_{part}.npy") for part in ("reference", "axis"))
        values = np.load(folder / f"rdf_{pair}.npy")
        assert values.shape == (2, 300) and axis[[0, -1]].tolist() == pytest.approx([0.01, 5.99])
        own = np.abs(values.mean(0) - reference).sum() * 0.02
        assert metrics[f"rdf_{pair}_mae"] == pytest.approx(own)
        assert metrics[f"rdf_{pair}_mae_low"] <= metrics[f"rdf_{pair}_mae"] <= metrics[f"rdf_{pair}_mae_high"]
        assert (folder / f"rdf_{pair}.png").is_file()
    assert metrics["periodic"]
    assert metrics["bond_length_distribution_OH_mae"] > 0 and metrics["vacf_mae"] > 0


def test_the_diffusivity_stands_against_that_of_the_whole_run(folder, metrics):
    run = load_dataset(ROOT / "data" / "bundled", "water_spcfw", "water", "100").reference_run
    table = run.msd["O"]
    lags = run.msd_lag_fs * torch.arange(table.shape[1], dtype=torch.float64)
    expected = Diffusivity(16.0, 64.0, "O").from_msd(lags, table)[:, 0]
    unit = "_1e-9_m2_per_s"
    assert metrics[f"diffusivity_O_reference{unit}"] == pytest.approx(float(expected.mean()))
    error = metrics[f"diffusivity_O_reference_standard_error{unit}"]
    assert error == pytest.approx(float(expected.std()) / 10**0.5)
    values = np.load(folder / "diffusivity_O.npy")
    assert metrics[f"diffusivity_O{unit}"] == pytest.approx(values.mean())
    assert metrics[f"diffusivity_O{unit}_low"] < values.mean() < metrics[f"diffusivity_O{unit}_high"]
    assert metrics[f"diffusivity_O_finite_size_correction{unit}"] == pytest.approx(0.588, abs=1e-3)


def test_trajectories_carry_the_cell(folder):
    stored = read_trajectory(folder / "trajectories" / "replica0000.gsd")
    system, trajectory = stored.system, stored.trajectory
    np.testing.assert_allclose(system.cell.numpy(), 12.41713 * np.eye(3), atol=1e-4)
    assert system.n_molecules == 64 and len(system.bonds) == 128
    assert trajectory.n_frames == 10 and trajectory.frame_interval_fs == 8.0


@pytest.mark.slow
def test_nequip_conserves_energy_on_water():
    """Ten femtoseconds of the whole box with random weights, scaled to the forces of the data."""
    data = load_dataset(ROOT / "data" / "bundled", "water_spcfw", "water", "100")
    system, frames, generator = data.system().to(dtype=torch.float32), data.train, torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    model = NequIP((1, 8), l_max=1, num_layers=2, num_features=4, radial_mlp_width=8, cutoff=3.5)
    model.normalize_to(system, frames.positions[:4], frames.energy[:4], frames.forces[:4])
    start = frames.positions[:2].float()
    velocities = maxwell_boltzmann(system, 2, 300.0, generator, positions=start)
    integrator, potential = VelocityVerlet(0.25), model.bind(system, fast=True)
    state = integrator.init(system, potential, start, velocities)
    _, trajectory = simulate(system, potential, integrator, state, 40, 4, generator)
    kinetic = kinetic_energy_eV(trajectory.velocities.double(), system.masses.double())
    change = (trajectory.energy.double() + kinetic) - (trajectory.energy.double() + kinetic)[0]
    assert (trajectory.energy - trajectory.energy[0]).abs().max() > 0.1  # of potential energy, eV
    assert change.abs().max() < 0.02 * (trajectory.energy - trajectory.energy[0]).abs().max()
