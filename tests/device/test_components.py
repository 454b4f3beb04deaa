"""Every integrator, observable, criterion and loss term on the pretend device, with the results of the CPU.

Parameters are the sections of the configuration's schema, so that a new one is covered as soon as it has a name.
"""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from ase.build import molecule
from both_devices import same_on_both
from force_fields import build
from paths import ROOT
from tiny import point, run_values, train_values, write_data

from mdsim import assembly
from mdsim.config.schema import DynamicsConfig, StructureFactorConfig, TrainConfig
from mdsim.config.schema.custom import CustomConfig
from mdsim.config.schema.dynamics import IntegratorConfig
from mdsim.config.schema.observables import DynamicalConfig, StructuralConfig
from mdsim.config.schema.stability import CriterionConfig
from mdsim.config.schema.terms import TermConfig
from mdsim.datasets.folder import Dataset, load_dataset
from mdsim.dynamics.restraint import BondedRestraint
from mdsim.dynamics.stretch import Outcome, Stretch
from mdsim.moving_cells import bind_in_cells
from mdsim.observables import BulkModulus, EnergyDistribution, EnergyPerMolecule, EnthalpyOfVaporization, Pressure
from mdsim.stability.verdict import first_unstable
from mdsim.state import MDState, System, Trajectory
from mdsim.units import kT_eV

RDF = {"name": "rdf", "max_distance_A": 3.6, "bin_width_A": 0.1}
#: Settings that a section needs, or that fit the small systems here.
SETTINGS: dict[str, dict[str, Any]] = {
    "rdf": RDF,
    "distances": {"max_distance_A": 3.6, "bin_width_A": 0.1},
    "dihedrals": {"atoms": {"bent": (1, 0, 3, 4)}},
    "structure_factor": {"min_q_per_A": 1.0, "max_q_per_A": 6.0, "bin_width_per_A": 0.5},
    "coordination": {"pair": ("O", "H"), "cutoff_A": 2.5, "switching_width_A": 0.5},
    "tetrahedral_order": {"element": "H"},
    "end_to_end": {"atoms": {"hydrogens": (1, 2)}, "max_distance_A": 3.0, "bin_width_A": 0.1},
    "vibrational_dos": {"max_lag_fs": 3.0, "max_wavenumber_per_cm": 8000.0, "bin_width_per_cm": 500.0},
    "infrared_spectrum": {
        "max_lag_fs": 3.0,
        "max_wavenumber_per_cm": 8000.0,
        "bin_width_per_cm": 500.0,
        "charges_e": {"O": -0.8, "H": 0.4},
    },
    "vacf": {"max_lag_fs": 3.0},
    "diffusivity": {"fit_start_fs": 1.0, "fit_end_fs": 4.0, "viscosity_mPa_s": None},
    "minimum_intermolecular_distance": {"tolerance_A": 2.0},
    "rdf_mae": {"max_distance_A": 3.6, "bin_width_A": 0.1, "tolerance": 0.5},
    "bond_length_deviation": {"bond_dev_tol_A": 0.1},
    "angle_deviation": {"angle_dev_tol_deg": 8.0},
    "observables": {"targets": [{"observable": RDF, "loss": "reverse_kl"}, {"observable": {"name": "bond_lengths"}}]},
}
CELL = torch.diag(torch.tensor([9.0, 8.5, 8.0], dtype=torch.float64))
TILTED = torch.tensor([[9.0, 0.0, 0.0], [1.5, 8.5, 0.0], [-1.0, 2.0, 8.0]], dtype=torch.float64)
OF_DYNAMICS = ("potential_energy", "energy_per_molecule", "enthalpy_of_vaporization", "pressure", "bulk_modulus")
CELLS = {"open": None, "orthorhombic": CELL, "triclinic": TILTED}


def name_of(kind: Any) -> str:
    return get_args(kind.model_fields["name"].annotation)[0]


def each(union: Any, *left_out: str) -> Any:
    """The sections of a choice, for a parametrized test."""
    kinds = [kind for kind in get_args(get_args(union)[0]) if not issubclass(kind, CustomConfig)]
    kinds = [pytest.param(kind, id=name_of(kind)) for kind in kinds if name_of(kind) not in left_out]
    assert kinds
    return pytest.mark.parametrize("kind", kinds)


def section(kind: Any) -> Any:
    return kind(**{"name": name_of(kind)} | SETTINGS.get(name_of(kind), {}))


@cache
def waters(cell: str = "open", n_frames: int = 6, n_replicas: int = 2) -> tuple[System, Trajectory]:
    """Three shaking water molecules. One replica becomes non-finite."""
    generator = torch.Generator().manual_seed(3)
    one = molecule("H2O")
    centers = torch.tensor([[0.0, 0.0, 0.0], [3.1, 0.4, 0.3], [0.5, 3.0, -0.6]], dtype=torch.float64)
    geometry = (torch.as_tensor(one.positions) + centers[:, None]).reshape(-1, 3)
    system = System.from_geometry(torch.as_tensor(one.numbers).repeat(3), geometry, CELLS[cell], dtype=torch.float64)
    shape = (n_frames, n_replicas, system.n_atoms, 3)
    positions = geometry + 0.08 * torch.randn(shape, dtype=torch.float64, generator=generator)
    positions[4:, 1, 2] = torch.nan
    velocities = 0.1 * torch.randn(shape, dtype=torch.float64, generator=generator)
    energy = 0.1 * torch.randn(shape[:2], dtype=torch.float64, generator=generator)
    return system, Trajectory(positions, velocities, energy, frame_interval_fs=1.0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Dataset:
    """Labeled frames of one water molecule."""
    root = tmp_path_factory.mktemp("toy")
    write_data(root)
    return load_dataset(root, "toy", "water", "20")


@cache
def bundled() -> Dataset:
    return load_dataset(ROOT / "data" / "bundled", "water_spcfw", "water", "20")


@pytest.mark.parametrize("cell", CELLS)
@each(StructuralConfig, *OF_DYNAMICS)
def test_structural_observables(kind, cell):
    if name_of(kind) == "density" and cell == "open":
        pytest.skip("an open system has no volume")

    def values(device):
        system, trajectory = (one.to(device) for one in waters(cell))
        return [observable(system, trajectory) for observable in assembly.observables(section(kind), system)]

    same_on_both(values)


def test_pressure_and_bulk_modulus():
    def values(device):
        system, trajectory = (one.to(device) for one in waters("orthorhombic"))
        scale = torch.linspace(0.98, 1.02, 6, dtype=torch.float64).to(device)[:, None, None, None]
        moving = replace(trajectory, cell=(scale * system.cell).expand(6, 2, 3, 3))
        pressure = Pressure(partial(bind_in_cells, build("schnet").to(device), system))
        return [pressure(system, trajectory), pressure(system, moving), BulkModulus()(system, moving)]

    same_on_both(values)


@pytest.mark.parametrize(
    "observable", [EnergyDistribution(-0.3, 0.3, 0.1), EnergyPerMolecule(1.0), EnthalpyOfVaporization(1.0, 0.1)]
)
def test_energies(observable):
    same_on_both(lambda device: observable(*(one.to(device) for one in waters())))


@pytest.mark.parametrize("weighting", ["partial", "xray", "neutron"])
@pytest.mark.parametrize("cell", ["orthorhombic", "triclinic"])
def test_structure_factors_from_distances(cell, weighting):
    chosen = StructureFactorConfig(name="structure_factor", weighting=weighting, method="fourier", max_distance_A=3.6)

    def values(device):
        system, trajectory = (one.to(device) for one in waters(cell))
        return [observable(system, trajectory) for observable in assembly.observables(chosen, system)]

    same_on_both(values)


@pytest.mark.parametrize("cell", CELLS)
@each(DynamicalConfig)
def test_dynamical_observables(kind, cell):
    def values(device):
        system, trajectory = (one.to(device) for one in waters(cell))
        return assembly.dynamical_observable(section(kind), system)(system, trajectory)

    same_on_both(values)


@each(CriterionConfig)
def test_criteria(kind):
    data = bundled()
    positions = data.train.positions[:4].double().reshape(2, 2, -1, 3).clone()
    positions[1, 0, 0, 0] += 1.0
    trajectory = Trajectory(positions, torch.zeros_like(positions), torch.zeros(2, 2, dtype=torch.float64), 1.0)

    def verdict(device):
        system = data.system().to(device, torch.float64)
        found = first_unstable([assembly.criterion(section(kind), system, data)], system, trajectory.to(device))
        return found.first_frame, found.unstable, [reason or "" for reason in found.reason].count("")

    same_on_both(verdict)


@pytest.mark.parametrize("model", ["schnet_repelled", pytest.param("nequip_l1", marks=pytest.mark.slow), "gemnet_t"])
@each(IntegratorConfig)
def test_integrators(kind, model, toy):
    """With noise and neighbor lists, as a run has them. Repulsion is part of one of the models."""
    if model != "schnet_repelled" and name_of(kind) != "langevin":
        pytest.skip("one integrator each for the other models")
    config = DynamicsConfig(integrator=section(kind), timestep_fs=0.5, temperature_K=300.0)

    def end(device):
        system, force_field = toy.system().to(device, torch.float64), build(model).to(device)
        stretch = Stretch(system, assembly.integrator(config), 4, 2, ())
        positions = toy.train.positions[:3].to(system.masses)
        velocities = toy.train.velocities[:3].to(system.masses)
        outcome = stretch.run(force_field, stretch.begin(force_field, positions, velocities), _generator())
        conserved = stretch.integrator.conserved(system, outcome.state)
        return outcome.state.tensors(), outcome.trajectory.positions, conserved

    same_on_both(end, rtol=1e-5, atol=1e-5)  # the CPU's fast paths interpolate


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("model", ["schnet", "nequip_l1", "gemnet_t"])
def test_force_fields(model, cell):
    """Forces, those with a graph, and their neighbor lists after a rebuild of one replica."""

    def values(device):
        system, trajectory = (one.to(device) for one in waters(cell))
        force_field = build(model).to(device)
        potential, positions = force_field.bind(system), trajectory.positions[0]
        far = positions.clone()
        far[1, 3:6] += 0.7
        results = [potential(positions), potential(far), force_field(system, far, create_graph=True)]
        loss = results[2][1][0].square().sum()  # the other replica is not finite
        gradients = torch.autograd.grad(loss, force_field.trainable_parameters, allow_unused=True)
        return [*(value.detach() for pair in results for value in pair), *(g for g in gradients if g is not None)]

    same_on_both(values)


@pytest.mark.parametrize("cell", CELLS)
def test_bonded_restraint(cell):
    def values(device):
        system, trajectory = (one.to(device) for one in waters(cell))
        frames = waters(cell)[1].positions[:4, 0]  # frames of a data set stay on the CPU
        restraint = BondedRestraint.from_frames(system, frames, kT_eV(300.0), margin_A=0.0)
        return restraint(trajectory.positions[0] * 1.3)

    same_on_both(values)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


ESTIMATORS = {
    "global": {},
    "paper": {"paper_estimator": True},
    "local": {"local": {"n_molecules": 2, "per_frame": 3, "n_strata": 4, "max_per_stratum": 2}},
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@each(TermConfig, "dynamics")  # its gradient needs no samples
def test_loss_terms(kind, estimator):
    """Gradients of every term with every estimator, and of reweighted samples."""
    data = bundled()
    chosen = section(kind)
    if estimator == "local" and name_of(kind) == "observables":
        chosen = kind(name="observables", targets=[{"observable": RDF}])
    values = train_values(Path()) | {"terms": [chosen.model_dump()], "estimator": ESTIMATORS[estimator]}
    config = TrainConfig.model_validate(values | {"stability": run_values(Path())["stability"]})

    def gradient(device):
        system, force_field = data.system().to(device, torch.float64), build("schnet").to(device)
        (weighted,) = assembly.weighted_terms(config, system, data, [point(config, data)], 0.0)
        outcome = _rerun(data, force_field, system)
        samples = assembly.sampling(config, system, data)(force_field, system, outcome, _generator())
        results = [weighted.term.gradient(force_field, samples)]
        if estimator == "global":
            results.append(weighted.term.gradient(force_field, samples.reweighted(force_field)))
        return [(result.gradients, result.loss) for result in results]

    same_on_both(gradient, rtol=1e-6, atol=1e-7)


def _rerun(data: Dataset, force_field, system: System) -> Outcome:
    """Two frames of two replicas, the second of which has broken."""
    positions = data.train.positions[:4].to(system.masses).reshape(2, 2, -1, 3)
    with torch.no_grad():
        energy = force_field.energy(system, positions.flatten(0, 1)).reshape(2, 2)
    trajectory = Trajectory(positions, torch.zeros_like(positions), energy, 2.0)
    verdict = first_unstable([], system, trajectory)
    broken = torch.tensor([2, 1]).to(positions.device)
    verdict = type(verdict)(broken, broken < 2, (None, "bond"))
    last = positions[-1]
    return Outcome(MDState(last, last, last, energy[-1]), trajectory, verdict)
