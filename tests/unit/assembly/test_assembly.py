import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import (
    GEOMETRY,
    NUMBERS,
    SHIFT_EV,
    Springs,
    frames,
    point,
    run_values,
    simulate_config,
    train_config,
    water,
    write_data,
)

from mdsim import assembly, losses
from mdsim.assembly.learning import targets
from mdsim.config.schema import (
    MODEL_CONFIGS,
    ADFConfig,
    BondLengthsConfig,
    DataConfig,
    DiffusivityConfig,
    DihedralsConfig,
    DistancesConfig,
    DynamicsConfig,
    ObservablesTermConfig,
    RDFConfig,
    RDFDeviationConfig,
    VACFConfig,
)
from mdsim.datasets.folder import Dataset, read_metadata, sha256_of
from mdsim.datasets.reference_run import ReferenceRun, write_reference_run
from mdsim.errors import ConfigError
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.nose_hoover import NoseHooverChain
from mdsim.integrators.nve import VelocityVerlet
from mdsim.integrators.paper_euler import PaperEuler
from mdsim.models.loading import model_config
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.vacf import VACF
from mdsim.state import System, Trajectory
from mdsim.units import kT_eV

ENERGIES = {"name": "potential_energy", "standard_deviations": 3.0, "bins": 12}


@pytest.fixture
def dataset(tmp_path):
    write_data(tmp_path / "data", ("20", "10"))
    return assembly.dataset(DataConfig(path=str(tmp_path / "data"), name="toy", molecule="water", size=20))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "velocity_verlet"}, VelocityVerlet(0.5)),
        ({"name": "langevin", "friction_per_ps": 2.0}, LangevinBAOAB(0.5, 400.0, 2.0)),
        ({"name": "paper_euler", "friction_per_ps": 2.0}, PaperEuler(0.5, 400.0, 2.0)),
        (
            {"name": "nose_hoover", "relaxation_steps": 30, "chain_length": 2},
            NoseHooverChain(0.5, 400.0, relaxation_time_fs=15.0, chain_length=2, suzuki_yoshida_order=3),
        ),
    ],
)
def test_integrators(settings, expected):
    dynamics = DynamicsConfig(integrator=settings, temperature_K=400, timestep_fs=0.5)
    assert assembly.integrator(dynamics) == expected


def test_a_force_field_has_the_settings_of_its_configuration():
    config = MODEL_CONFIGS["schnet"](name="schnet", hidden_channels=8, num_filters=4, num_interactions=2, cutoff_A=3.0)
    model = assembly.force_field(config, [8, 1])
    assert model_config(model) == {
        "name": "schnet",
        "hidden_channels": 8,
        "num_filters": 4,
        "num_interactions": 2,
        "num_gaussians": 25,
        "cutoff": 3.0,
    }
    assert model.species.tolist() == [1, 8]


def test_a_stretch_has_every_criterion_and_the_temperature(tmp_path, dataset):
    values = run_values(tmp_path)
    stability = [*values["stability"], {"name": "rdf_mae", "max_distance_A": 3.0, "bin_width_A": 0.1}]
    config = train_config(tmp_path, stability=stability, max_temperature_K=5000)
    stretch = assembly.stretch(config, dataset.system(), dataset)
    assert [c.name for c in stretch.criteria] == ["bond_length_deviation", "rdf_deviation", "temperature_explosion"]
    assert [c.tolerance for c in stretch.criteria] == [0.15, 3.0, 5000]
    assert (stretch.n_steps, stretch.dump_every) == (12, 4)
    assert stretch.criteria[0].reference_lengths_A.tolist() == pytest.approx([0.96, 0.96], abs=0.03)


def test_bond_lengths_are_judged_against_the_mean_of_the_data(dataset):
    config = train_config(dataset.folder).stability[0]
    judge = assembly.criterion(config, dataset.system(), dataset)
    bonds = dataset.train.positions[:, 1:] - dataset.train.positions[:, :1]
    assert judge.reference_lengths_A.tolist() == pytest.approx(bonds.norm(dim=-1).mean(0).tolist(), rel=1e-5)


@pytest.mark.parametrize("cell", [None, 20.0])
def test_the_rdf_is_normalized_by_what_there_is(cell):
    system = water() if cell is None else System.from_geometry(NUMBERS, GEOMETRY, cell * torch.eye(3).double())
    rdf = assembly.observable(RDFConfig(name="rdf", max_distance_A=4.0, bin_width_A=0.5, pair=("O", "H")), system)
    values = rdf(system, Trajectory(GEOMETRY[None, None], None, None, 1.0))[0, 0]
    if cell is None:
        assert (values * 0.5).sum() == pytest.approx(1.0), "h(r) is a density"
    else:
        assert (values * 0.5).sum() > 10, "g(r) counts from the ideal gas"


def test_observables():
    system = water()
    assert assembly.observable(ADFConfig(name="adf", bin_width_deg=5.0), system).bin_centers[0] == 2.5
    lengths = assembly.observable(BondLengthsConfig(name="bond_lengths", max_length_A=2.0, bin_width_A=0.1), system)
    assert len(lengths.bin_centers) == 20
    assert assembly.dynamical_observable(VACFConfig(name="vacf", max_lag_fs=10), water()) == VACF(max_lag_fs=10.0)
    settings = DiffusivityConfig(name="diffusivity", fit_start_fs=1.0, fit_end_fs=9.0)
    chosen = assembly.dynamical_observable(settings, water())
    assert isinstance(chosen, Diffusivity)


def aspirin_data() -> Dataset:
    return assembly.dataset(DataConfig(path="data/bundled", name="aspirin_gfn2", molecule="aspirin", size="40"))


def test_a_section_of_dihedrals_makes_one_observable_for_each():
    system = aspirin_data().system()
    automatic = assembly.observables(DihedralsConfig(name="dihedrals"), system)
    names = ["dihedral_C6_C5_C10_O9", "dihedral_C5_C6_O12_C11", "dihedral_H13_O9_C10_C5", "dihedral_C4_C11_O12_C6"]
    assert [one.name for one in automatic] == names
    (pooled,) = assembly.observables(DihedralsConfig(name="dihedrals", pooled=True), system)
    assert pooled.name == "dihedral_pooled" and pooled.atoms == tuple(one.atoms[0] for one in automatic)
    chosen = DihedralsConfig(name="dihedrals", atoms={"carboxyl": (6, 5, 10, 9)}, bin_width_deg=20.0)
    (carboxyl,) = assembly.observables(chosen, system)
    assert (carboxyl.name, carboxyl.atoms, len(carboxyl.bin_centers)) == ("dihedral_carboxyl", ((6, 5, 10, 9),), 18)
    with pytest.raises(ConfigError, match="no rotatable bond; name the `atoms` of a dihedral"):
        assembly.observables(DihedralsConfig(name="dihedrals"), water())


def test_a_section_of_distances_makes_one_observable_for_each_pair_of_elements():
    settings = {"name": "distances", "max_distance_A": 4.0, "bin_width_A": 0.5}
    found = assembly.observables(DistancesConfig(**settings), water())
    assert [one.name for one in found] == ["distances_OH", "distances_HH"]
    (one,) = assembly.observables(DistancesConfig(**settings, pair=("H", "O"), among="within_molecules"), water())
    assert one.name == "distances_HO_within_molecules"
    with pytest.raises(ConfigError, match="no pairs of atoms 'between_molecules'"):
        assembly.observables(DistancesConfig(**settings, among="between_molecules"), water())


def test_each_distribution_of_a_section_is_a_target(tmp_path):
    data = aspirin_data()
    dihedrals = {"observable": {"name": "dihedrals", "bin_width_deg": 20.0}, "loss": "reverse_kl", "weight": 2.0}
    term = ObservablesTermConfig(name="observables", targets=[dihedrals])
    found = targets(term, train_config(tmp_path), data.system(), point(train_config(tmp_path), data))
    assert [one.observable.name for one in found] == [
        one.name for one in assembly.observables(DihedralsConfig(name="dihedrals"), data.system())
    ]
    for one in found:
        assert one.weight == 2.0 and float(one.loss(one.reference, one.reference)) == pytest.approx(0.0, abs=1e-6)
        assert float(one.reference.sum()) * 20.0 == pytest.approx(1.0, rel=1e-5)
    several = ObservablesTermConfig(name="observables", targets=[{**dihedrals, "reference_file": "one.dat"}])
    with pytest.raises(ConfigError, match=r"one\.dat has one distribution, and the targets are dihedral_C6_"):
        targets(several, train_config(tmp_path), data.system(), point(train_config(tmp_path), data))
    table = tmp_path / "one.dat"
    table.write_text("-180 0.002\n0 0.003\n180 0.004\n")
    named = {"observable": {"name": "dihedrals", "atoms": {"a": [6, 5, 10, 9]}}, "reference_file": str(table)}
    term = ObservablesTermConfig(name="observables", targets=[named])
    (one,) = targets(term, train_config(tmp_path), data.system(), point(train_config(tmp_path), data))
    assert one.reference[[0, -1]].tolist() == pytest.approx([0.002 + 5e-3 / 180, 0.004 - 5e-3 / 180])


@pytest.mark.parametrize("determined", [True, False])
def test_energies_are_compared_with_the_labels(tmp_path, dataset, determined, caplog, monkeypatch):
    """Of one force field that gives the labels, whose zero is known or not."""
    monkeypatch.setattr(logging.getLogger("mdsim"), "propagate", True)
    config, system, force_field = simulate_config(tmp_path, observables=[ENERGIES]), dataset.system(), Springs()
    hydrogen = System.from_geometry(torch.tensor([1, 1]), torch.tensor([[0.0, 0, 0], [0.74, 0, 0]]))
    force_field.fit_energy_zero([water() if determined else hydrogen], torch.tensor([SHIFT_EV]).double())
    assert assembly.compared_structural(config, system, point(config, dataset)) == {}
    with caplog.at_level("INFO", logger="mdsim"):
        (compared,) = assembly.compared_energy(config, system, point(config, dataset), force_field).values()
    assert compared.observable.aligned is not determined
    assert ("aligned at their mean over 20 labeled frames" in caplog.text) is not determined
    frames = dataset.train.positions.double()
    energy = force_field(water(), frames)[0].detach()
    assert compared.observable.center_eV == pytest.approx(float(energy.mean()), abs=1e-4)
    assert compared.axis[-1] == pytest.approx(3.0 * float(energy.std(correction=0)) * 11 / 12, rel=1e-3)
    found = compared.observable(system, Trajectory(frames[:, None], None, energy[:, None], 1.0)).mean((0, 1))
    torch.testing.assert_close(found, compared.reference.double(), rtol=1e-4, atol=1e-5)


def test_an_offset_of_the_energies_shows_if_the_zero_is_determined(tmp_path, dataset):
    config, force_field = simulate_config(tmp_path, observables=[ENERGIES]), Springs()
    force_field.fit_energy_zero([water()], torch.tensor([SHIFT_EV - 0.5]).double())
    (compared,) = assembly.compared_energy(config, dataset.system(), point(config, dataset), force_field).values()
    energy = Springs()(water(), dataset.train.positions.double())[0]
    assert compared.observable.center_eV == pytest.approx(float(energy.mean()) + 0.5, abs=1e-4)


def test_energies_are_reweighted_and_listed_once(tmp_path, dataset):
    system, force_field = dataset.system(), Springs()
    force_field.fit_energy_zero([water()], torch.tensor([SHIFT_EV]).double())
    centers = {}
    for kelvin in (250.0, 300.0, 400.0):
        values = run_values(tmp_path)["dynamics"] | {"temperature_K": kelvin}
        config = simulate_config(tmp_path, observables=[ENERGIES], reweight_reference=True, dynamics=values)
        compared = assembly.compared_energy(config, system, point(config, dataset), force_field)["potential_energy"]
        centers[kelvin] = compared.observable.center_eV
    assert centers[250.0] < centers[300.0] < centers[400.0]
    with pytest.raises(ConfigError, match="potential_energy is listed more than once"):
        twice = simulate_config(tmp_path, observables=[ENERGIES, ENERGIES])
        assembly.compared_energy(twice, system, point(twice, dataset), force_field)


def test_labels_that_are_all_equal_have_no_distribution(tmp_path, dataset):
    frames = replace(dataset.train, energy=torch.full_like(dataset.train.energy, SHIFT_EV))
    dataset.__dict__["train"] = frames
    config, force_field = simulate_config(tmp_path, observables=[ENERGIES]), Springs()
    with pytest.raises(ConfigError, match="potential_energy needs labels that differ"):
        assembly.compared_energy(config, dataset.system(), point(config, dataset), force_field)


def test_references_come_from_training_frames_or_from_a_file(tmp_path, dataset):
    system = dataset.system()
    rdf = assembly.observable(RDFConfig(name="rdf", max_distance_A=4.0, bin_width_A=0.5), system)
    own = assembly.reference(rdf, system, dataset)
    positions = dataset.train.positions
    direct = rdf(system, Trajectory(positions[:, None], None, None, 1.0))[:, 0].mean(0)
    torch.testing.assert_close(own, direct.to(own), rtol=1e-5, atol=1e-6)
    table = tmp_path / "experiment.dat"
    table.write_text("".join(f"{r / 10} {r / 100}\n" for r in range(41)))
    torch.testing.assert_close(assembly.reference(rdf, system, dataset, str(table)), (0.1 * rdf.bin_centers).to(own))


def test_targets(tmp_path, dataset):
    terms = [
        {"observable": {"name": "rdf", "max_distance_A": 4.0, "bin_width_A": 0.1}, "loss": kind, "weight": weight}
        for kind, weight in {"mse": 1.0, "sse": 2.0, "wasserstein": 3.0, "reverse_kl": 4.0}.items()
    ]
    config = train_config(tmp_path, terms=[{"name": "observables", "targets": terms}])
    (weighted,) = assembly.weighted_terms(config, dataset.system(), dataset, [point(config, dataset)], 0.0)
    targets = weighted.term.targets
    assert [target.weight for target in targets] == [1.0, 2.0, 3.0, 4.0]
    mean, reference = targets[0].reference.roll(1), targets[0].reference
    found = [float(target.loss(mean, reference)) for target in targets]
    expected = [
        losses.mean_squared_error(mean, reference),
        losses.sum_squared_error(mean, reference),
        losses.wasserstein_1(mean, reference, 0.1),
        losses.reverse_kl(mean, reference),
    ]
    assert found == pytest.approx([float(value) for value in expected])
    assert found[2] == pytest.approx(0.1, rel=0.05), "a shift by one bin moves the mass by its width, in Å"


@pytest.mark.parametrize(("kind", "energy", "force"), [("mae", 2.0, 1.0), ("mse", 4.0, 3.0), ("l2mae", 2.0, 3.0**0.5)])
def test_energy_force_losses(kind, energy, force):
    loss = assembly.energy_force_loss(kind, 0.3, 0.7)
    one = torch.tensor([[[1.0, 1.0, 1.0]]]) if kind != "mse" else torch.tensor([[[3.0, 0.0, 0.0]]])
    zero = torch.zeros_like(one)
    assert float(loss(torch.tensor([2.0]), one, torch.zeros(1), zero)) == pytest.approx(0.3 * energy + 0.7 * force)


def test_labels_are_relative_to_the_shift_of_the_force_field(tmp_path, dataset):
    config = train_config(tmp_path)
    _, weighted = assembly.weighted_terms(
        config, dataset.system(), dataset, [point(config, dataset)], zero_energy_eV=-1999.0
    )
    data = weighted.term.frames
    expected = frames(20, seed=1).energy + 1999.0
    torch.testing.assert_close(data.energy.double(), expected, rtol=0, atol=1e-6)
    assert data.energy.dtype == torch.float32


# ---------------------------------------------------------------------------------------------- places of checkpoints


def test_places_of_pretrained_checkpoints(tmp_path):
    data = DataConfig(path="d", name="md17", molecule="aspirin", size="1k")
    assert assembly.pretraining_path("root", "schnet", data).as_posix() == "root/schnet/md17-aspirin_1k_schnet"
    assert assembly.pretraining_path("root", "schnet", data, "a").name == "md17-aspirin_1k_schnet_a"
    found = assembly.pretrained_checkpoint(train_config(tmp_path), size="7k", identifier="lmax=1")
    assert found.parts[-3:] == ("toy-water_7k_schnet_lmax=1", "checkpoints", "best_checkpoint.pt")


def test_what_eval_model_names(tmp_path):
    config = simulate_config(tmp_path)
    fits, run = tmp_path / "models" / "schnet", tmp_path / "runs" / "stable_training" / "schnet_water_default"
    best = Path("checkpoints", "best_checkpoint.pt")
    expected = {
        "pre": fits / "toy-water_20_schnet" / best,
        "10k": fits / "toy-water_10k_schnet" / best,
        "100": fits / "toy-water_100_schnet" / best,
        "25percent": fits / "toy-water_25percent_schnet" / best,
        "lmax=2": fits / "toy-water_20_schnet_lmax=2" / best,
        "post": run / "last.pt",
        "post_cycle3": run / "end_of_cycle3.pt",
        "post_cycle12_epoch345": run / "cycle12_epoch345.pt",
    }
    for name, path in expected.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert assembly.evaluated_checkpoint(config, name) == path, name


@pytest.mark.parametrize("name", ["", "Post", "post_cycle", "post_cycle1_epoch", "best", "../x", "10kk", "post_epoch1"])
def test_other_eval_models_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"eval_model: found .*, expected pre, a data size"):
        assembly.evaluated_checkpoint(simulate_config(tmp_path), name)


def test_a_missing_checkpoint_says_which_there_are(tmp_path):
    config = simulate_config(tmp_path)
    with pytest.raises(ConfigError, match=r"last\.pt does not exist; train it first"):
        assembly.evaluated_checkpoint(config, "post")
    config.run_path.mkdir(parents=True)
    (config.run_path / "end_of_cycle1.pt").touch()
    with pytest.raises(ConfigError, match=r"end_of_cycle2\.pt does not exist; there are end_of_cycle1\.pt"):
        assembly.evaluated_checkpoint(config, "post_cycle2")


@pytest.mark.parametrize(
    ("eval_model", "shipped"),
    [
        ("post", "last.pt"),
        ("post", "end_of_cycle10.pt"),
        ("post_cycle2", "end_of_cycle2.pt"),
        ("post_cycle1_epoch3", "cycle1_epoch3.pt"),
    ],
)
def test_checkpoints_that_come_with_the_code_stand_in_for_those_of_the_run(tmp_path, caplog, eval_model, shipped):
    config = simulate_config(tmp_path, stable_dir=str(tmp_path / "shipped"))
    folder = tmp_path / "shipped" / "stable_training" / "schnet_water_default"
    folder.mkdir(parents=True)
    for name in (shipped, "end_of_cycle2.pt"):  # of several cycles the last one counts, and 10 comes after 2
        (folder / name).touch()
    with caplog.at_level("INFO", logger="mdsim"):
        assert assembly.evaluated_checkpoint(config, eval_model) == folder / shipped
    own = config.run_path / {"post": "last.pt"}.get(eval_model, shipped)
    assert f"{own} does not exist; evaluating {folder / shipped}" in caplog.text
    own.parent.mkdir(parents=True)
    own.touch()
    caplog.clear()
    assert assembly.evaluated_checkpoint(config, eval_model) == own
    assert not caplog.text


def test_both_places_are_named_where_neither_has_the_checkpoint(tmp_path):
    config = simulate_config(tmp_path, stable_dir=str(tmp_path / "shipped"))
    with pytest.raises(ConfigError) as caught:
        assembly.evaluated_checkpoint(config, "post")
    for folder in (config.run_path, config.stable_path):
        assert str(folder / "last.pt") in str(caught.value)


# --------------------------------------------------------------------------------------------- dynamical references


def test_dynamical_references_have_the_spacing_of_the_simulation(tmp_path, dataset):
    config = simulate_config(tmp_path, dense_window={"epochs": 1, "dump_every_steps": 4})
    compared = assembly.compared_dynamical(config, dataset.system(), dataset)["vacf"]
    assert compared.axis.tolist() == [0.0, 4.0, 8.0]
    frames_4fs = dataset.contiguous_trajectory()[::2]
    torch.testing.assert_close(compared.reference, VACF(max_lag_fs=8.0)(dataset.system(), frames_4fs)[0].double())


def test_a_spacing_that_the_data_have_not_is_refused(tmp_path, dataset):
    config = simulate_config(tmp_path, dense_window={"epochs": 1, "dump_every_steps": 1})
    with pytest.raises(ConfigError, match=r"frames every 1 fs cannot be compared .* 2 fs apart; choose a multiple"):
        assembly.compared_dynamical(config, dataset.system(), dataset)


def test_a_window_that_is_too_short_is_noticed_before_the_simulation(tmp_path, dataset):
    config = simulate_config(tmp_path, dynamical_observables=[{"name": "vacf", "max_lag_fs": 30.0}])
    with pytest.raises(ValueError, match=r"needs windows of 16 frames, 2\.0 fs apart, but they have 6"):
        assembly.compared_dynamical(config, dataset.system(), dataset)


def test_nothing_dynamical_needs_no_contiguous_frames(tmp_path, dataset):
    config = simulate_config(tmp_path, dynamical_observables=[], dense_window=None)
    (dataset.folder.parent / "contiguous.npz").unlink()
    assert assembly.compared_dynamical(config, dataset.system(), dataset) == {}


def test_structural_references_may_come_from_another_size(tmp_path, dataset):
    config = simulate_config(tmp_path)
    small = assembly.dataset(config.data, "10")
    compared = assembly.compared_structural(config, dataset.system(), point(config, small))
    (name,) = compared
    assert name.startswith("rdf")
    rdf = compared[name].observable
    torch.testing.assert_close(compared[name].reference, assembly.reference(rdf, dataset.system(), small))
    assert len(small.train) == 10


def test_references_are_reweighted_to_the_temperature_of_the_dynamics(dataset, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mdsim"), "propagate", True)
    system = water()
    rdf = assembly.observable(RDFConfig(name="rdf", max_distance_A=4.0, bin_width_A=0.5, pair=None), system)
    known = dataset.metadata.temperature_K
    plain = assembly.reference(rdf, system, dataset)
    with caplog.at_level("INFO", logger="mdsim"):
        same = assembly.reference(rdf, system, dataset, temperature_K=known)
        hotter = assembly.reference(rdf, system, dataset, temperature_K=1.5 * known)
    torch.testing.assert_close(same, plain)
    energy = dataset.train.energy
    weights = torch.softmax(-(1 / 1.5 - 1) * energy / kT_eV(known), dim=0)
    frames = Trajectory(dataset.train.positions[:, None].to(system.masses), None, None, 1.0)
    expected = (weights[:, None] * rdf(system, frames)[:, 0].double()).sum(0)
    torch.testing.assert_close(hotter.double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(hotter, plain)
    assert f"of {len(energy)} frames" in caplog.text


# --------------------------------------------------------------------------------------------------- periodic liquids


@pytest.fixture
def liquid(dataset) -> System:
    return replace(dataset.system(), cell=8.0 * torch.eye(3))


@pytest.fixture
def with_run(dataset, tmp_path) -> Dataset:
    """The data set with tables of g(r) and displacements that no frame would give."""
    blocks = torch.arange(1.0, 3.0, dtype=torch.float64)[:, None]
    run = ReferenceRun(0.01, {"HO": blocks.expand(2, 400)}, 4.0, {"O": blocks * 4.0 * torch.arange(6)})
    write_reference_run(dataset.folder.parent / "reference.npz", run)
    metadata = json.loads((dataset.folder / "metadata.json").read_text())
    metadata["sha256"]["reference.npz"] = sha256_of(dataset.folder.parent / "reference.npz")
    (dataset.folder / "metadata.json").write_text(json.dumps(metadata))
    return Dataset(dataset.folder, read_metadata(dataset.folder / "metadata.json"))


def test_references_come_from_the_whole_run_where_it_has_them(tmp_path, liquid, with_run):
    rdfs = [{"name": "rdf", "pair": pair, "max_distance_A": 4.0, "bin_width_A": 0.1} for pair in ("OH", "HH")]
    diffusivity = {"name": "diffusivity", "element": "O", "fit_start_fs": 4.0, "fit_end_fs": 20.0}
    config = simulate_config(
        tmp_path,
        reference_run=True,
        observables=[{**rdf, "pair": tuple(rdf["pair"])} for rdf in rdfs],
        dynamical_observables=[diffusivity, {"name": "vacf", "max_lag_fs": 8.0}],
        dense_window={"epochs": 4, "dump_every_steps": 2},
    )
    structural = assembly.compared_structural(config, liquid, point(config, with_run))
    assert structural["rdf_OH"].reference.tolist() == pytest.approx([1.5] * 40), "mean of two blocks"
    assert structural["rdf_HH"].reference.max() > 2, "from the frames, as without a run"
    dynamical = assembly.compared_dynamical(config, liquid, with_run)
    found = dynamical["diffusivity_O"]
    assert float(found.reference) == pytest.approx(1e4 * 1.5 / 6) and found.observable.viscosity_mPa_s == 0.854
    assert float(found.standard_error) == pytest.approx(1e4 * 0.5 / 6)
    assert dynamical["vacf"].standard_error is None and len(dynamical["vacf"].reference) == 5


def test_rdf_criteria_of_several_pairs_have_names_of_their_own(liquid, with_run):
    settings = {"name": "rdf_mae", "max_distance_A": 4.0, "bin_width_A": 0.1}
    judges = [
        assembly.criterion(RDFDeviationConfig(**settings, pair=pair), liquid, with_run, from_run=True)
        for pair in (None, ("O", "H"))
    ]
    assert [judge.name for judge in judges] == ["rdf_deviation", "rdf_OH_deviation"]
    assert judges[1].reference.tolist() == pytest.approx([1.5] * 40)


def test_a_dense_window_too_short_for_the_fit_is_found_at_once(tmp_path, liquid, with_run):
    diffusivity = {"name": "diffusivity", "element": "O", "fit_start_fs": 4.0, "fit_end_fs": 20.0}
    config = simulate_config(tmp_path, reference_run=True, dynamical_observables=[diffusivity])
    with pytest.raises(ValueError, match=r"needs 11 frames, 2\.0 fs apart, but the trajectory has 6"):
        assembly.compared_dynamical(config, liquid, with_run)


def test_observables_of_one_name_are_refused(tmp_path, dataset):
    rdf = {"name": "rdf", "max_distance_A": 4.0, "bin_width_A": 0.1}
    config = simulate_config(tmp_path, observables=[rdf, rdf])
    with pytest.raises(ConfigError, match="rdf is listed more than once"):
        assembly.compared_structural(config, dataset.system(), point(config, dataset))


def test_a_run_and_another_temperature_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="no frames to reweight"):
        simulate_config(tmp_path, reference_run=True, reweight_reference=True)
