"""A custom integrator: velocity Verlet with stochastic velocity rescaling.

Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007). Between steps all velocities are scaled by one factor,
such that the kinetic energy K follows

    dK = (K̄ - K) dt/τ + 2 √(K K̄ / N_f) dW/√τ,     K̄ = N_f kT/2,

whose stationary distribution is the canonical one. The step below draws K exactly from its distribution a time step
later (appendix of the paper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from mdsim.integrators import BaseIntegrator, VelocityVerlet
from mdsim.interfaces import Potential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import kT_eV


@dataclass(frozen=True)
class StochasticVelocityRescaling(BaseIntegrator):
    """Canonical dynamics with a weak effect on velocities, and one force evaluation per step.

    Args:
        timestep_fs: Δt, fs.
        temperature_K: of the canonical ensemble, K.
        relaxation_time_fs: τ, fs.
    """

    temperature_K: float
    relaxation_time_fs: float = 100.0

    positive: ClassVar[tuple[str, ...]] = ("timestep_fs", "temperature_K", "relaxation_time_fs")
    has_replica_temperatures: ClassVar[bool] = True

    def noise_shape(self, system: System) -> tuple[int, ...]:
        """N_f normal numbers: one common factor of all velocities leaves conserved momenta at zero."""
        return (self.degrees_of_freedom(system),)

    def step(
        self, system: System, potential: Potential, state: MDState, noise: Float[Tensor, "replica N_f"] | None = None
    ) -> MDState:
        """The state one time step later."""
        noise = self.required(system, state, noise)
        state = VelocityVerlet(self.timestep_fs).step(system, potential, state)
        return replace(state, velocities=self._rescaled(system, state, noise))

    def _rescaled(
        self, system: System, state: MDState, noise: Float[Tensor, "replica N_f"]
    ) -> Float[Tensor, "replica atom 3"]:
        velocities = state.velocities
        kinetic = kinetic_energy_eV(velocities, system.masses.to(velocities))
        kT = kT_eV(self.temperature_K) if state.kT is None else state.kT
        kept = math.exp(-self.timestep_fs / self.relaxation_time_fs)
        share = (1 - kept) * kT / (2 * kinetic)  # (1 - c) K̄ / (N_f K)
        along = math.sqrt(kept) + torch.sqrt(share) * noise[:, 0]
        factor = torch.sqrt(along.square() + share * noise[:, 1:].square().sum(-1))
        return (torch.sign(along) * factor)[:, None, None] * velocities
