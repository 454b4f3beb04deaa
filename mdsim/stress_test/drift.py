"""Energy conservation at several time steps: drift, fluctuation, and the order in the time step.

Velocity Verlet conserves a shadow energy. The total energy fluctuates around it by an amount of second order in the
time step, if the potential is smooth and the forces are its gradient. An error that does not shrink with the time step
has another origin: jumps of the energy or the forces, or forces that are not conservative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mdsim.dynamics.simulate import simulate
from mdsim.integrators.nve import VelocityVerlet
from mdsim.interfaces import Potential
from mdsim.state import System, kinetic_energy_eV
from mdsim.stress_test.findings import Finding, Level
from mdsim.typing import Float, Tensor

LOWEST_ORDER = 1.5
NOTICEABLE_MEV, SEVERE_MEV = 0.5, 5.0  # per atom and ps; 5 meV is the thermal energy of 40 K per degree of freedom
SIGMAS = 3.0
FEWEST_SAMPLES = 10
FRACTIONS = (1.0, 0.5, 0.25)  # of the largest time step


@dataclass(frozen=True)
class EnergyErrors:
    """Errors of the total energy at one time step, over all replicas that stayed finite."""

    timestep_fs: float
    length_ps: float
    n_replicas: int
    drift_meV_per_atom_per_ps: float  # mean over replicas
    drift_standard_error: float
    fluctuation_meV_per_atom: float  # rms around the drift
    error_meV_per_atom: float  # rms around the mean, with the drift


@dataclass(frozen=True)
class Drift:
    """Energy conservation at all time steps."""

    errors: tuple[EnergyErrors, ...]
    order: float  # of the error, between the two smallest time steps
    noise_meV_per_atom: float


def energy_drift(
    system: System,
    potential: Potential,
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    timesteps_fs: Sequence[float],
    length_ps: float,
    noise_eV: float,
) -> Drift:
    """Run the same replicas at constant energy with each time step, for the same time.

    Args:
        system: the system of the replicas, in float64.
        potential: in double precision if possible.
        positions, velocities: Å, and ASE units, of equilibrated replicas.
        timesteps_fs: each a whole fraction of the largest one.
        length_ps: rounded to whole steps of the largest.
        noise_eV: rounding noise of the energies.
    """
    largest = max(timesteps_fs)
    n_samples = max(FEWEST_SAMPLES, round(1000 * length_ps / largest))
    found = []
    for timestep_fs in sorted(timesteps_fs, reverse=True):
        integrator = VelocityVerlet(timestep_fs)
        every = round(largest / timestep_fs)
        state = integrator.init(system, potential, positions, velocities)
        _, trajectory = simulate(system, potential, integrator, state, n_samples * every, every)
        assert trajectory.velocities is not None and trajectory.energy is not None
        total = trajectory.energy + kinetic_energy_eV(trajectory.velocities, system.masses)
        found.append(_errors(total.double().numpy(), timestep_fs, largest / 1000, system.n_atoms))
    coarse, fine = found[-2:]
    order = float(np.log2(coarse.error_meV_per_atom / fine.error_meV_per_atom)) if fine.error_meV_per_atom > 0 else 0.0
    return Drift(tuple(found), order / np.log2(coarse.timestep_fs / fine.timestep_fs), 1000 * noise_eV / system.n_atoms)


def judge(drift: Drift) -> Finding:
    """The finding on energy conservation."""
    finest = drift.errors[-1]
    values = asdict(drift) | {"errors": [asdict(one) for one in drift.errors]}
    slope, error = finest.drift_meV_per_atom_per_ps, finest.drift_standard_error
    numbers = (
        f"{slope:.2g} ± {error:.1g} meV/atom/ps at {finest.timestep_fs:g} fs, error of order {drift.order:.1f} in the "
        "time step"
    )
    if finest.n_replicas == 0 or not np.isfinite(slope):
        return Finding("energy_drift", "fail", "no replica stays finite at constant energy", values)
    is_noise = finest.error_meV_per_atom < 5 * drift.noise_meV_per_atom
    drifts = abs(slope) > max(SIGMAS * error, NOTICEABLE_MEV)
    if is_noise or (drift.order >= LOWEST_ORDER and not drifts):
        limit = ", down to the rounding of the energies" if is_noise else ""
        return Finding("energy_drift", "pass", f"energy is conserved{limit}: {numbers}", values)
    if drift.order >= LOWEST_ORDER:
        text = f"energy drifts, less with smaller time steps: {numbers}"
        return Finding("energy_drift", "warn", text, values)
    size = max(abs(slope), finest.error_meV_per_atom / finest.length_ps)
    level: Level = "fail" if size > SEVERE_MEV else "warn" if size > 0.01 * SEVERE_MEV else "pass"
    text = f"smaller time steps do not conserve energy better: {numbers}, expected 2"
    return Finding("energy_drift", level, text, values)


def _errors(
    total_eV: Float[np.ndarray, "sample replica"], timestep_fs: float, interval_ps: float, n_atoms: int
) -> EnergyErrors:
    """Statistics of the total energies of all finite replicas."""
    energy = 1000 * total_eV[:, np.isfinite(total_eV).all(0)] / n_atoms
    length, n_replicas = interval_ps * len(energy), energy.shape[1]
    if n_replicas == 0:
        return EnergyErrors(timestep_fs, length, 0, *(float("nan"),) * 4)
    time = interval_ps * np.arange(len(energy))
    slopes, _ = np.polyfit(time, energy - energy[0], 1)
    centered = energy - energy.mean(0)
    around = centered - slopes * (time - time.mean())[:, None]
    spread = slopes.std(ddof=1) / np.sqrt(n_replicas) if n_replicas > 1 else float("nan")
    return EnergyErrors(
        timestep_fs,
        length,
        n_replicas,
        float(slopes.mean()),
        float(spread),
        float(np.sqrt(np.square(around).mean())),
        float(np.sqrt(np.square(centered).mean())),
    )
