"""Sections of structure factors, distributions over atoms and molecules, and spectra, as metrics and as targets."""

import numpy as np
import pytest
import torch
from paths import ROOT
from pydantic import TypeAdapter, ValidationError
from tiny import Springs, point, simulate_config, train_config, water

from mdsim import assembly
from mdsim.assembly.learning import targets
from mdsim.config.schema import (
    DataConfig,
    DynamicalConfig,
    EndToEndConfig,
    InfraredSpectrumConfig,
    ObservablesTermConfig,
    StructureFactorConfig,
    TargetObservableConfig,
)
from mdsim.datasets.folder import Dataset
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable
from mdsim.observables import DebyeStructureFactor, DirectStructureFactor, FourierStructureFactor
from mdsim.state import System, Trajectory
from mdsim.units import KJ_PER_MOL, kT_eV

WATER_SECTIONS = {
    "structure_factor_OO": {"name": "structure_factor", "pair": ["O", "O"], "max_q_per_A": 6.5},
    "structure_factor_neutron": {
        "name": "structure_factor",
        "weighting": "neutron",
        "isotopes": {"H": 2},
        "method": "fourier",
        "lorch_window": False,
        "max_q_per_A": 6.5,
    },
    "coordination_OO": {"name": "coordination", "pair": ["O", "O"], "cutoff_A": 3.3},
    "coordination_OH_intermolecular": {
        "name": "coordination",
        "pair": ["O", "H"],
        "cutoff_A": 2.4,
        "switching_width_A": 0.4,
        "intermolecular_only": True,
        "max_number": 6,
    },
    "tetrahedral_order_O": {"name": "tetrahedral_order"},
    "hydrogen_bonds": {"name": "hydrogen_bonds"},
    "radius_of_gyration": {"name": "radius_of_gyration", "max_radius_A": 0.6, "bin_width_A": 0.02},
}
DENSE = {"epochs": 1, "dump_every_steps": 4}


@pytest.fixture(scope="module")
def liquid() -> Dataset:
    """18 training frames of the bundled water."""
    return assembly.dataset(
        DataConfig(path=str(ROOT / "data" / "bundled"), name="water_spcfw", molecule="water", size=20)
    )


@pytest.mark.parametrize("name", WATER_SECTIONS)
def test_each_section_is_a_metric_and_a_target(name, liquid, tmp_path):
    section, system = WATER_SECTIONS[name], liquid.system()
    config = simulate_config(tmp_path, observables=[section])
    compared = assembly.compared_structural(config, system, point(config, liquid))
    assert list(compared) == [name]
    frames = liquid.train.positions[:, None].to(system.masses)
    term = ObservablesTermConfig(name="observables", targets=[{"observable": section, "loss": "mse"}])
    (target,) = targets(term, train_config(tmp_path), system, point(config, liquid))
    for reference in (compared[name].reference, target.reference):
        assert reference.isfinite().all() and reference.std() > 0
        found = target.observable(system, Trajectory(frames, None, None, 1.0)).mean((0, 1))
        torch.testing.assert_close(reference, found, rtol=1e-4, atol=1e-5)
    assert float(target.loss(found + 0.1, target.reference)) == pytest.approx(0.01, rel=1e-2)


def test_a_target_may_come_from_a_file(liquid, tmp_path):
    table = tmp_path / "measured.dat"
    table.write_text("# q S\n0.1 0.0\n20.0 1.99\n")
    section = WATER_SECTIONS["structure_factor_neutron"]
    chosen = {"observable": section, "reference_file": str(table)}
    (target,) = targets(
        ObservablesTermConfig(name="observables", targets=[chosen]),
        train_config(tmp_path),
        liquid.system(),
        point(train_config(tmp_path), liquid),
    )
    expected = (target.observable.bin_centers - 0.1) / 10
    torch.testing.assert_close(target.reference.double(), expected, rtol=1e-5, atol=1e-6)


def test_partial_structure_factors_of_all_pairs(liquid):
    found = assembly.observables(StructureFactorConfig(name="structure_factor"), liquid.system())
    assert [one.name for one in found] == ["structure_factor_OO", "structure_factor_OH", "structure_factor_HH"]
    assert all(isinstance(one, DirectStructureFactor) for one in found)
    transform = StructureFactorConfig(name="structure_factor", weighting="xray", method="fourier")
    (one,) = assembly.observables(transform, liquid.system())
    assert isinstance(one, FourierStructureFactor) and one.weighting == "xray"
    (one,) = assembly.observables(StructureFactorConfig(name="structure_factor", weighting="number"), water())
    assert isinstance(one, DebyeStructureFactor)


def test_sections_of_which_keys_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="isotopes are for weighting: neutron, but it is xray"):
        StructureFactorConfig(name="structure_factor", weighting="xray", isotopes={"H": 2})
    with pytest.raises(ValidationError, match="but weighting is neutron"):
        StructureFactorConfig(name="structure_factor", weighting="neutron", pair=("O", "O"))
    with pytest.raises(ValidationError, match="two different atoms"):
        EndToEndConfig(name="end_to_end", atoms={"a": (3, 3)})
    for both in ({}, {"charges_e": {"O": 1.0}, "charges_file": "q.txt"}, {"charges_e": {}}):
        with pytest.raises(ValidationError, match="and not both"):
            InfraredSpectrumConfig(name="infrared_spectrum", **both)
    for spectrum in ("vibrational_dos", "infrared_spectrum"):
        with pytest.raises(ValidationError):
            TypeAdapter(TargetObservableConfig).validate_python({"name": spectrum})
        assert spectrum in str(TypeAdapter(DynamicalConfig).json_schema())


def test_a_structure_factor_is_no_density(liquid, tmp_path):
    section = WATER_SECTIONS["structure_factor_OO"]
    for loss in ("wasserstein", "reverse_kl", "forward_kl"):
        term = ObservablesTermConfig(name="observables", targets=[{"observable": section, "loss": loss}])
        with pytest.raises(ConfigError, match=f"loss: {loss} compares densities, and structure_factor_OO is none"):
            targets(term, train_config(tmp_path), liquid.system(), point(train_config(tmp_path), liquid))


def test_ends_of_chains():
    data = assembly.dataset(
        DataConfig(path=str(ROOT / "data" / "bundled"), name="aspirin_gfn2", molecule="aspirin", size="40")
    )
    (automatic,) = assembly.observables(EndToEndConfig(name="end_to_end"), data.system())
    assert automatic.name.startswith("end_to_end_") and isinstance(automatic, BinnedObservable)
    (named,) = assembly.observables(EndToEndConfig(name="end_to_end", atoms={"ring": (0, 3)}), data.system())
    assert named.name == "end_to_end_ring" and named.ends == ((0, 3),)
    with pytest.raises(ConfigError, match="no molecule has two bonded heavy atoms"):
        assembly.observables(EndToEndConfig(name="end_to_end"), water())


def test_spectra_have_their_bins_as_axis(liquid, tmp_path):
    """4 fs between contiguous frames of the data, as in the dense window."""
    charges = tmp_path / "charges.txt"
    charges.write_text("\n".join(["-0.82 0.41 0.41"] * 64))
    spectra = [
        {"name": "vibrational_dos", "max_lag_fs": 200.0, "bin_width_per_cm": 50.0},
        {"name": "vibrational_dos", "max_lag_fs": 200.0, "element": "H"},
        {"name": "infrared_spectrum", "max_lag_fs": 200.0, "charges_file": str(charges)},
        {"name": "vacf", "max_lag_fs": 40.0, "element": "O"},
    ]
    config = simulate_config(
        tmp_path, dynamical_observables=spectra, dense_window={**DENSE, "epochs": 20},
        dynamics={**simulate_config(tmp_path).dynamics.model_dump(), "timestep_fs": 1.0, "steps_per_epoch": 40},
        epochs=20,
    )  # fmt: skip
    compared = assembly.compared_dynamical(config, liquid.system(), liquid)
    assert list(compared) == ["vibrational_dos", "vibrational_dos_H", "infrared_spectrum", "vacf_O"]
    assert compared["vibrational_dos"].axis.tolist() == [25.0 + 50.0 * k for k in range(80)]
    stretch = compared["vibrational_dos_H"]
    peak = stretch.axis[stretch.axis > 3000][stretch.reference[stretch.axis > 3000].argmax()]
    assert 3600 < float(peak) < 3800, "O-H stretch of SPC/Fw"
    same = InfraredSpectrumConfig(name="infrared_spectrum", max_lag_fs=200.0, charges_e={"O": -0.82, "H": 0.41})
    by_element = assembly.dynamical_observable(same, liquid.system())
    frames = liquid.contiguous_trajectory().to(dtype=torch.float32)
    torch.testing.assert_close(
        compared["infrared_spectrum"].reference, by_element(liquid.system(), frames)[0].double(), rtol=1e-4, atol=1e-8
    )
    for content, message in (("-0.82 x", "no file of numbers"), ("", "empty"), ("nan", "not finite")):
        charges.write_text(content)
        with pytest.raises(ConfigError, match=message):
            assembly.compared_dynamical(config, liquid.system(), liquid)


def test_references_of_an_evaluation_may_come_from_files(liquid, tmp_path):
    """One structural and one dynamical observable, of which the data would give something else."""
    table, decay = tmp_path / "bonds.dat", tmp_path / "decay.dat"
    np.savetxt(table, np.stack([np.arange(-1, 10), np.arange(-1, 10) / 36], axis=1))
    np.savetxt(decay, np.stack([np.arange(0, 50.0), np.exp(-np.arange(0, 50.0) / 20)], axis=1))
    files = [
        {"observable": "hydrogen_bonds", "reference_file": str(table)},
        {"observable": "vacf", "reference_file": str(decay)},
    ]
    config = simulate_config(
        tmp_path, observables=[WATER_SECTIONS["hydrogen_bonds"], WATER_SECTIONS["coordination_OO"]],
        reference_files=files, dense_window=DENSE, dynamical_observables=[{"name": "vacf", "max_lag_fs": 8.0}],
    )  # fmt: skip
    structural = assembly.compared_structural(config, liquid.system(), point(config, liquid))
    assert structural["hydrogen_bonds"].reference.tolist() == pytest.approx([k / 36 for k in range(9)])
    assert float(structural["coordination_OO"].reference.sum()) == pytest.approx(1.0)
    dynamical = assembly.compared_dynamical(config, liquid.system(), liquid)
    assert dynamical["vacf"].axis.tolist() == [0.0, 4.0, 8.0]
    assert dynamical["vacf"].reference.tolist() == pytest.approx(np.exp([0, -0.2, -0.4]))
    assembly.check_reference_files(config, [*structural, *dynamical])
    with pytest.raises(ConfigError, match="vacf is no observable of this evaluation, which has: hydrogen_bonds, coord"):
        assembly.check_reference_files(config, structural)
    twice = simulate_config(tmp_path, reference_files=[files[0], files[0]])
    with pytest.raises(ConfigError, match="reference_files: hydrogen_bonds is listed more than once"):
        assembly.compared_structural(twice, liquid.system(), point(twice, liquid))


@pytest.mark.parametrize(
    ("stated_K", "factor", "message"),
    [(None, 1.0, None), (298.0, 1.0, None), (338.0, 1.0, "is at 338 K, and the dynamics at 300 K"),
     (None, 0.1, "rdf_OO is g\\(r\\), which approaches 1")],
)  # fmt: skip
def test_measurements_that_cannot_be_compared_are_refused(liquid, tmp_path, stated_K, factor, message):
    """At another temperature or in another normalization; evaluations and targets have the same rule."""
    table = tmp_path / "rdf.dat"
    radii = np.arange(0.0, 7.0, 0.5)
    np.savetxt(table, np.stack([radii, factor * (radii > 2.5)], axis=1))
    rdf = {"name": "rdf", "pair": ["O", "O"], "max_distance_A": 6.0, "bin_width_A": 0.5}
    given = {"reference_file": str(table), "reference_temperature_K": stated_K}
    evaluation = simulate_config(tmp_path, observables=[rdf], reference_files=[{"observable": "rdf_OO", **given}])
    evaluation, training = (
        config.model_copy(update={"dynamics": config.dynamics.model_copy(update={"temperature_K": 300.0})})
        for config in (evaluation, train_config(tmp_path))
    )
    term = ObservablesTermConfig(name="observables", targets=[{"observable": rdf, **given}])

    def of_both() -> list[torch.Tensor]:
        compared = assembly.compared_structural(evaluation, liquid.system(), point(evaluation, liquid))
        (target,) = targets(term, training, liquid.system(), point(training, liquid))
        return [compared["rdf_OO"].reference, target.reference]

    if message is None:
        first, second = of_both()
        torch.testing.assert_close(first, second)
        return
    with pytest.raises(ConfigError, match=message) as first:
        assembly.compared_structural(evaluation, liquid.system(), point(evaluation, liquid))
    with pytest.raises(ConfigError, match=message) as second:
        targets(term, training, liquid.system(), point(training, liquid))
    assert str(first.value) == str(second.value) and str(table) in str(first.value)


def test_energies_of_the_labels_are_references(liquid, tmp_path):
    """Labels of SPC/Fw: -41.8 kJ/mol per molecule; a classical harmonic molecule has 3/2 kT of potential energy."""
    force_field = Springs()
    single = System.from_bonds(torch.tensor([8, 1, 1]), torch.tensor([[0, 1], [0, 2]]))
    force_field.fit_energy_zero([single], torch.tensor([0.0]).double())
    sections = [
        {"name": "energy_per_molecule"},
        {"name": "enthalpy_of_vaporization", "gas_energy_eV": 1.5 * kT_eV(300.0)},
    ]
    dynamics = {**simulate_config(tmp_path).dynamics.model_dump(), "temperature_K": 300.0}
    config = simulate_config(tmp_path, observables=sections, dynamics=dynamics)
    energy, enthalpy = assembly.compared_energy(config, liquid.system(), point(config, liquid), force_field).values()
    mean = float(liquid.train.energy.mean()) / 64 / KJ_PER_MOL
    assert -43 < mean < -41
    assert float(energy.reference) == pytest.approx(mean, rel=1e-5)
    assert float(enthalpy.reference) == pytest.approx(-mean + 2.5 * 8.314463e-3 * 300, rel=1e-5)
    measured = [{**sections[1], "reference_kJ_per_mol": 43.9}]
    config = simulate_config(tmp_path, observables=measured, dynamics=dynamics)
    (compared,) = assembly.compared_energy(config, liquid.system(), point(config, liquid), force_field).values()
    assert float(compared.reference) == pytest.approx(43.9)
    hydrogen = System.from_bonds(torch.tensor([1, 1]), torch.tensor([[0, 1]]))
    force_field.fit_energy_zero([hydrogen], torch.tensor([0.0]).double())
    with pytest.raises(ConfigError, match="enthalpy_of_vaporization needs energies with the zero of the labels"):
        assembly.compared_energy(config, liquid.system(), point(config, liquid), force_field)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("energy_per_molecule", "depends on the parameters"),
        ("enthalpy_of_vaporization", "depends on the parameters"),
        ("pressure", "the pressure depends on the parameters, and the estimator has no gradient of the stress"),
        ("bulk_modulus", "is a ratio of fluctuations and no mean over structures"),
    ],
)
def test_what_is_no_mean_over_structures_is_no_target(name, reason):
    with pytest.raises(ValidationError, match=reason):
        ObservablesTermConfig(name="observables", targets=[{"observable": {"name": name, "gas_energy_eV": 0.0}}])
