"""Nosé-Hoover chain integrator: deterministic dynamics whose time averages are canonical.

The first thermostat is driven by the kinetic energy of the atoms, each further one by the one before it:

    dx/dt   = v                              dv/dt   = F/m - v_η1 v
    dη_j/dt = v_ηj                           dv_ηj/dt = G_j - v_ηj v_η,j+1      (no last term for j = M)
    G_1 = (Σ m v² - N_f kT) / Q_1            G_j = (Q_{j-1} v_η,j-1² - kT) / Q_j
    Q_1 = N_f kT τ²                          Q_j = kT τ²

and conserves  H' = K + U + Σ_j Q_j v_ηj²/2 + N_f kT η_1 + kT Σ_{j>1} η_j.  One step applies

    exp(iL_NHC Δt/2) exp(iL_v Δt/2) exp(iL_x Δt) exp(iL_v Δt/2) exp(iL_NHC Δt/2),

velocity Verlet between two half steps of the chain. The chain's operator is itself factorized into `n_substeps` times
the Suzuki-Yoshida weights w_k, so that stiff chains need no smaller Δt. The scheme is of second order and
time-reversible.

N_f counts the momenta that can change: forces between atoms conserve total momentum and, with open boundaries, angular
momentum, and the thermostat only scales them. A chain that aims at 3N, as in the code published with StABlE training,
heats the molecule by 3N / N_f; one link at a temperature_K raised by that factor follows the same trajectory.

| symbol          | variable                                                        |
|-----------------|-----------------------------------------------------------------|
| x, v, F, m      | `state.positions`, `.velocities`, `.forces`, `system.masses`    |
| η_j, v_ηj       | `state.thermostat[:, 0]`, `state.thermostat[:, 1]`              |
| M               | `chain_length`; 1 is the plain Nosé-Hoover thermostat           |
| τ               | `relaxation_time_fs`                                            |
| Q_j             | `constants(system).masses` at kT of `temperature_K`             |
| N_f             | `system.internal_degrees_of_freedom`                            |
| w_k             | `SUZUKI_YOSHIDA_WEIGHTS[suzuki_yoshida_order]`                  |
| kT              | `state.kT`, or else `kT_eV(temperature_K)`                      |

References:
    Nosé, J. Chem. Phys. 81, 511 (1984); Hoover, Phys. Rev. A 31, 1695 (1985), for one thermostat.
    Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992), for chains and their masses.
    Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996), for the splitting.
    Yoshida, Phys. Lett. A 150, 262 (1990); Suzuki, J. Math. Phys. 32, 400 (1991), for the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import torch

from mdsim.integrators._moves import in_compiled_loops, kick, kick_and_drift
from mdsim.integrators.base import SplitIntegrator
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
class ChainConstants:
    """Constants of the half steps of a chain. They follow from its settings and from N_f."""

    masses: tuple[float, ...]  # Q_j, eV · (ASE time)²
    substeps: tuple[float, ...]  # durations that add up to half a time step, ASE time
    frequency: float  # 1/τ, per ASE time

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, float]:
        """The same for compiled loops."""
        return np.array(self.masses), np.array(self.substeps), self.frequency


@dataclass(frozen=True)
class NoseHooverChain(SplitIntegrator):
    """Canonical dynamics by a chain of Nosé-Hoover thermostats. One force evaluation per step.

    Args:
        timestep_fs: Δt, fs.
        temperature_K: temperature of the canonical ensemble, K, of replicas without one of their own (`MDState.kT`).
        relaxation_time_fs: τ, fs. The paper takes 20 time steps.
        chain_length: number of thermostats. The paper uses 1, which is not ergodic for stiff or harmonic systems.
        suzuki_yoshida_order: number of weights that factorize the chain's propagator: 1, 3, 5 or 7.
        n_substeps: repetitions of the factorization in each half step.
    """

    temperature_K: float
    relaxation_time_fs: float
    chain_length: int = 3
    suzuki_yoshida_order: int = 3
    n_substeps: int = 1

    positive: ClassVar[tuple[str, ...]] = (
        "timestep_fs",
        "temperature_K",
        "relaxation_time_fs",
        "chain_length",
        "n_substeps",
    )
    has_replica_temperatures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
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
        """The initial state, with the chain at rest. Positions in Å, velocities in ASE units.

        The velocities should have no total momentum and, with open boundaries, no angular momentum, as those of
        `mdsim.dynamics.velocities.maxwell_boltzmann` have.

        Raises:
            ValueError: the system is a single atom, which has no internal motion to thermostat.
        """
        if self.degrees_of_freedom(system) == 0:
            raise ValueError(
                "NoseHooverChain: a single atom has no internal degrees of freedom; use LangevinBAOAB instead"
            )
        state = super().init(system, potential, positions, velocities)
        return replace(state, thermostat=positions.new_zeros(len(positions), 2, self.chain_length))

    def before_forces(self, system: System, state: MDState, noise: Tensor | None = None) -> MDState:
        """exp(iL_x Δt) exp(iL_v Δt/2) exp(iL_NHC Δt/2). There is no noise."""
        masses, constants, dt = system.masses.to(state.positions), self.constants(system), self.timestep_fs * FS
        thermostat, relative_kT = self.thermostat_of(state), self.relative_kT(state)
        if in_compiled_loops(state.positions):
            from mdsim.integrators import compiled_steps

            positions, velocities, thermostat = compiled_steps.thermostat_kick_and_drift(
                state.positions, state.velocities, state.forces, thermostat, masses, dt, *constants.arrays, relative_kT
            )
        else:
            velocities, thermostat = _half_step_of_chain(constants, masses, state.velocities, thermostat, relative_kT)
            positions, velocities = kick_and_drift(state.positions, velocities, state.forces, masses, dt)
        return replace(state, positions=positions, velocities=velocities, thermostat=thermostat)

    def after_forces(self, system: System, state: MDState) -> MDState:
        """exp(iL_NHC Δt/2) exp(iL_v Δt/2)."""
        masses, constants, dt = system.masses.to(state.positions), self.constants(system), self.timestep_fs * FS
        thermostat, relative_kT = self.thermostat_of(state), self.relative_kT(state)
        if in_compiled_loops(state.positions):
            from mdsim.integrators import compiled_steps

            velocities, thermostat = compiled_steps.kick_and_thermostat(
                state.velocities, state.forces, thermostat, masses, dt, *constants.arrays, relative_kT
            )
        else:
            velocities = kick(state.velocities, state.forces, masses, dt)
            velocities, thermostat = _half_step_of_chain(constants, masses, velocities, thermostat, relative_kT)
        return replace(state, velocities=velocities, thermostat=thermostat)

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """The extended energy H' in eV."""
        kT = kT_eV(self.temperature_K) if state.kT is None else state.kT
        eta, eta_velocities = self.thermostat_of(state).unbind(1)
        chain_masses = eta.new_tensor(self.constants(system).masses)
        chain_kinetic = 0.5 * (chain_masses * eta_velocities.square()).sum(-1)
        relative_kT = self.relative_kT(state)
        chain_kinetic = chain_kinetic if relative_kT is None else relative_kT * chain_kinetic
        chain_potential = kT * (self.degrees_of_freedom(system) * eta[:, 0] + eta[:, 1:].sum(-1))
        return super().conserved(system, state) + chain_kinetic + chain_potential

    def constants(self, system: System) -> ChainConstants:
        """Constants of the chain for this system, computed once."""
        return chain_constants(self, self.degrees_of_freedom(system))

    def thermostat_of(self, state: MDState) -> Float[Tensor, "replica 2 chain"]:
        if state.thermostat is None or state.thermostat.shape[1:] != (2, self.chain_length):
            found = "none" if state.thermostat is None else f"some of shape {tuple(state.thermostat.shape)}"
            raise ValueError(
                f"NoseHooverChain: the state needs thermostat variables of shape (replica, 2, {self.chain_length}), "
                f"but has {found}; make the state with this integrator's init"
            )
        return state.thermostat

    def relative_kT(self, state: MDState) -> Float[Tensor, "replica"] | None:
        """kT of each replica relative to that of `temperature_K`, as are the Q_j of its chain."""
        return None if state.kT is None else state.kT / kT_eV(self.temperature_K)


@lru_cache(maxsize=64)
def chain_constants(chain: NoseHooverChain, degrees_of_freedom: int) -> ChainConstants:
    """Constants of a chain with these settings on a number of degrees of freedom."""
    relaxation_time = chain.relaxation_time_fs * FS
    single = kT_eV(chain.temperature_K) * relaxation_time**2
    half = 0.5 * chain.timestep_fs * FS / chain.n_substeps
    weights = SUZUKI_YOSHIDA_WEIGHTS[chain.suzuki_yoshida_order]
    return ChainConstants(
        masses=(degrees_of_freedom * single, *[single] * (chain.chain_length - 1)),
        substeps=tuple(weight * half for weight in weights) * chain.n_substeps,
        frequency=1 / relaxation_time,
    )


def _half_step_of_chain(
    constants: ChainConstants,
    masses: Float[Tensor, "atom"],
    velocities: Float[Tensor, "replica atom 3"],
    thermostat: Float[Tensor, "replica 2 chain"],
    relative_kT: Float[Tensor, "replica"] | None = None,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica 2 chain"]]:
    """exp(iL_NHC Δt/2): propagate the chain and scale all velocities of a replica by one factor."""
    scale, thermostat = propagated_chain(constants, 2 * kinetic_energy_eV(velocities, masses), thermostat, relative_kT)
    return scale[:, None, None] * velocities, thermostat


def propagated_chain(
    constants: ChainConstants,
    twice_kinetic: Float[Tensor, "replica"],
    thermostat: Float[Tensor, "replica 2 chain"],
    relative_kT: Float[Tensor, "replica"] | None = None,
) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica 2 chain"]]:
    """The factor on the velocities of each replica in half a time step, and the chain after it.

    Args:
        constants: of the chain.
        twice_kinetic: twice the kinetic energy of what the chain acts on, eV.
        thermostat: the chain.
        relative_kT: kT of each replica relative to that of the constants. None: equal.
    """
    if in_compiled_loops(thermostat):
        from mdsim.integrators import compiled_steps

        return compiled_steps.propagated_chain(twice_kinetic, thermostat, *constants.arrays, relative_kT)
    eta, eta_velocities = thermostat.unbind(1)
    v = list(eta_velocities.unbind(-1))
    driving = twice_kinetic / constants.masses[0]
    driving = driving if relative_kT is None else driving / relative_kT  # of the Q_j, only Q_1 enters but in ratios
    scale = torch.ones_like(driving)
    for delta in constants.substeps:
        for j in reversed(range(len(v))):
            v[j] = _kicked_link(j, v, constants, driving, delta)
        eta = torch.add(eta, torch.stack(v, dim=-1), alpha=delta)
        factor = torch.exp(-delta * v[0])
        scale, driving = scale * factor, driving * factor.square()
        for j in range(len(v)):
            v[j] = _kicked_link(j, v, constants, driving, delta)
    return scale, torch.stack([eta, torch.stack(v, dim=-1)], dim=1)


def _kicked_link(j: int, v: list[Tensor], constants: ChainConstants, driving: Tensor, delta: float) -> Tensor:
    """v_ηj after delta/2 of the force G_j, between two halves of the friction of the next thermostat.

    ``driving`` is Σ m v² / Q_1; the other term of G_j, N_f kT / Q_1 or kT / Q_j, is 1/τ² for every j.
    """
    Q = constants.masses
    if j > 0:
        driving = Q[j - 1] / Q[j] * v[j - 1].square()
    force = driving - constants.frequency**2
    if j == len(v) - 1:
        return torch.add(v[j], force, alpha=0.5 * delta)
    friction = torch.exp(-0.25 * delta * v[j + 1])
    return friction * torch.add(friction * v[j], force, alpha=0.5 * delta)
