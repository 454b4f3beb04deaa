"""Semi-implicit Euler integrator for Langevin dynamics, kept only to reproduce published numbers.

The code published with StABlE training calls this its Langevin integrator:

    v(t + Δt) = v(t) + Δt · (F(t)/m - γ v(t)) + √(2 kT γ Δt/m) ξ,     ξ ~ N(0, 1)
    x(t + Δt) = x(t) + Δt · v(t + Δt)

The scheme is of first order: errors of the temperature and of averages over positions are proportional to Δt. For new
work use `mdsim.integrators.langevin.LangevinBAOAB`, which costs the same and has errors of order Δt² or less.

| symbol | variable                                   |
|--------|--------------------------------------------|
| x      | `state.positions`                          |
| v      | `state.velocities`                         |
| F      | `state.forces`                             |
| m      | `system.masses`                            |
| γ      | `friction_per_ps`                          |
| kT     | `state.kT`, or else `kT_eV(temperature_K)` |
| Δt     | `timestep_fs`                              |
| ξ      | `noise`                                    |

References:
    Raja, Amin, Pedregosa, Krishnapriyan, arXiv 2402.13984, and its code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from mdsim.integrators._moves import drift, inverse, thermal_velocities
from mdsim.integrators.base import SplitIntegrator
from mdsim.state import MDState, System
from mdsim.typing import Float, Tensor
from mdsim.units import FS, PS, kT_eV


@dataclass(frozen=True)
class PaperEuler(SplitIntegrator):
    """Langevin dynamics by the semi-implicit Euler scheme of the published code. One force evaluation per step.

    Args:
        timestep_fs: Δt, fs.
        temperature_K: temperature of the bath, K, of replicas without one of their own (`MDState.kT`).
        friction_per_ps: γ, 1/ps.
    """

    temperature_K: float
    friction_per_ps: float

    positive: ClassVar[tuple[str, ...]] = ("timestep_fs", "temperature_K", "friction_per_ps")
    conserves_momentum: ClassVar[bool] = False
    has_replica_temperatures: ClassVar[bool] = True

    def noise_shape(self, system: System) -> tuple[int, ...]:
        """One normal number per velocity component."""
        return system.n_atoms, 3

    def before_forces(
        self, system: System, state: MDState, noise: Float[Tensor, "replica atom 3"] | None = None
    ) -> MDState:
        """The whole step."""
        dt, friction = self.timestep_fs * FS, self.friction_per_ps / PS
        masses, noise = system.masses.to(state.positions), self.required(system, state, noise)
        drifted = torch.addcmul((1 - friction * dt) * state.velocities, state.forces, inverse(masses), value=dt)
        thermal = thermal_velocities(masses, kT_eV(self.temperature_K), state.kT)
        velocities = torch.addcmul(drifted, thermal, noise, value=math.sqrt(2 * friction * dt))
        return replace(state, positions=drift(state.positions, velocities, dt), velocities=velocities)

    def after_forces(self, system: System, state: MDState) -> MDState:
        """Nothing is left to do."""
        return state
