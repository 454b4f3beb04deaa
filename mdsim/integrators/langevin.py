"""Langevin dynamics by the BAOAB splitting: canonical sampling with very small configurational error.

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

| symbol | variable                 |
|--------|--------------------------|
| x      | `state.positions`        |
| v      | `state.velocities`       |
| F      | `state.forces`           |
| m      | `system.masses`          |
| γ      | `friction_per_ps`        |
| kT     | `kT_eV(temperature_K)`   |
| Δt     | `timestep_fs`            |
| c      | `kept`                   |
| ξ      | `noise`                  |

References:
    Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34 (2013); J. Chem. Phys. 138, 174102 (2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mdsim.integrators._moves import in_compiled_loops, kick
from mdsim.integrators._validation import require_positive
from mdsim.interfaces import Potential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import FS, PS, kT_eV


@dataclass(frozen=True)
class LangevinBAOAB:
    """Canonical dynamics by Langevin friction and noise, BAOAB splitting; one force evaluation a step.

    Args:
        timestep_fs: Δt, fs.
        temperature_K: of the bath, K.
        friction_per_ps: γ, 1/ps.
    """

    timestep_fs: float
    temperature_K: float
    friction_per_ps: float

    def __post_init__(self) -> None:
        require_positive(
            "LangevinBAOAB",
            timestep_fs=self.timestep_fs,
            temperature_K=self.temperature_K,
            friction_per_ps=self.friction_per_ps,
        )

    def init(
        self,
        system: System,
        potential: Potential,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
    ) -> MDState:
        """The state from which steps begin. Positions in Å, velocities in ASE units."""
        energy, forces = potential(positions)
        return MDState(positions, velocities, forces, energy)

    def step(self, system: System, potential: Potential, state: MDState, generator: torch.Generator | None) -> MDState:
        """The state one time step later; the generator draws one normal number for each velocity component."""
        if generator is None:
            raise ValueError("LangevinBAOAB: its noise needs a torch.Generator, but none was given")
        dt = self.timestep_fs * FS
        masses = system.masses.to(state.positions)
        noise = torch.randn(
            state.velocities.shape, generator=generator, dtype=state.velocities.dtype, device=state.velocities.device
        )
        positions, velocities = self._kick_and_noisy_drift(state, noise, masses, dt)
        energy, forces = potential(positions)
        return MDState(positions, kick(velocities, forces, masses, dt), forces, energy)

    def _kick_and_noisy_drift(
        self, state: MDState, noise: Float[Tensor, "replica atom 3"], masses: Float[Tensor, "atom"], dt: float
    ) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"]]:
        """Positions and velocities after B A O A."""
        kept, kT = math.exp(-self.friction_per_ps / PS * dt), kT_eV(self.temperature_K)
        if in_compiled_loops(state.positions):
            from mdsim.integrators import compiled_steps

            return compiled_steps.kick_and_noisy_drift(
                state.positions, state.velocities, state.forces, noise, masses, dt, kept, kT
            )
        velocities = kick(state.velocities, state.forces, masses, dt)
        positions = state.positions + 0.5 * dt * velocities
        velocities = kept * velocities + math.sqrt(1 - kept**2) * torch.sqrt(kT / masses[:, None]) * noise
        return positions + 0.5 * dt * velocities, velocities

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """Total energy in eV, which the bath changes."""
        return state.energy + kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))

    def degrees_of_freedom(self, system: System) -> int:
        """All 3N."""
        return 3 * system.n_atoms
