"""Velocity Verlet integrator: Newton's equations at constant energy.

The Liouville operator is split symmetrically, exp(iL_v Δt/2) exp(iL_x Δt) exp(iL_v Δt/2), which gives

    v(t + Δt/2) = v(t) + Δt/2 · F(t)/m
    x(t + Δt)   = x(t) + Δt · v(t + Δt/2)
    v(t + Δt)   = v(t + Δt/2) + Δt/2 · F(t + Δt)/m

The scheme is of second order, time-reversible and symplectic. It conserves total momentum and, with open boundaries,
angular momentum.

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

from dataclasses import dataclass, replace

from mdsim.integrators._moves import kick, kick_and_drift
from mdsim.integrators.base import SplitIntegrator
from mdsim.state import MDState, System
from mdsim.typing import Tensor
from mdsim.units import FS


@dataclass(frozen=True)
class VelocityVerlet(SplitIntegrator):
    """Constant-energy dynamics by velocity Verlet. One force evaluation per step.

    Args:
        timestep_fs: Δt, fs.
    """

    def before_forces(self, system: System, state: MDState, noise: Tensor | None = None) -> MDState:
        """Half a kick and a drift. There is no noise."""
        dt, masses = self.timestep_fs * FS, system.masses.to(state.positions)
        positions, velocities = kick_and_drift(state.positions, state.velocities, state.forces, masses, dt)
        return replace(state, positions=positions, velocities=velocities)

    def after_forces(self, system: System, state: MDState) -> MDState:
        """Half a kick."""
        masses = system.masses.to(state.positions)
        return replace(state, velocities=kick(state.velocities, state.forces, masses, self.timestep_fs * FS))
