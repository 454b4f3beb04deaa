"""Forces, units, rounding noise, energy drift and paths for potentials with closed forms."""

import math

import pytest
import stress_calculators
import torch
from analytic_potentials import bond, lennard_jones, system_of
from ase import units
from ase.build import bulk, molecule

from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.stress_test import conservativeness, drift, paths, stiffness
from mdsim.stress_test.noise import energy_noise_eV
from mdsim.stress_test.structure import read_structure
from mdsim.stress_test.subjects.calculators import CalculatorSubject

ARGON = torch.tensor([[0, 0, 0], [3.8, 0, 0], [1.9, 3.3, 0], [1.9, 1.1, 3.1]], dtype=torch.float64)


def structure_of(atoms, folder):
    atoms.write(folder / "structure.extxyz")
    return read_structure(folder / "structure.extxyz")


@pytest.fixture
def ethanol(tmp_path):
    return structure_of(stress_calculators.ethanol(), tmp_path)


def potential_of(ethanol, **options):
    return CalculatorSubject(stress_calculators.PairMolecule(**options), "ethanol").potential(ethanol.system)


def test_noise_of_float32_energies_with_a_large_constant(generator):
    exact = lennard_jones(0.01, 3.4)
    assert energy_noise_eV(exact, ARGON, generator) < 1e-14

    def rounded(positions):  # a dither that is larger than the last digit: 2 meV at 17,000 eV
        energy, forces = exact(positions)
        dither = 4e-3 * torch.rand(len(positions), generator=generator, dtype=torch.float64)
        return (energy - 17000.0 + dither).float(), forces

    assert 1e-4 < energy_noise_eV(rounded, ARGON, generator) < 3e-3


def test_noise_is_a_standard_deviation(generator):
    def noisy(positions):
        return 1e-3 * torch.randn(len(positions), generator=generator, dtype=torch.float64), positions

    estimates = [energy_noise_eV(noisy, ARGON, generator) for _ in range(50)]
    assert sum(estimates) / 50 == pytest.approx(1e-3, rel=0.15)


def test_forces_of_an_exact_gradient(ethanol, generator):
    errors = conservativeness.force_errors(potential_of(ethanol), displaced(ethanol, generator), 1e-13, generator)
    assert errors.slope_error < 1e-7 and errors.energy_per_force == pytest.approx(1.0, abs=1e-6)
    assert conservativeness.judge(errors).level == "pass"


@pytest.mark.parametrize("swirl", [0.01, 0.1, 1.0])
def test_asymmetry_is_proportional_to_the_swirl(ethanol, generator, swirl):
    potential = potential_of(ethanol, swirl_eV_per_A2=swirl)
    errors = conservativeness.force_errors(potential, displaced(ethanol, generator), 1e-13, generator)
    assert errors.asymmetry == pytest.approx(0.01 * swirl, rel=0.5)


def test_noise_hides_small_errors_and_the_finding_says_so(ethanol, generator):
    errors = conservativeness.force_errors(potential_of(ethanol), displaced(ethanol, generator), 1e-3, generator)
    finding = conservativeness.judge(errors)
    assert finding.level == "pass" and "rounding" in finding.summary


def displaced(structure, generator):
    noise = torch.randn(2, *structure.reference.shape, generator=generator, dtype=torch.float64)
    return structure.reference + 0.05 * noise


@pytest.mark.parametrize(
    ("factor", "level", "units_found"),
    [
        (1.0, "pass", "eV/angstrom"),
        (units.mol / units.kcal, "fail", "kcal/mol/angstrom"),
        (units.mol / units.kJ, "fail", "kJ/mol/angstrom"),
        (1 / units.Hartree, "fail", "Hartree/angstrom"),
        (units.Bohr / units.Hartree, "fail", "Hartree/bohr"),
        (1000.0, "fail", "meV/angstrom"),
    ],
)
def test_units_from_bonds_to_hydrogen(ethanol, factor, level, units_found):
    found = stiffness.stiffness(potential_of(ethanol, unit=factor), ethanol)
    finding = stiffness.judge(found)
    assert finding.level == level and units_found in found.fitting_units


def test_stiffness_of_a_spring(tmp_path):
    found = stiffness.stiffness(bond(35.0, 0.7), structure_of(molecule("H2"), tmp_path))
    assert found.kind == "covalent bonds"
    assert found.median_eV_per_A2 == pytest.approx(35.0, rel=1e-3)


def test_energy_errors_are_of_second_order(generator):
    system = system_of([18] * 4, [39.9] * 4)
    positions = (ARGON + 0.05 * torch.randn(3, 4, 3, generator=generator, dtype=torch.float64)).clone()
    velocities = maxwell_boltzmann(system, 3, 20.0, generator, positions=positions)
    found = drift.energy_drift(system, lennard_jones(0.01, 3.4), positions, velocities, (20.0, 10.0, 5.0), 2.0, 1e-14)
    assert found.order == pytest.approx(2.0, abs=0.15)
    assert drift.judge(found).level == "pass"


def test_a_push_along_the_velocity_drifts_at_every_time_step(generator):
    """A force that is constant in time and no gradient: the energy reported leaves it out."""
    system = system_of([18] * 4, [39.9] * 4)
    exact, push_eV_per_A = lennard_jones(0.01, 3.4), 0.001

    def potential(positions):
        energy, forces = exact(positions)
        return energy, forces + push_eV_per_A * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)

    positions = ARGON.expand(2, -1, -1).clone()
    velocities = torch.zeros_like(positions)
    found = drift.energy_drift(system, potential, positions, velocities, (20.0, 10.0, 5.0), 1.0, 1e-14)
    assert abs(found.order) < 0.3
    time = 1000 * units.fs * found.errors[-1].length_ps
    gained_meV = 1000 * 0.5 * (push_eV_per_A * time) ** 2 / 39.9  # (F t)² / 2 m of each atom
    assert found.errors[-1].drift_meV_per_atom_per_ps == pytest.approx(gained_meV, rel=0.3)


def test_paths_have_their_tangents(ethanol, generator):
    chosen = [
        *paths.stretches(ethanol, 3, 21),
        *paths.bends(ethanol, 3, 21),
        *paths.approaches(ethanol, 3, 21),
        *paths.lines(ethanol, generator, 1, 21),
        paths.breathing(ethanol, 21),
    ]
    assert {one.kind for one in chosen} == {"stretch", "bend", "approach", "line", "breathing"}
    for one in chosen:
        slope = (one.positions[2:] - one.positions[:-2]) / (one.coordinate[2:] - one.coordinate[:-2])[:, None, None]
        torch.testing.assert_close(slope, one.tangent[1:-1], atol=2e-3, rtol=2e-2)
        torch.testing.assert_close(one.positions[one.start], ethanol.reference, atol=0.2, rtol=0.1)


def test_stretches_move_whole_parts_and_bends_change_the_angle(ethanol):
    carbon_carbon = next(one for one in paths.stretches(ethanol, 9, 21) if one.name == "bond C0-C1")
    moved = (carbon_carbon.positions[-1] - ethanol.reference).norm(dim=-1) > 1e-9
    assert int(moved.sum()) == 4  # the methyl group
    for bend in paths.bends(ethanol, 3, 21):
        i, j, k = (int("".join(c for c in name if c.isdigit())) for name in bend.name.split()[1].split("-"))
        first, second = bend.positions[:, i] - bend.positions[:, j], bend.positions[:, k] - bend.positions[:, j]
        cosine = (first * second).sum(-1) / first.norm(dim=-1) / second.norm(dim=-1)
        torch.testing.assert_close(torch.rad2deg(torch.arccos(cosine)), bend.coordinate, atol=1e-6, rtol=0)


def test_metals_have_no_covalent_bonds(tmp_path):
    copper = structure_of(bulk("Cu", cubic=True) * (2, 2, 2), tmp_path)
    assert len(copper.system.bonds) and not len(copper.topology.bonds)
    assert bool(copper.is_metallic_like.all()) and math.isfinite(float(copper.reference.sum()))
