"""The examples of the manual (docs/examples): each does what its page says, and all of them run together."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic_potentials import system_of, wells
from ase.build import molecule
from paths import ROOT
from tiny import water

from mdsim.cli import main as cli
from mdsim.datasets import load_dataset
from mdsim.dynamics.simulate import simulate
from mdsim.state import MDState, System, Trajectory, kinetic_energy_eV
from mdsim.units import kT_eV

EXAMPLES = ROOT / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))

from add_criterion import PlanarityDeviation, planar_ring
from add_integrator import StochasticVelocityRescaling
from add_model import RadialNetwork
from add_observable import RadiusOfGyration, radii_of_gyration_A

RING = [0, 1, 2, 3, 5, 6]


def _trajectory(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, 1.0)


def test_the_integrator_takes_the_temperature_of_each_replica():
    """Replicas of one batch follow the paths that they have with the integrator of their temperature."""
    system, kelvin = system_of([6, 1, 1], [12.0, 1.0, 1.0]), torch.tensor([200.0, 500.0], dtype=torch.float64)
    positions = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    integrators = [StochasticVelocityRescaling(1.0, temperature_K) for temperature_K in (*kelvin.tolist(), 300.0)]
    states = [one.init(system, wells(1.0), positions, 0.1 * positions) for one in integrators]
    states[2] = replace(states[2], kT=kT_eV(kelvin))
    after = [one.step(system, wells(1.0), s, noise) for one, s in zip(integrators, states, strict=True)]
    for replica in (0, 1):
        torch.testing.assert_close(after[2].velocities[replica], after[replica].velocities[replica])


# -------------------------------------------------------------------------------------------------------- observable


def test_the_radius_of_gyration_is_that_of_two_masses_and_is_counted_in_its_bin():
    """Two masses m and M at a distance d: d √(mM)/(m + M)."""
    atoms = molecule("HCl")
    system = System.from_geometry(atoms.numbers, atoms.positions, dtype=torch.float64)
    observable = RadiusOfGyration(0.0, 1.0, bin_width_A=0.01)
    light, heavy = sorted(system.masses.tolist())
    for distance in (1.2, 2.7, 4.1):
        atoms.set_distance(0, 1, distance)
        positions = torch.tensor(atoms.positions)[None, None] + 7.0
        expected = distance * math.sqrt(light * heavy) / (light + heavy)
        assert float(radii_of_gyration_A(positions, system.masses)) == pytest.approx(expected)
        density = observable(system, _trajectory(positions))[0, 0]
        assert float(density.sum() * 0.01) == pytest.approx(1.0)
        assert abs(float(observable.bin_centers[density.argmax()]) - expected) <= 0.005


def test_the_radius_of_gyration_of_a_frame_that_is_not_finite():
    atoms = molecule("H2O2")
    system = System.from_geometry(atoms.numbers, atoms.positions, dtype=torch.float64)
    positions = torch.tensor(atoms.positions).repeat(2, 1, 1, 1)
    positions[1, 0, 3, 2] = torch.nan
    density = RadiusOfGyration(0.0, 2.0)(system, _trajectory(positions))
    assert density[0].isfinite().all()
    assert density[1].isnan().all()


# --------------------------------------------------------------------------------------------------------- criterion


def test_a_ring_is_flat_until_an_atom_leaves_the_plane():
    angle = torch.arange(6, dtype=torch.float64) * math.pi / 3
    ring = 1.39 * torch.stack([angle.cos(), angle.sin(), torch.zeros(6)], dim=-1)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    system = System.from_geometry(np.full(6, 6), ring.numpy(), dtype=torch.float64)
    # In a chair atoms lie alternately h above and below the plane: the root mean square distance is h.
    chair = ring.clone()
    chair[:, 2] = 0.25 * torch.tensor([1.0, -1.0] * 3)
    lost = torch.full_like(ring, torch.nan)
    frames = torch.stack([ring, chair, lost])[:, None] @ rotation.T
    criterion = PlanarityDeviation(tuple(range(6)), tolerance_A=0.2)
    measured = criterion.measure(system, _trajectory(frames))[:, 0]
    torch.testing.assert_close(measured[:2], torch.tensor([0.0, 0.25], dtype=torch.float64), rtol=0, atol=1e-12)
    assert criterion(system, _trajectory(frames))[:, 0].tolist() == [False, True, True]


def test_the_tolerance_is_checked_against_the_data():
    dataset = load_dataset(ROOT / "data" / "bundled", "aspirin_gfn2", "aspirin", "40")
    assert planar_ring(dataset.system(), dataset, RING, 0.2).tolerance_A == 0.2
    with pytest.raises(ValueError, match=r"tolerance_A = 0\.01, but the training frames reach 0\.\d+ Å"):
        planar_ring(dataset.system(), dataset, RING, 0.01)


# -------------------------------------------------------------------------------------------------------- integrator


def test_velocity_rescaling_samples_the_canonical_kinetic_energy(generator):
    """Free atoms: nothing but the thermostat changes K, which must be Gamma distributed with N_f degrees of freedom."""
    system = water()
    integrator = StochasticVelocityRescaling(timestep_fs=1.0, temperature_K=300.0, relaxation_time_fs=1.0)
    velocities = 0.01 * torch.randn(4000, 3, 3, generator=generator, dtype=torch.float64)
    mass = system.masses[:, None]
    velocities -= (mass * velocities).sum(1, keepdim=True) / mass.sum()
    at_rest = torch.zeros_like(velocities)
    state = MDState(at_rest, velocities, at_rest, torch.zeros(4000, dtype=torch.float64))

    def free(positions):
        return positions.new_zeros(len(positions)), torch.zeros_like(positions)

    state, _ = simulate(system, free, integrator, state, 30, 30, generator)
    kinetic = kinetic_energy_eV(state.velocities, system.masses) / (0.5 * kT_eV(300.0))
    freedom = integrator.degrees_of_freedom(system)
    assert freedom == 3
    assert float(kinetic.mean()) == pytest.approx(freedom, abs=4 * math.sqrt(2 * freedom / 4000))
    assert float(kinetic.var()) == pytest.approx(2 * freedom, rel=0.15)
    momentum = (mass * state.velocities).sum(1)
    torch.testing.assert_close(momentum, torch.zeros_like(momentum), rtol=0, atol=1e-12)


def test_one_step_of_the_thermostat_relaxes_the_mean_kinetic_energy(generator):
    """<K> after a step is K̄ + (K - K̄) exp(-Δt/τ), equation of motion of the mean."""
    system = water()
    integrator = StochasticVelocityRescaling(timestep_fs=1.0, temperature_K=300.0, relaxation_time_fs=4.0)
    velocities = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64).repeat(20000, 1, 1) * 0.01
    before = kinetic_energy_eV(velocities[:1], system.masses)
    noise = torch.randn(20000, *integrator.noise_shape(system), generator=generator, dtype=torch.float64)
    state = MDState(velocities, velocities, velocities, velocities[:, 0, 0])
    after = kinetic_energy_eV(integrator._rescaled(system, state, noise), system.masses)
    target = 1.5 * kT_eV(300.0)
    expected = target + (float(before) - target) * math.exp(-0.25)
    assert float(after.mean()) == pytest.approx(expected, abs=5 * float(after.std()) / math.sqrt(20000))


# ------------------------------------------------------------------------------------------------------------- model


@pytest.fixture
def model(aspirin) -> RadialNetwork:
    torch.manual_seed(4)
    return RadialNetwork(species=(8, 6, 1), n_radial=6, hidden=8, cutoff_A=3.0).double()


def test_forces_are_minus_the_slope_of_the_energy_which_is_invariant(model, aspirin, aspirin_geometry):
    positions = torch.tensor(aspirin_geometry[1])[None]
    energy, forces = model(aspirin, positions)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned_energy, turned_forces = model(aspirin, positions @ rotation.T + 3.0)
    torch.testing.assert_close(turned_energy, energy)
    torch.testing.assert_close(turned_forces, forces @ rotation.T)
    step = 1e-5
    moved = positions.repeat(2, 1, 1)
    moved[:, 4, 1] += torch.tensor([step, -step], dtype=torch.float64)
    plus, minus = model.energy(aspirin, moved)
    torch.testing.assert_close((minus - plus) / (2 * step), forces[0, 4, 1], rtol=1e-6, atol=1e-8)


def test_elements_are_told_apart_and_nothing_jumps_at_the_cutoff(model):
    def energies(number: int, distances: torch.Tensor) -> torch.Tensor:
        positions = torch.zeros(len(distances), 2, 3, dtype=torch.float64)
        positions[:, 1, 0] = distances
        system = System.from_geometry(np.array([6, number]), positions[0].numpy() + 1.0, dtype=torch.float64)
        return model.energy(system, positions)

    near = torch.tensor([1.5], dtype=torch.float64)
    assert (energies(8, near) - energies(1, near)).abs().item() > 1e-4
    around = torch.tensor([3.0 - 1e-4, 3.0, 3.0 + 1e-4, 9.0], dtype=torch.float64)
    values = energies(8, around)
    torch.testing.assert_close(values, values[-1:].expand(4), rtol=0, atol=1e-7)


# ------------------------------------------------------------------------------------------------------ all together


@pytest.mark.slow
def test_the_configurations_of_the_examples_run(tmp_path, monkeypatch):
    """Fit, StABlE training and evaluation with custom components only, at a tiny size."""
    monkeypatch.chdir(ROOT)
    small = ["--cpu", "--debug"]
    fits, runs = tmp_path / "fits", tmp_path / "runs"
    fit = [*small, "--config-yml", "docs/examples/pretrain.yml", "--run-dir", str(fits), "--optim.max_epochs=1"]
    assert cli.pretraining([*fit, "--identifier="]) == 0
    checkpoint = fits / "radial" / "aspirin_gfn2-aspirin_40_radial" / "checkpoints" / "best_checkpoint.pt"
    assert checkpoint.is_file()
    shared = [*small, f"--model_dir={fits}", f"--log_dir={runs}"]
    assert cli.stable_training([*shared, "--config-yml", "docs/examples/train.yml", "--epochs=2"]) == 0
    folder = runs / "aspirin_gfn2" / "radial_aspirin_debug"
    assert (folder / "last.pt").is_file()
    evaluate = [*shared, "--config-yml", "docs/examples/simulate.yml", "--eval_model", "post", "--epochs=4"]
    assert cli.stable_training(evaluate) == 0
    metrics = json.loads((folder / "inference" / "post" / "final_metrics.json").read_text())
    assert "radius_of_gyration_mae" in metrics
    assert (folder / "inference" / "post" / "radius_of_gyration.npy").is_file()
