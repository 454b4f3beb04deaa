"""An integrator of your own: velocity Verlet with stochastic velocity rescaling.

Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007). Between steps all velocities are scaled by one factor,
such that the kinetic energy K follows

    dK = (K̄ - K) dt/τ + 2 √(K K̄ / N_f) dW/√τ,     K̄ = N_f kT/2,

whose stationary distribution is the canonical one. The step below draws K exactly from its distribution a time step
later (appendix of the paper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from mdsim.integrators import VelocityVerlet
from mdsim.interfaces import Potential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import kT_eV


@dataclass(frozen=True)
class StochasticVelocityRescaling:
    """Canonical dynamics that disturbs velocities little; one force evaluation a step.

    Args:
        timestep_fs: Δt, fs.
        temperature_K: of the canonical ensemble, K.
        relaxation_time_fs: τ, fs.
    """

    timestep_fs: float
    temperature_K: float
    relaxation_time_fs: float = 100.0

    def __post_init__(self) -> None:
        if not (self.timestep_fs > 0 and self.temperature_K > 0 and self.relaxation_time_fs > 0):
            raise ValueError("timestep_fs, temperature_K and relaxation_time_fs must be positive")

    def init(
        self,
        system: System,
        potential: Potential,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
    ) -> MDState:
        """The state from which steps begin. Positions in Å, velocities in ASE units."""
        return VelocityVerlet(self.timestep_fs).init(system, potential, positions, velocities)

    def step(self, system: System, potential: Potential, state: MDState, generator: torch.Generator | None) -> MDState:
        """The state one time step later; the generator draws N_f normal numbers for each replica."""
        if generator is None:
            raise ValueError("StochasticVelocityRescaling: its noise needs a torch.Generator, but none was given")
        state = VelocityVerlet(self.timestep_fs).step(system, potential, state)
        return replace(state, velocities=self._rescaled(system, state.velocities, generator))

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """Total energy in eV, which the thermostat changes."""
        return VelocityVerlet(self.timestep_fs).conserved(system, state)

    def degrees_of_freedom(self, system: System) -> int:
        """Those left when the conserved momenta are held at zero: one common factor keeps them there."""
        return system.internal_degrees_of_freedom

    def _rescaled(
        self, system: System, velocities: Float[Tensor, "replica atom 3"], generator: torch.Generator
    ) -> Float[Tensor, "replica atom 3"]:
        freedom = self.degrees_of_freedom(system)
        kinetic = kinetic_energy_eV(velocities, system.masses.to(velocities))
        shape = (len(velocities), freedom)
        noise = torch.randn(shape, generator=generator, dtype=velocities.dtype, device=velocities.device)
        kept = math.exp(-self.timestep_fs / self.relaxation_time_fs)
        share = (1 - kept) * kT_eV(self.temperature_K) / (2 * kinetic)  # (1 - c) K̄ / (N_f K)
        along = math.sqrt(kept) + torch.sqrt(share) * noise[:, 0]
        factor = torch.sqrt(along.square() + share * noise[:, 1:].square().sum(-1))
        return (torch.sign(along) * factor)[:, None, None] * velocities
