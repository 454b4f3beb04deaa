"""Velocity Verlet: Newton's equations at constant energy.

The Liouville operator is split symmetrically, exp(iL_v Δt/2) exp(iL_x Δt) exp(iL_v Δt/2), which gives

    v(t + Δt/2) = v(t) + Δt/2 · F(t)/m
    x(t + Δt)   = x(t) + Δt · v(t + Δt/2)
    v(t + Δt)   = v(t + Δt/2) + Δt/2 · F(t + Δt)/m

Second order, time-reversible and symplectic. Total momentum is conserved and, with open boundaries, angular momentum.

| symbol | variable           |
|--------|--------------------|
| x      | `state.positions`  |
| v      | `state.velocities` |
| F      | `state.forces`     |
| m      | `system.masses`    |
| Δt     | `timestep_fs`      |

References:
    Swope, Andersen, Berens, Wilson, J. Chem. Phys. 76, 637 (1982).
    Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992), for the splitting.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.integrators._moves import kick, kick_and_drift
from mdsim.integrators._validation import require_positive
from mdsim.interfaces import Potential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import FS


@dataclass(frozen=True)
class VelocityVerlet:
    """Constant-energy dynamics by velocity Verlet; one force evaluation a step.

    Args:
        timestep_fs: Δt, fs.
    """

    timestep_fs: float

    def __post_init__(self) -> None:
        require_positive("VelocityVerlet", timestep_fs=self.timestep_fs)

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

    def step(
        self, system: System, potential: Potential, state: MDState, generator: torch.Generator | None = None
    ) -> MDState:
        """The state one time step later. The generator is not used."""
        dt = self.timestep_fs * FS
        masses = system.masses.to(state.positions)
        positions, velocities = kick_and_drift(state.positions, state.velocities, state.forces, masses, dt)
        energy, forces = potential(positions)
        return MDState(positions, kick(velocities, forces, masses, dt), forces, energy)

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """Total energy in eV."""
        return state.energy + kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))

    def degrees_of_freedom(self, system: System) -> int:
        """Those left when the conserved momenta are held at zero."""
        return system.internal_degrees_of_freedom
