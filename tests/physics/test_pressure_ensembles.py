"""Constant pressure in interacting systems: ensembles of a Lennard-Jones fluid and crystal, in standard errors.

Ratios of the distributions at two pressures or temperatures are those of the isothermal-isobaric ensemble, as checked
by physical_validation (Merz, Shirts, PLOS ONE 13, e0202764 (2018)). All conditions are replicas of one batch.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from argon_runs import Samples, Setting, run, simulation_data, start, steps

from mdsim.integrators import LangevinBAOAB, MartynaTobiasKlein, NoseHooverChain, StochasticCellRescaling
from mdsim.integrators.barostat import Barostat
from mdsim.units import BAR, kT_eV

LIMIT = 3.5  # standard errors, of some hundred comparisons
SLOPE_LIMIT = 3.0  # of 18 slopes
TIMESTEP_FS = 8.0


FLUID = Setting("sc", 4, 3.8, ((120.0, 600.0), (120.0, 900.0), (135.0, 600.0), (135.0, 900.0)), 16, 900, 8, 300)
CRYSTAL = Setting("fcc", 3, 5.38, ((30.0, 300.0), (30.0, 600.0)), 8, 400, 12, 125)

LANGEVIN, CHAIN = LangevinBAOAB(TIMESTEP_FS, 1.0, 10.0), NoseHooverChain(TIMESTEP_FS, 1.0, 200.0)
PAIRS = ("rescaling, langevin", "rescaling, chain", "mtk")


def barostat_named(name: str, scaling: str) -> Barostat:
    """With a temperature and a pressure that no replica has."""
    if name == "mtk":
        return MartynaTobiasKlein(CHAIN, 1.0, 500.0, scaling)
    compressibility = 6e-4 if scaling == "isotropic" else 2e-4  # above those of the fluid and of the crystal
    return StochasticCellRescaling(LANGEVIN if "langevin" in name else CHAIN, 1.0, 300.0, compressibility, scaling)


@cache
def fluid(name: str) -> Samples:
    return run(barostat_named(name, "isotropic"), FLUID)


@cache
def crystal(name: str, scaling: str) -> Samples:
    return run(barostat_named(name, scaling), CRYSTAL)


def standard_error(of_replicas: np.ndarray) -> np.ndarray:
    """Of the mean over independent replicas, which are the first axis."""
    return of_replicas.std(0, ddof=1) / math.sqrt(len(of_replicas))


def slopes(samples: Samples, setting: Setting) -> dict[tuple, float]:
    """Deviations from the ensemble between conditions that differ in one of temperature and pressure."""
    from physical_validation import ensemble

    found = {}
    for first, second in combinations(range(len(setting.conditions)), 2):
        conditions = setting.conditions[first], setting.conditions[second]
        if sum(a == b for a, b in zip(*conditions, strict=True)) == 1:
            data = (simulation_data(samples, setting, number) for number in (first, second))
            (found[conditions],) = ensemble.check(*data, verbosity=0, data_is_uncorrelated=True)
    return found


def assert_ensemble(samples: Samples, setting: Setting) -> None:
    """Distributions of volume, enthalpy and kinetic energy, and the mean pressure."""
    from physical_validation import kinetic_energy

    found = slopes(samples, setting)
    assert len(found) >= 1
    assert max(map(abs, found.values())) < SLOPE_LIMIT, found
    for number in range(len(setting.conditions)):
        data = simulation_data(samples, setting, number)
        options = {"verbosity": 0, "bootstrap_seed": 1, "data_is_uncorrelated": True}
        deviations = kinetic_energy.distribution(data, **options)
        assert max(map(abs, deviations)) < LIMIT, (setting.conditions[number], deviations)


def assert_mean_pressure(samples: Samples, barostat: Barostat, setting: Setting, resolution: float) -> None:
    """The virial theorem <V (P - P₀)> = -(1 + c) kT for each group of axes, with c as in the equations of motion.

    Standard errors must be below the resolution times N kT, the kinetic part. A hundredth of it is allowed beyond the
    errors, since means of a deterministic cell over a finite time depend on its start.
    """
    groups = {"isotropic": [[0, 1, 2]], "semi_isotropic": [[0, 1], [2]]}.get(barostat.scaling, [[0], [1], [2]])
    for number, (kelvin, bar) in enumerate(setting.conditions):
        of_replicas = samples.mean_excess[number]
        expected = -(2 if barostat.conserves_momentum else 1) * kT_eV(kelvin)
        diagonal = np.diagonal(of_replicas, axis1=1, axis2=2)
        parts = [(diagonal[:, axes].mean(1), expected) for axes in groups]
        if barostat.scaling == "full":
            parts += [(of_replicas[:, i, j], 0.0) for i, j in ((0, 1), (0, 2), (1, 2))]
        for values, exact in parts:
            error = standard_error(values)
            assert error < resolution * samples.n_atoms * kT_eV(kelvin), "nothing was tested"
            allowed = LIMIT * error + 0.01 * samples.n_atoms * kT_eV(kelvin)
            assert abs(values.mean() - exact) < allowed, (kelvin, bar, values.mean(), exact, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_ensemble_of_a_fluid(name):
    samples = fluid(name)
    assert_ensemble(samples, FLUID)
    assert_mean_pressure(samples, barostat_named(name, "isotropic"), FLUID, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_compressibility_of_a_fluid(name):
    """From the fluctuations of the volume, kT <V> κ = <V²> - <V>², and from the slope of ln <V>(P)."""
    samples = fluid(name)
    for low, high in ((0, 1), (2, 3)):
        fluctuations = []
        for number in (low, high):
            of_replicas, volumes = samples.volumes[number].T, samples.mean_volume[number]
            squares = (of_replicas - volumes.mean()) ** 2
            scale = kT_eV(FLUID.conditions[number][0]) * volumes.mean()
            fluctuations.append((squares.mean() / scale, standard_error(squares.mean(1)) / scale))
        by_fluctuations = 0.5 * sum(value for value, _ in fluctuations)
        means = [samples.mean_volume[number].mean() for number in (low, high)]
        errors = [standard_error(samples.mean_volume[number]) for number in (low, high)]
        width = (FLUID.conditions[high][1] - FLUID.conditions[low][1]) * BAR
        by_slope = -math.log(means[1] / means[0]) / width
        of_slope = math.hypot(*(error / mean for error, mean in zip(errors, means, strict=True))) / width
        error = math.hypot(of_slope, *(0.5 * error for _, error in fluctuations))
        assert error < 0.15 * by_slope, "nothing was tested"
        assert abs(by_fluctuations - by_slope) < LIMIT * error, (by_fluctuations, by_slope, error)


@pytest.mark.slow
def test_all_give_the_density_of_the_fluid():
    for first, second in combinations(PAIRS, 2):
        volumes = [fluid(name).mean_volume for name in (first, second)]
        means, errors = zip(*((v.mean(1), standard_error(v.T)) for v in volumes), strict=True)
        error = np.hypot(*errors)
        assert (error < 0.01 * means[0]).all(), "nothing was tested"
        assert (np.abs(means[0] - means[1]) < LIMIT * error).all(), (first, second, means, error)


CRYSTALS = [(name, scaling) for scaling in ("semi_isotropic", "anisotropic") for name in PAIRS] + [("mtk", "full")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scaling"), CRYSTALS)
def test_ensemble_of_a_crystal(name, scaling):
    """It stays cubic on average, although its cell is free to change its shape.

    Chains leave the breathing of a cold crystal its amplitude for longer than this run, so that the samples of one
    replica of `MartynaTobiasKlein` are not independent, as the check of the distributions assumes.
    """
    samples = crystal(name, scaling)
    if name == "rescaling, chain":  # those of Langevin dynamics overlap in too few bins for the check
        assert_ensemble(samples, CRYSTAL)
    assert_mean_pressure(samples, barostat_named(name, scaling), CRYSTAL, 0.25)
    assert_cubic(samples)


def assert_cubic(samples: Samples) -> None:
    for cells in samples.mean_cell:
        edges = np.diagonal(cells, axis1=1, axis2=2)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            for values in (edges[:, i] - edges[:, j], cells[:, i, j] + cells[:, j, i]):
                error = standard_error(values)
                assert error < 1e-2 * edges.mean(), "nothing was tested"
                assert abs(values.mean()) <= LIMIT * error, (values.mean(), error)


def test_mean_pressure_of_a_crystal():
    """The virial theorem alone, in a short run of a full cell, to a tenth of the kinetic part N kT."""
    setting = replace(CRYSTAL, n_each=4, equilibration=60, n_samples=1, every=200)
    samples = run(barostat_named("mtk", "full"), setting)
    for number, (kelvin, bar) in enumerate(setting.conditions):
        kinetic = samples.n_atoms * kT_eV(kelvin)
        assert bar * BAR * samples.mean_volume[number].mean() > kinetic, "nothing was tested"
        assert np.abs(samples.mean_excess[number].mean(0)).max() < 0.1 * kinetic


@pytest.mark.parametrize("scaling", ["isotropic", "anisotropic", "full"])
def test_conserved_energy_is_of_second_order(scaling):
    """The extended energy varies by a quarter with half the time step, in double precision."""
    setting = replace(CRYSTAL, repeats=2, n_each=1)
    variations = []
    for timestep_fs in (4.0, 2.0):
        chain = replace(CHAIN, timestep_fs=timestep_fs)
        barostat = MartynaTobiasKlein(chain, 1.0, 200.0, scaling)
        system, state = start(barostat, setting, torch.float64)
        before, trajectory = barostat.conserved(system, state), steps(barostat, system, state, round(400 / timestep_fs))
        energies = torch.stack([barostat.conserved(system, state) for state in trajectory])
        variations.append((energies - before).square().mean(0).sqrt())
    ratio = variations[0] / variations[1]
    assert (variations[0] > 1e-7).all(), "nothing was tested"
    assert ((ratio > 3.6) & (ratio < 4.4)).all(), (ratio, variations)
