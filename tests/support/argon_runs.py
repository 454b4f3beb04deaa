"""Runs of argon at constant pressure, with replicas at several conditions, and their samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from smooth_lennard_jones import SmoothLennardJones, argon

from mdsim.dynamics.velocities import maxwell_boltzmann, remove_center_of_mass_velocity
from mdsim.geometry import volume
from mdsim.integrators import LangevinBAOAB, StochasticCellRescaling
from mdsim.integrators.barostat import Barostat, pressure_tensor
from mdsim.integrators.noise import noise_of_steps
from mdsim.moving_cells import bind_in_cells
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import BAR, KB_EV_PER_K, KJ_PER_MOL, kT_eV


@dataclass(frozen=True)
class Setting:
    """A system and its conditions: temperature (K) and pressure (bar)."""

    structure: str
    repeats: int
    lattice_A: float
    conditions: tuple[tuple[float, float], ...]
    n_each: int
    equilibration: int
    n_samples: int
    every: int


@dataclass(frozen=True)
class Samples:
    """Samples of each condition: (condition, sample, replica). Means over all steps: (condition, replica)."""

    volumes: Float[np.ndarray, "condition sample replica"]
    energies: Float[np.ndarray, "condition sample replica"]
    kinetic: Float[np.ndarray, "condition sample replica"]
    mean_volume: Float[np.ndarray, "condition replica"]
    mean_cell: Float[np.ndarray, "condition replica 3 3"]
    mean_excess: Float[np.ndarray, "condition replica 3 3"]  # V (P - P₀), eV
    n_atoms: int
    freedom: int


def start(barostat: Barostat, setting: Setting, dtype: torch.dtype = torch.float32) -> tuple[System, MDState]:
    """All replicas on the lattice."""
    system, positions = argon(setting.structure, setting.repeats, setting.lattice_A, dtype)
    kelvin, bar = (
        torch.tensor(each).repeat_interleave(setting.n_each) for each in zip(*setting.conditions, strict=True)
    )
    positions = positions.repeat(len(kelvin), 1, 1)
    generator = torch.Generator().manual_seed(3)
    moving = barostat.conserves_momentum
    velocities = maxwell_boltzmann(system, len(kelvin), kelvin, generator, moving, False, positions)
    state = barostat.init(system, potential_of(system), positions, velocities)
    return system, replace(state, kT=kT_eV(kelvin).to(positions), pressure=(bar * BAR).to(positions))


def potential_of(system: System):
    return bind_in_cells(SmoothLennardJones(), system, skin=1.0)


def steps(barostat: Barostat, system: System, state: MDState, n_steps: int) -> Iterator[MDState]:
    potential = potential_of(system)
    for numbers in noise_of_steps(barostat, system, state, n_steps, torch.Generator().manual_seed(4)):
        with torch.no_grad():
            state = barostat.step(system, potential, state, numbers)
        yield state


def excess(barostat: Barostat, system: System, state: MDState) -> Tensor:
    """V (P - P₀), eV."""
    of_bath = torch.diag_embed(barostat.pressure_of(state)[:, None].expand(-1, 3))
    return volume(state.cell)[:, None, None] * (pressure_tensor(system, state) - of_bath)


def equilibrated(barostat: Barostat, system: System, state: MDState, n_steps: int) -> MDState:
    """A state for this barostat, after Langevin dynamics with cell rescaling. Chains would keep a crystal ringing."""
    scaling = {"full": "anisotropic"}.get(barostat.scaling, barostat.scaling)
    damped = StochasticCellRescaling(LangevinBAOAB(barostat.timestep_fs, 1.0, 10.0), 1.0, 300.0, 2e-4, scaling)
    for last in steps(damped, system, state, n_steps):
        state = last
    velocities = state.velocities
    if barostat.conserves_momentum:
        velocities = remove_center_of_mass_velocity(velocities, system.masses)
    fresh = barostat.init(system, potential_of(system), state.positions, velocities, state.cell)
    return replace(fresh, kT=state.kT, pressure=state.pressure)


def run(barostat: Barostat, setting: Setting) -> Samples:
    """Equilibrate twice, with damping and with the barostat itself, and sample."""
    system, first = start(barostat, setting)
    first = equilibrated(barostat, system, first, setting.equilibration)
    sampled, sums, n_summed = [], [0.0, 0.0, 0.0], setting.n_samples * setting.every
    trajectory = steps(barostat, system, first, setting.equilibration + n_summed)
    for since, state in enumerate(trajectory, start=1 - setting.equilibration):
        if since <= 0:
            continue
        now = volume(state.cell), state.cell, excess(barostat, system, state)
        sums = [total + part.double() for total, part in zip(sums, now, strict=True)]
        if since % setting.every == 0:
            sampled.append((now[0], state.energy, kinetic_energy_eV(state.velocities, system.masses)))
    assert state.positions.dtype == torch.float32
    shape = (len(setting.conditions), setting.n_each)
    observables = (torch.stack(values).double().numpy() for values in zip(*sampled, strict=True))
    of_samples = (np.moveaxis(values.reshape(setting.n_samples, *shape), 1, 0) for values in observables)
    means = ((total / n_summed).unflatten(0, shape).numpy() for total in sums)
    return Samples(*of_samples, *means, system.n_atoms, barostat.degrees_of_freedom(system))


def simulation_data(samples: Samples, setting: Setting, number: int):
    """One condition as physical_validation takes it, in eV, Å and bar."""
    from physical_validation.data import EnsembleData, ObservableData, SimulationData, SystemData, UnitData

    kelvin, bar = setting.conditions[number]
    units = UnitData(
        kb=KB_EV_PER_K,
        energy_conversion=1 / KJ_PER_MOL,
        length_conversion=0.1,
        volume_conversion=1e-3,
        temperature_conversion=1,
        pressure_conversion=1,
        time_conversion=1,
    )
    removed = 3 * samples.n_atoms - samples.freedom
    mass = np.full(samples.n_atoms, 39.95)
    system = SystemData(samples.n_atoms, nconstraints=0, ndof_reduction_tra=removed, ndof_reduction_rot=0, mass=mass)
    observables = ObservableData(
        kinetic_energy=samples.kinetic[number].ravel(),
        potential_energy=samples.energies[number].ravel(),
        volume=samples.volumes[number].ravel(),
    )
    ensemble = EnsembleData("NPT", natoms=samples.n_atoms, pressure=bar, temperature=kelvin)
    return SimulationData(units=units, ensemble=ensemble, system=system, observables=observables)
