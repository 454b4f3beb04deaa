"""Martyna-Tobias-Klein barostat: constant temperature and pressure by extended dynamics, with Nosé-Hoover chains.

Positions r, velocities v, lattice vectors h and the strain rate of the cell, a symmetric matrix g, obey

    dr/dt = v + g r                                            dh/dt = h g
    dv/dt = F/m - g v - (Tr g / N_f) v - v_η1 v
    dg/dt = [V (P - P₀) + 2K/N_f + c kT] / W - v_ξ1 g          W = (N_f + 3) kT τ²/3

where P is the instantaneous pressure tensor with its kinetic part. One chain of thermostats η acts on the atoms, and
another one, ξ, on the N_g degrees of freedom of the cell. They conserve

    H' = U + K + P₀ V - c kT log V + W Tr(g²)/2 + the energies of both chains.

c kT is not part of the original equations. With c = 1 where the total momentum is zero, and 0 otherwise, the volume
has the distribution of N atoms, as with `StochasticCellRescaling`; without it, that of N - 1. (The flow of atoms and
cell expands phase space by N Tr g and Tr g, and that of the momenta contracts it by (N_f/3 + 1) Tr g.)

The isotropic barostat takes the mean of the diagonal of the right-hand side; others average over groups of axes or,
"full", also keep the off-diagonal elements. A step is the symmetric product of the exact solutions of its parts: the
chains, g, the velocities at constant g and F, and positions and cell at constant g and v. Exponentials of 3×3
matrices are power series, since g Δt is small.

| symbol         | variable                                                                              |
|----------------|---------------------------------------------------------------------------------------|
| g              | `state.barostat[:, :9]`                                                               |
| ξ_j, v_ξj      | the rest of `state.barostat`                                                          |
| η_j, v_ηj      | `state.thermostat`                                                                    |
| τ              | `relaxation_time_fs`; the chain of the cell has it as well                            |
| N_f            | `thermostat.degrees_of_freedom(system)`                                               |
| N_g            | `FREEDOM[scaling]`                                                                    |
| P₀             | `state.pressure`, or else `pressure_bar`                                              |

References:
    Martyna, Tobias, Klein, J. Chem. Phys. 101, 4177 (1994).
    Tuckerman, Alejandre, López-Rendón, Jochim, Martyna, J. Phys. A 39, 5629 (2006), for the splitting.
    Yu, Alejandre, López-Rendón, Martyna, Tuckerman, Chem. Phys. 370, 294 (2010), for the full cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from mdsim.geometry import volume
from mdsim.integrators.barostat import Barostat, cell_of, mean_over_groups, pressure_tensor
from mdsim.integrators.nose_hoover import ChainConstants, NoseHooverChain, chain_constants, propagated_chain
from mdsim.interfaces import CellPotential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import FS, kT_eV

#: Degrees of freedom of the cell, by the name of the scaling.
FREEDOM = {"isotropic": 1, "semi_isotropic": 2, "anisotropic": 3, "full": 6}
SERIES = 6  # terms of the exponential: exact in double precision for |g Δt| up to 0.01


@dataclass(frozen=True)
class MartynaTobiasKlein(Barostat):
    """Constant temperature and pressure by extended dynamics. One evaluation of forces and stress per step.

    Args:
        thermostat: the chain of the atoms, which sets the time step, and the length of the chain of the cell.
        pressure_bar: external pressure, bar, on replicas without one of their own (`MDState.pressure`).
        relaxation_time_fs: τ, fs. A thousand time steps or more.
        scaling: "isotropic", "semi_isotropic" (the x-y plane and z), "anisotropic" (each axis) or "full" (also the
            angles of the cell, as for crystals).
    """

    thermostat: NoseHooverChain
    relaxation_time_fs: float = 1000.0
    scaling: str = "isotropic"

    positive: ClassVar[tuple[str, ...]] = ("relaxation_time_fs",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.thermostat, NoseHooverChain):
            raise ValueError(f"MartynaTobiasKlein needs a NoseHooverChain, not {type(self.thermostat).__name__}")
        if self.scaling not in FREEDOM:
            names = ", ".join(FREEDOM)
            raise ValueError(f"MartynaTobiasKlein: scaling must be one of {names}, but it is {self.scaling!r}")

    def init(
        self,
        system: System,
        potential: CellPotential,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
        cells: Float[Tensor, "replica 3 3"] | None = None,
    ) -> MDState:
        """The initial state, with cell and chains at rest. See `Barostat.init`."""
        state = super().init(system, potential, positions, velocities, cells)
        at_rest = positions.new_zeros(len(positions), 9 + 2 * self.thermostat.chain_length)
        return replace(state, barostat=at_rest)

    def before_forces(self, system: System, state: MDState, noise: Tensor | None = None) -> MDState:
        """Chains, cell, kick and drift. There is no noise."""
        state = self._half_kick(system, self._half_step_of_cell(system, self._half_step_of_chains(system, state)))
        dt, (strain_rate, _) = self.timestep_fs * FS, self._barostat_of(state)
        grow, mean_growth = _exponential(dt * strain_rate)
        positions = state.positions @ grow + dt * (state.velocities @ mean_growth)
        return replace(state, positions=positions, cell=cell_of(state) @ grow)

    def after_forces(self, system: System, state: MDState) -> MDState:
        """Kick, cell and chains."""
        return self._half_step_of_chains(system, self._half_step_of_cell(system, self._half_kick(system, state)))

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """The extended energy H' in eV."""
        strain_rate, chain = self._barostat_of(state)
        kT, constants = self.kT_of(state), self._constants(system)
        relative_kT = kT / kT_eV(self.temperature_K)
        velocities = chain[:, 1]
        chain_kinetic = 0.5 * relative_kT * (velocities.new_tensor(constants.masses) * velocities.square()).sum(-1)
        chain_potential = kT * (FREEDOM[self.scaling] * chain[:, 0, 0] + chain[:, 0, 1:].sum(-1))
        of_cell = 0.5 * self._mass(system, state) * strain_rate.square().sum((-2, -1))
        pressure_volume = self.pressure_of(state) * volume(cell_of(state))
        of_atoms = self.thermostat.conserved(system, state)
        of_volume = kT * torch.log(volume(cell_of(state))) if self.conserves_momentum else 0.0
        return of_atoms + pressure_volume - of_volume + of_cell + chain_kinetic + chain_potential

    def _half_step_of_chains(self, system: System, state: MDState) -> MDState:
        strain_rate, of_cell = self._barostat_of(state)
        relative_kT = self.thermostat.relative_kT(state)
        twice_kinetic = self._mass(system, state) * strain_rate.square().sum((-2, -1))
        slows, of_cell = propagated_chain(self._constants(system), twice_kinetic, of_cell, relative_kT)
        twice_kinetic = 2 * kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))
        constants, of_atoms = self.thermostat.constants(system), self.thermostat.thermostat_of(state)
        scale, of_atoms = propagated_chain(constants, twice_kinetic, of_atoms, relative_kT)
        barostat = _joined(slows[:, None, None] * strain_rate, of_cell)
        return replace(
            state, velocities=scale[:, None, None] * state.velocities, thermostat=of_atoms, barostat=barostat
        )

    def _half_step_of_cell(self, system: System, state: MDState) -> MDState:
        """The strain rate after half a time step of its driving force."""
        strain_rate, chain = self._barostat_of(state)
        twice_kinetic = 2 * kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))
        excess = pressure_tensor(system, state) - torch.diag_embed(self.pressure_of(state)[:, None].expand(-1, 3))
        spread = twice_kinetic / self.thermostat.degrees_of_freedom(system)
        spread = spread + self.kT_of(state) if self.conserves_momentum else spread
        driving = volume(cell_of(state))[:, None, None] * excess + torch.diag_embed(spread[:, None].expand(-1, 3))
        half = 0.5 * self.timestep_fs * FS / self._mass(system, state)
        whole = self.scaling == "full"
        driving = 0.5 * (driving + driving.mT) if whole else mean_over_groups(driving, self.scaling)
        return replace(state, barostat=_joined(strain_rate + half[:, None, None] * driving, chain))

    def _half_kick(self, system: System, state: MDState) -> MDState:
        """Velocities after half a time step of the forces and of the friction by the strain rate."""
        half, (strain_rate, _) = 0.5 * self.timestep_fs * FS, self._barostat_of(state)
        trace = torch.diagonal(strain_rate, dim1=-2, dim2=-1).sum(-1)
        spread = (trace / self.thermostat.degrees_of_freedom(system))[:, None].expand(-1, 3)
        slow, mean_slowing = _exponential(-half * (strain_rate + torch.diag_embed(spread)))
        acceleration = state.forces / system.masses.to(state.forces)[:, None]
        return replace(state, velocities=state.velocities @ slow + half * (acceleration @ mean_slowing))

    def _barostat_of(self, state: MDState) -> tuple[Float[Tensor, "replica 3 3"], Float[Tensor, "replica 2 chain"]]:
        """Strain rate and chain of the cell."""
        length = 9 + 2 * self.thermostat.chain_length
        if state.barostat is None or state.barostat.shape[1:] != (length,):
            found = "none" if state.barostat is None else f"some of shape {tuple(state.barostat.shape)}"
            raise ValueError(
                f"MartynaTobiasKlein: the state needs barostat variables of shape (replica, {length}), "
                f"but has {found}; make the state with this integrator's init"
            )
        return state.barostat[:, :9].unflatten(1, (3, 3)), state.barostat[:, 9:].unflatten(1, (2, -1))

    def _mass(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """W, eV · (ASE time)²."""
        freedom = self.thermostat.degrees_of_freedom(system) + 3
        return freedom * self.kT_of(state) * (self.relaxation_time_fs * FS) ** 2 / 3

    def _constants(self, system: System) -> ChainConstants:
        """Constants of the chain of the cell."""
        chain = replace(self.thermostat, relaxation_time_fs=self.relaxation_time_fs)
        return chain_constants(chain, FREEDOM[self.scaling])


def _joined(
    strain_rate: Float[Tensor, "replica 3 3"], chain: Float[Tensor, "replica 2 link"]
) -> Float[Tensor, "replica _"]:
    return torch.cat([strain_rate.flatten(1), chain.flatten(1)], dim=1)


def _exponential(
    matrices: Float[Tensor, "replica 3 3"],
) -> tuple[Float[Tensor, "replica 3 3"], Float[Tensor, "replica 3 3"]]:
    """exp(A) and its mean over the way, ∫₀¹ exp(A s) ds = (exp(A) - 1)/A, by their power series."""
    identity = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    mean = identity.expand_as(matrices)
    for power in range(SERIES, 1, -1):
        mean = identity + matrices @ mean / power
    return identity + matrices @ mean, mean
