"""Barostats: integrators of replicas whose cells move, on top of a thermostat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from mdsim.geometry import volume
from mdsim.integrators.base import BaseIntegrator, SplitIntegrator
from mdsim.interfaces import CellPotential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor
from mdsim.units import BAR, kT_eV

#: Consecutive axes of the cell that scale together, by the name of the scaling.
GROUPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "isotropic": ((0, 1, 2),),
    "semi_isotropic": ((0, 1), (2,)),
    "anisotropic": ((0,), (1,), (2,)),
}


@dataclass(frozen=True)
class Barostat(ABC):
    """An `mdsim.interfaces.Integrator` at constant pressure, without its equations of motion.

    The potential of `init` and `step` is a `CellPotential`, which also takes the cells and returns the stresses.
    `mdsim.moving_cells.bind_in_cells` makes it.

    Args:
        thermostat: keeps the temperature, and sets the time step.
        pressure_bar: external pressure, bar, on replicas without one of their own (`MDState.pressure`).
    """

    thermostat: SplitIntegrator
    pressure_bar: float

    #: Settings that must be finite numbers greater than zero.
    positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.thermostat, SplitIntegrator) and hasattr(self.thermostat, "temperature_K")):
            raise ValueError(f"{type(self).__name__} needs a thermostat, not {type(self.thermostat).__name__}")
        if not abs(self.pressure_bar) < float("inf"):
            raise ValueError(f"{type(self).__name__}: pressure_bar must be a finite number, but is {self.pressure_bar}")
        BaseIntegrator.__post_init__(self)  # type: ignore[arg-type]

    @property
    def timestep_fs(self) -> float:
        return self.thermostat.timestep_fs

    @property
    def temperature_K(self) -> float:
        return self.thermostat.temperature_K  # type: ignore[attr-defined]

    @property
    def conserves_momentum(self) -> bool:
        return self.thermostat.conserves_momentum

    def degrees_of_freedom(self, system: System) -> int:
        """Those of the thermostat."""
        return self.thermostat.degrees_of_freedom(system)

    def noise_shape(self, system: System) -> tuple[int, ...] | None:
        """Those of the thermostat."""
        return self.thermostat.noise_shape(system)

    def init(
        self,
        system: System,
        potential: CellPotential,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
        cells: Float[Tensor, "replica 3 3"] | None = None,
    ) -> MDState:
        """The initial state. Positions in Å, velocities in ASE units.

        Args:
            system: with periodic boundaries.
            potential: energies, forces and stresses.
            positions: Å.
            velocities: ASE units.
            cells: lattice vectors, Å. None: all replicas start in the cell of the system.

        Raises:
            ValueError: the boundaries are open.
        """
        if system.cell is None:
            raise ValueError(f"{type(self).__name__}: a system with open boundaries has no volume; give it a cell")
        if cells is None:
            cells = system.cell.to(positions).expand(len(positions), 3, 3).clone()
        found: list[Tensor] = []

        def at_start(positions: Tensor) -> tuple[Tensor, Tensor]:
            energy, forces, stress = potential(positions, cells)
            found.append(stress)
            return energy, forces

        state = self.thermostat.init(system, at_start, positions, velocities)
        return replace(state, cell=cells, stress=found[0])

    def step(self, system: System, potential: CellPotential, state: MDState, noise: Tensor | None = None) -> MDState:
        """The state one time step later, with standard normal numbers of the shape `noise_shape` for each replica."""
        moved = self.before_forces(system, state, noise)
        energy, forces, stress = potential(moved.positions, cell_of(moved))
        return self.after_forces(system, replace(moved, energy=energy, forces=forces, stress=stress))

    @abstractmethod
    def before_forces(self, system: System, state: MDState, noise: Tensor | None = None) -> MDState:
        """The part of a step up to the new positions and cells."""

    @abstractmethod
    def after_forces(self, system: System, state: MDState) -> MDState:
        """The part of a step that follows the evaluation of energies, forces and stresses."""

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """The enthalpy U + K + P₀ V in eV, which noise does not conserve."""
        kinetic = kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))
        return state.energy + kinetic + self.pressure_of(state) * volume(cell_of(state))

    def kT_of(self, state: MDState) -> Float[Tensor, "replica"]:
        """Thermal energy of each replica, eV."""
        return torch.full_like(state.energy, kT_eV(self.temperature_K)) if state.kT is None else state.kT

    def pressure_of(self, state: MDState) -> Float[Tensor, "replica"]:
        """External pressure on each replica, eV/Å³."""
        if state.pressure is None:
            return torch.full_like(state.energy, self.pressure_bar * BAR)
        return state.pressure


def cell_of(state: MDState) -> Float[Tensor, "replica 3 3"]:
    """The cells of a state.

    Raises:
        ValueError: it has none, because another integrator made it.
    """
    if state.cell is None:
        raise ValueError("a barostat needs a state with cells; make the state with this integrator's init")
    return state.cell


def pressure_tensor(system: System, state: MDState) -> Float[Tensor, "replica 3 3"]:
    """Instantaneous pressure with its kinetic part, (Σ m v ⊗ v) / V minus the stress, eV/Å³."""
    if state.stress is None:
        raise ValueError("a barostat needs a state with stresses; make the state with this integrator's init")
    kinetic = (system.masses.to(state.velocities)[:, None] * state.velocities).mT @ state.velocities
    return kinetic / volume(cell_of(state))[:, None, None] - state.stress


def mean_over_groups(matrices: Float[Tensor, "replica 3 3"], scaling: str) -> Float[Tensor, "replica 3 3"]:
    """Diagonal matrices, with the mean of the diagonal over each group of axes."""
    diagonal = torch.diagonal(matrices, dim1=-2, dim2=-1)
    parts = diagonal.split([len(axes) for axes in GROUPS[scaling]], dim=1)
    return torch.diag_embed(torch.cat([part.mean(1, keepdim=True).expand_as(part) for part in parts], dim=1))
