"""Constant pressure: distributions of the cell against closed forms, in standard errors, in single precision.

An ideal gas in a cell held by springs has the density ∏ L^N exp(-(Σ k (L - L₀)²/2 + P₀ V)/kT) of its lengths, with the
volume in place of its lengths where they scale together. Replicas of one batch are at two pressures and temperatures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from analytic_potentials import system_of
from step_paths import step_path  # noqa: F401

from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.evaluation.observable_metrics import bulk_modulus
from mdsim.geometry import volume
from mdsim.integrators import LangevinBAOAB, MartynaTobiasKlein, NoseHooverChain, StochasticCellRescaling
from mdsim.integrators.barostat import GROUPS, Barostat
from mdsim.integrators.noise import noise_of_steps
from mdsim.observables import BulkModulus
from mdsim.state import MDState, System, Trajectory, kinetic_temperature_K
from mdsim.units import BAR, FS, GPA, kT_eV

LIMIT = 3.5  # standard errors; 140 of them are compared
N_ATOMS, EDGE_A, STIFFNESS = 6, 12.0, 0.004  # of each edge, eV/Å²
CONDITIONS = ((200.0, 50.0), (350.0, 400.0))  # K, bar
N_EACH = 200


def held_gas(positions, cells):
    """Springs on the edges of an orthorhombic cell, and atoms without interactions."""
    edges = torch.diagonal(cells, dim1=-2, dim2=-1)
    energy = 0.5 * STIFFNESS * (edges - EDGE_A).square().sum(-1)
    stress = torch.diag_embed(STIFFNESS * (edges - EDGE_A) * edges / edges.prod(-1, keepdim=True))
    return energy, torch.zeros_like(positions), stress


@cache
def exact(scaling: str, temperature_K: float, pressure_bar: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Products of the lengths of each group on a grid, and their probabilities."""
    kT, pressure = kT_eV(temperature_K), pressure_bar * BAR
    sizes = [len(group) for group in GROUPS[scaling]]
    axes = [np.linspace(0.2 * EDGE_A, 2.5 * EDGE_A, 150) ** size for size in sizes]
    products = np.meshgrid(*axes, indexing="ij")
    springs = sum(
        0.5 * size * STIFFNESS * (product ** (1 / size) - EDGE_A) ** 2
        for size, product in zip(sizes, products, strict=True)
    )
    volumes = np.prod(products, axis=0)
    weights = N_ATOMS * np.log(volumes) - (springs + pressure * volumes) / kT
    weights = np.exp(weights - weights.max())
    for widths in np.meshgrid(*(np.gradient(values) for values in axes), indexing="ij"):
        weights = weights * widths
    return products, weights / weights.sum()


def moments(scaling: str, temperature_K: float, pressure_bar: float) -> tuple[float, float]:
    """Mean and variance of the volume."""
    products, weights = exact(scaling, temperature_K, pressure_bar)
    volumes = np.prod(products, axis=0)
    mean = (weights * volumes).sum()
    return mean, (weights * (volumes - mean) ** 2).sum()


def drawn_cells(scaling: str, temperature_K: float, pressure_bar: float, n: int, seed: int) -> torch.Tensor:
    """Cells from the exact distribution."""
    products, weights = exact(scaling, temperature_K, pressure_bar)
    index = np.random.default_rng(seed).choice(weights.size, n, p=weights.ravel())
    edges = [
        product.ravel()[index] ** (1 / len(group)) for product, group in zip(products, GROUPS[scaling], strict=True)
    ]
    columns = [edge for edge, group in zip(edges, GROUPS[scaling], strict=True) for _ in group]
    return torch.diag_embed(torch.tensor(np.stack(columns, axis=1), dtype=torch.float32))


LANGEVIN, CHAIN = LangevinBAOAB(4.0, 1.0, 5.0), NoseHooverChain(4.0, 1.0, 100.0)  # a temperature that no replica has
BAROSTATS = {
    f"{name} {scaling}": barostat
    for scaling in GROUPS
    for name, barostat in {
        "rescaling, langevin": StochasticCellRescaling(LANGEVIN, 1.0, 300.0, 4e-3, scaling),
        "rescaling, chain": StochasticCellRescaling(CHAIN, 1.0, 300.0, 4e-3, scaling),
        "mtk": MartynaTobiasKlein(CHAIN, 1.0, 300.0, scaling),
    }.items()
}


def system() -> System:
    return system_of(
        [18] * N_ATOMS, [4.0 + 6.0 * n for n in range(N_ATOMS)], (EDGE_A * torch.eye(3)).tolist(), torch.float32
    )


def start(barostat: Barostat, cells: torch.Tensor, n_each: int) -> MDState:
    """Replicas at all conditions, in the given cells."""
    kelvin, bar = (torch.tensor(values).repeat_interleave(n_each) for values in zip(*CONDITIONS, strict=True))
    generator, gas = torch.Generator().manual_seed(3), system()
    positions = torch.rand(len(kelvin), N_ATOMS, 3, generator=generator) @ cells
    moving = barostat.conserves_momentum
    velocities = maxwell_boltzmann(gas, len(kelvin), kelvin, generator, moving, False, positions)
    state = barostat.init(gas, held_gas, positions, velocities, cells)
    return replace(state, kT=kT_eV(kelvin), pressure=bar * BAR)


def run(barostat: Barostat, state: MDState, n_steps: int) -> Iterator[MDState]:
    for numbers in noise_of_steps(barostat, system(), state, n_steps, torch.Generator().manual_seed(4)):
        state = barostat.step(system(), held_gas, state, numbers)
        yield state


def assert_distributed(barostat: Barostat, volumes: torch.Tensor, temperatures: torch.Tensor) -> None:
    """Means over the replicas of each condition, whose values over time are in the first axis."""
    n_each = volumes.shape[1] // len(CONDITIONS)
    for number, (temperature_K, pressure_bar) in enumerate(CONDITIONS):
        chosen = slice(number * n_each, (number + 1) * n_each)
        mean, variance = moments(barostat.scaling, temperature_K, pressure_bar)
        of_replicas = {
            "volume": (volumes[:, chosen].mean(0), mean),
            "its square": ((volumes[:, chosen] - mean).square().mean(0), variance),
            "temperature": (temperatures[:, chosen].mean(0), temperature_K),
        }
        for quantity, (values, expected) in of_replicas.items():
            error = float(values.std()) / math.sqrt(n_each)
            assert error < 0.1 * expected, "nothing was tested"
            assert abs(float(values.mean()) - expected) < LIMIT * error, (
                quantity,
                float(values.mean()),
                expected,
                error,
            )


def measured(barostat: Barostat, state: MDState) -> tuple[torch.Tensor, torch.Tensor]:
    gas = system()
    kelvin = kinetic_temperature_K(state.velocities, gas.masses, barostat.degrees_of_freedom(gas))
    return volume(state.cell).double().detach(), kelvin.double().detach()


@pytest.mark.parametrize("scaling", GROUPS)
def test_cell_rescaling_reaches_the_distribution(path, scaling):
    """From cells of one size, with Langevin dynamics."""
    if path == "tensors":
        pytest.skip("both paths keep the distribution, which is tested below")
    barostat = BAROSTATS[f"rescaling, langevin {scaling}"]
    state = start(barostat, (EDGE_A * torch.eye(3)).expand(len(CONDITIONS) * N_EACH, 3, 3), N_EACH)
    later = [state for number, state in enumerate(run(barostat, state, 1200)) if number >= 400 and number % 20 == 0]
    assert later[-1].positions.dtype == torch.float32
    assert_distributed(barostat, *map(torch.stack, zip(*(measured(barostat, state) for state in later), strict=True)))


@pytest.mark.parametrize("name", BAROSTATS)
def test_the_distribution_is_invariant(name):
    """Replicas drawn from it remain distributed like that. Chains would not reach it, as atoms do not interact."""
    barostat, n_each = BAROSTATS[name], 10 * N_EACH
    drawn = [drawn_cells(barostat.scaling, *condition, n_each, seed) for seed, condition in enumerate(CONDITIONS)]
    state = at_equilibrium(barostat, start(barostat, torch.cat(drawn), n_each))
    for last in run(barostat, state, 150):
        state = last
    assert_distributed(barostat, *(values[None] for values in measured(barostat, state)))


def at_equilibrium(barostat: Barostat, state: MDState) -> MDState:
    """The state with chains and strain rates from their distribution."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(state.n_replicas, *shape, generator=generator)

    if state.thermostat is not None:
        single, freedom = CHAIN.relaxation_time_fs * FS, barostat.degrees_of_freedom(system())
        speeds = normal(CHAIN.chain_length) / single
        speeds[:, 0] /= math.sqrt(freedom)
        state = replace(state, thermostat=torch.stack([torch.zeros_like(speeds), speeds], dim=1))
    if isinstance(barostat, MartynaTobiasKlein):
        tau, sizes = barostat.relaxation_time_fs * FS, [len(group) for group in GROUPS[barostat.scaling]]
        rates = torch.cat([(normal(1) / math.sqrt(size)).expand(-1, size) for size in sizes], dim=1)
        rates = rates / math.sqrt((barostat.degrees_of_freedom(system()) + 3) / 3) / tau  # kT of W cancels
        speeds = normal(CHAIN.chain_length) / tau
        speeds[:, 0] /= math.sqrt(len(sizes))
        chain = torch.stack([torch.zeros_like(speeds), speeds], dim=1)
        state = replace(state, barostat=torch.cat([torch.diag_embed(rates).flatten(1), chain.flatten(1)], dim=1))
    return state


@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_the_bulk_modulus_of_the_gas_in_its_cell(number):
    """kT <V> / var(V) by quadrature, from replicas that are drawn from the exact distribution, within its interval."""
    temperature_K, pressure_bar = CONDITIONS[number]
    mean, variance = moments("isotropic", temperature_K, pressure_bar)
    expected = kT_eV(temperature_K) * mean / variance / GPA
    cells = drawn_cells("isotropic", temperature_K, pressure_bar, 400 * 50, seed=7).reshape(400, 50, 3, 3)
    trajectory = Trajectory(torch.zeros(400, 50, N_ATOMS, 3), None, None, 1.0, cells)
    of_replicas = BulkModulus()(system(), trajectory).mean(0).numpy()
    found = bulk_modulus(of_replicas, np.ones(50), temperature_K)
    error = (found["bulk_modulus_GPa_high"] - found["bulk_modulus_GPa_low"]) / 4
    assert error < 0.02 * expected, "nothing was tested"
    assert abs(found["bulk_modulus_GPa"] - expected) < LIMIT * error
