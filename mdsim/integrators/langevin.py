"""Langevin integrator (BAOAB splitting): canonical sampling with very small configurational error.

    dx = v dt        dv = F/m dt - γ v dt + √(2 γ kT/m) dW

is split into a kick (B), a drift (A) and the exact solution of the friction and noise (O), in the order B A O A B:

    B   v ← v + Δt/2 · F(x)/m
    A   x ← x + Δt/2 · v
    O   v ← c v + √((1 - c²) kT/m) ξ,     c = exp(-γ Δt),  ξ ~ N(0, 1)
    A   x ← x + Δt/2 · v
    B   v ← v + Δt/2 · F(x)/m

Averages over positions have an error of second order in Δt, of fourth order at high friction, and none at all in a
harmonic well: ⟨x²⟩ = kT/k at every stable Δt.

Friction and noise act on each atom by itself, so total and angular momentum are not conserved and all 3N momenta are
thermal.

| symbol | variable                                   |
|--------|--------------------------------------------|
| x      | `state.positions`                          |
| v      | `state.velocities`                         |
| F      | `state.forces`                             |
| m      | `system.masses`                            |
| γ      | `friction_per_ps`                          |
| kT     | `state.kT`, or else `kT_eV(temperature_K)` |
| Δt     | `timestep_fs`                              |
| c      | `kept`                                     |
| ξ      | `noise`                                    |

References:
    Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34 (2013); J. Chem. Phys. 138, 174102 (2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from mdsim.integrators._moves import drift, in_compiled_loops, kick, thermal_velocities
from mdsim.integrators.base import SplitIntegrator
from mdsim.state import MDState, System
from mdsim.typing import Float, Tensor
from mdsim.units import FS, PS, kT_eV


@dataclass(frozen=True)
class LangevinBAOAB(SplitIntegrator):
    """Canonical dynamics by Langevin friction and noise, BAOAB splitting. One force evaluation per step.

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
        """B A O A."""
        masses, noise = system.masses.to(state.positions), self.required(system, state, noise)
        positions, velocities = self._kick_and_noisy_drift(state, noise, masses, self.timestep_fs * FS)
        return replace(state, positions=positions, velocities=velocities)

    def after_forces(self, system: System, state: MDState) -> MDState:
        """B."""
        masses = system.masses.to(state.positions)
        return replace(state, velocities=kick(state.velocities, state.forces, masses, self.timestep_fs * FS))

    def _kick_and_noisy_drift(
        self, state: MDState, noise: Float[Tensor, "replica atom 3"], masses: Float[Tensor, "atom"], dt: float
    ) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"]]:
        """Positions and velocities after B A O A."""
        kept, kT = math.exp(-self.friction_per_ps / PS * dt), kT_eV(self.temperature_K)
        if in_compiled_loops(state.positions):
            from mdsim.integrators import compiled_steps

            return compiled_steps.kick_and_noisy_drift(
                state.positions, state.velocities, state.forces, noise, masses, dt, kept, kT, state.kT
            )
        velocities = kick(state.velocities, state.forces, masses, dt)
        positions = drift(state.positions, velocities, 0.5 * dt)
        thermal = thermal_velocities(masses, kT, state.kT)
        velocities = torch.addcmul(kept * velocities, thermal, noise, value=math.sqrt(1 - kept**2))
        return drift(positions, velocities, 0.5 * dt), velocities
