"""Nosé-Hoover chains: deterministic dynamics whose time averages are canonical.

The first thermostat is driven by the kinetic energy of the atoms, each further one by the one before it:

    dx/dt   = v                              dv/dt   = F/m - v_η1 v
    dη_j/dt = v_ηj                           dv_ηj/dt = G_j - v_ηj v_η,j+1      (no last term for j = M)
    G_1 = (Σ m v² - N_f kT) / Q_1            G_j = (Q_{j-1} v_η,j-1² - kT) / Q_j
    Q_1 = N_f kT τ²                          Q_j = kT τ²

and conserves  H' = K + U + Σ_j Q_j v_ηj²/2 + N_f kT η_1 + kT Σ_{j>1} η_j.  One step applies

    exp(iL_NHC Δt/2) exp(iL_v Δt/2) exp(iL_x Δt) exp(iL_v Δt/2) exp(iL_NHC Δt/2),

velocity Verlet between two half steps of the chain. The chain's operator is itself factorized into `n_substeps` times
the Suzuki-Yoshida weights w_k, so that stiff chains need no smaller Δt. Second order and time-reversible.

N_f counts the momenta that can change: forces between atoms conserve total momentum and, with open boundaries, angular
momentum, and the thermostat only scales them. A chain that aims at 3N, as in the code published with StABlE training,
heats the molecule by 3N / N_f; one link at a temperature_K raised by that factor follows the same trajectory.

| symbol          | variable                                                        |
|-----------------|-----------------------------------------------------------------|
| x, v, F, m      | `state.positions`, `.velocities`, `.forces`, `system.masses`    |
| η_j, v_ηj       | `state.thermostat[:, 0]`, `state.thermostat[:, 1]`              |
| M               | `chain_length`; 1 is the plain Nosé-Hoover thermostat           |
| τ               | `relaxation_time_fs`                                            |
| Q_j             | `_chain_masses`                                                 |
| N_f             | `system.internal_degrees_of_freedom`                            |
| w_k             | `SUZUKI_YOSHIDA_WEIGHTS[suzuki_yoshida_order]`                  |
| kT              | `kT_eV(temperature_K)`                                          |

References:
    Nosé, J. Chem. Phys. 81, 511 (1984); Hoover, Phys. Rev. A 31, 1695 (1985), for one thermostat.
    Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992), for chains and their masses.
    Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996), for the splitting.
    Yoshida, Phys. Lett. A 150, 262 (1990); Suzuki, J. Math. Phys. 32, 400 (1991), for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mdsim.integrators._moves import in_compiled_loops, kick, kick_and_drift
from mdsim.integrators._validation import require_positive
from mdsim.interfaces import Potential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import FS, kT_eV


def _yoshida_sixth_order() -> tuple[float, ...]:
    outer = (0.784513610477560, 0.235573213359357, -1.17767998417887)  # Yoshida (1990), table 1, solution A
    return (*outer, 1 - 2 * sum(outer), *reversed(outer))


_TRIPLE = 1 / (2 - 2 ** (1 / 3))
_QUINTUPLE = 1 / (4 - 4 ** (1 / 3))

#: Number of weights to the weights: order 2, 4, 4 (with smaller errors) and 6 in the length of the substep.
SUZUKI_YOSHIDA_WEIGHTS: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    3: (_TRIPLE, 1 - 2 * _TRIPLE, _TRIPLE),
    5: (_QUINTUPLE, _QUINTUPLE, 1 - 4 * _QUINTUPLE, _QUINTUPLE, _QUINTUPLE),
    7: _yoshida_sixth_order(),
}


@dataclass(frozen=True)
class NoseHooverChain:
    """Canonical dynamics by a chain of Nosé-Hoover thermostats; one force evaluation a step.

    Args:
        timestep_fs: Δt, fs.
        temperature_K: of the canonical ensemble, K.
        relaxation_time_fs: τ, fs. The paper takes 20 time steps.
        chain_length: number of thermostats; 1 is the paper's, and not ergodic for stiff or harmonic systems.
        suzuki_yoshida_order: number of weights that factorize the chain's propagator: 1, 3, 5 or 7.
        n_substeps: how often the factorization is repeated in each half step.
    """

    timestep_fs: float
    temperature_K: float
    relaxation_time_fs: float
    chain_length: int = 3
    suzuki_yoshida_order: int = 3
    n_substeps: int = 1

    def __post_init__(self) -> None:
        require_positive(
            "NoseHooverChain",
            timestep_fs=self.timestep_fs,
            temperature_K=self.temperature_K,
            relaxation_time_fs=self.relaxation_time_fs,
            chain_length=self.chain_length,
            n_substeps=self.n_substeps,
        )
        if self.suzuki_yoshida_order not in SUZUKI_YOSHIDA_WEIGHTS:
            raise ValueError(
                f"NoseHooverChain: suzuki_yoshida_order must be one of {sorted(SUZUKI_YOSHIDA_WEIGHTS)}, "
                f"but it is {self.suzuki_yoshida_order}"
            )

    def init(
        self,
        system: System,
        potential: Potential,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
    ) -> MDState:
        """The state from which steps begin, the chain at rest. Positions in Å, velocities in ASE units.

        The velocities should have no total momentum and, with open boundaries, no angular momentum, as those of
        `mdsim.dynamics.velocities.maxwell_boltzmann` have.

        Raises:
            ValueError: the system is a single atom, which has no internal motion to thermostat.
        """
        if self.degrees_of_freedom(system) == 0:
            raise ValueError(
                "NoseHooverChain: a single atom has no internal degrees of freedom; use LangevinBAOAB instead"
            )
        energy, forces = potential(positions)
        thermostat = positions.new_zeros(len(positions), 2, self.chain_length)
        return MDState(positions, velocities, forces, energy, thermostat)

    def step(
        self, system: System, potential: Potential, state: MDState, generator: torch.Generator | None = None
    ) -> MDState:
        """The state one time step later. The generator is not used."""
        masses = system.masses.to(state.positions)
        positions, velocities, thermostat = self._before_forces(system, masses, state)
        energy, forces = potential(positions)
        velocities, thermostat = self._after_forces(system, masses, velocities, forces, thermostat)
        return MDState(positions, velocities, forces, energy, thermostat)

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """The extended energy H' in eV."""
        kT = kT_eV(self.temperature_K)
        eta, eta_velocities = self._thermostat_of(state).unbind(1)
        chain_masses = eta.new_tensor(self._chain_masses(system))
        chain_kinetic = 0.5 * (chain_masses * eta_velocities.square()).sum(-1)
        chain_potential = kT * (self.degrees_of_freedom(system) * eta[:, 0] + eta[:, 1:].sum(-1))
        kinetic = kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))
        return kinetic + state.energy + chain_kinetic + chain_potential

    def degrees_of_freedom(self, system: System) -> int:
        """N_f: those left when the conserved momenta are held at zero."""
        return system.internal_degrees_of_freedom

    def _chain_masses(self, system: System) -> list[float]:
        """Q_j in eV · (ASE time)²."""
        single = kT_eV(self.temperature_K) * (self.relaxation_time_fs * FS) ** 2
        return [self.degrees_of_freedom(system) * single] + [single] * (self.chain_length - 1)

    def _thermostat_of(self, state: MDState) -> Float[Tensor, "replica 2 chain"]:
        if state.thermostat is None or state.thermostat.shape[1:] != (2, self.chain_length):
            found = "none" if state.thermostat is None else f"some of shape {tuple(state.thermostat.shape)}"
            raise ValueError(
                f"NoseHooverChain: the state needs thermostat variables of shape (replica, 2, {self.chain_length}), "
                f"but has {found}; make the state with this integrator's init"
            )
        return state.thermostat

    def _before_forces(
        self, system: System, masses: Float[Tensor, "atom"], state: MDState
    ) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 2 chain"]]:
        """exp(iL_x Δt) exp(iL_v Δt/2) exp(iL_NHC Δt/2): positions, velocities and chain."""
        dt, thermostat = self.timestep_fs * FS, self._thermostat_of(state)
        if in_compiled_loops(state.positions):
            from mdsim.integrators import compiled_steps

            return compiled_steps.thermostat_kick_and_drift(
                state.positions, state.velocities, state.forces, thermostat, masses, dt, *self._chain_arrays(system)
            )
        velocities, thermostat = self._half_step_of_chain(system, state.velocities, thermostat)
        return *kick_and_drift(state.positions, velocities, state.forces, masses, dt), thermostat

    def _after_forces(
        self,
        system: System,
        masses: Float[Tensor, "atom"],
        velocities: Float[Tensor, "replica atom 3"],
        forces: Float[Tensor, "replica atom 3"],
        thermostat: Float[Tensor, "replica 2 chain"],
    ) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica 2 chain"]]:
        """exp(iL_NHC Δt/2) exp(iL_v Δt/2): velocities and chain."""
        dt = self.timestep_fs * FS
        if in_compiled_loops(velocities):
            from mdsim.integrators import compiled_steps

            return compiled_steps.kick_and_thermostat(
                velocities, forces, thermostat, masses, dt, *self._chain_arrays(system)
            )
        return self._half_step_of_chain(system, kick(velocities, forces, masses, dt), thermostat)

    def _chain_arrays(self, system: System) -> tuple[np.ndarray, np.ndarray, float]:
        """Q_j, the substeps of half a time step (ASE time), and 1/τ (per ASE time)."""
        return np.array(self._chain_masses(system)), np.array(self._substeps()), 1 / (self.relaxation_time_fs * FS)

    def _substeps(self) -> list[float]:
        """Durations that add up to half a time step."""
        half = 0.5 * self.timestep_fs * FS / self.n_substeps
        return [weight * half for weight in SUZUKI_YOSHIDA_WEIGHTS[self.suzuki_yoshida_order]] * self.n_substeps

    def _half_step_of_chain(
        self, system: System, velocities: Float[Tensor, "replica atom 3"], thermostat: Float[Tensor, "replica 2 chain"]
    ) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica 2 chain"]]:
        """exp(iL_NHC Δt/2): moves the chain and scales all velocities of a replica by one factor."""
        Q = self._chain_masses(system)
        eta, eta_velocities = thermostat.unbind(1)
        v = list(eta_velocities.unbind(-1))
        driving = 2 / Q[0] * kinetic_energy_eV(velocities, system.masses.to(velocities))
        scale = torch.ones_like(driving)
        for delta in self._substeps():
            for j in reversed(range(self.chain_length)):
                v[j] = self._kick(j, v, Q, driving, delta)
            eta = torch.add(eta, torch.stack(v, dim=-1), alpha=delta)
            factor = torch.exp(-delta * v[0])
            scale, driving = scale * factor, driving * factor.square()
            for j in range(self.chain_length):
                v[j] = self._kick(j, v, Q, driving, delta)
        return scale[:, None, None] * velocities, torch.stack([eta, torch.stack(v, dim=-1)], dim=1)

    def _kick(self, j: int, v: list[Tensor], Q: list[float], driving: Tensor, delta: float) -> Tensor:
        """v_ηj after delta/2 of the force G_j, between two halves of the friction of the next thermostat.

        ``driving`` is Σ m v² / Q_1; the other term of G_j, N_f kT / Q_1 or kT / Q_j, is 1/τ² for every j.
        """
        if j > 0:
            driving = Q[j - 1] / Q[j] * v[j - 1].square()
        force = driving - (self.relaxation_time_fs * FS) ** -2
        if j == self.chain_length - 1:
            return torch.add(v[j], force, alpha=0.5 * delta)
        friction = torch.exp(-0.25 * delta * v[j + 1])
        return friction * torch.add(friction * v[j], force, alpha=0.5 * delta)
