"""Base class of the integrators. A subclass adds its settings and its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from mdsim.interfaces import Integrator, Potential
from mdsim.state import MDState, System, kinetic_energy_eV
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class BaseIntegrator(ABC):
    """An `mdsim.interfaces.Integrator` without a step.

    An integrator is a frozen dataclass with its settings as fields. The members below suit integrators without
    thermostat variables. Others override what differs.

    Args:
        timestep_fs: Δt, fs.
    """

    timestep_fs: float

    #: Settings that must be finite numbers greater than zero.
    positive: ClassVar[tuple[str, ...]] = ("timestep_fs",)
    #: Whether total momentum and, with open boundaries, angular momentum are conserved. Noise on each atom breaks this.
    conserves_momentum: ClassVar[bool] = True
    #: Whether steps use `MDState.kT`, the temperature of each replica, where it is present.
    has_replica_temperatures: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in self.positive:
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{type(self).__name__}: {name} must be a finite number greater than zero, "
                    f"but it is {getattr(self, name)}"
                )

    def init(
        self,
        system: System,
        potential: Potential,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
    ) -> MDState:
        """The initial state. Positions in Å, velocities in ASE units."""
        energy, forces = potential(positions)
        return MDState(positions, velocities, forces, energy)

    @abstractmethod
    def step(
        self, system: System, potential: Potential, state: MDState, noise: Float[Tensor, "replica ..."] | None = None
    ) -> MDState:
        """The state one time step later, with standard normal numbers of the shape `noise_shape` for each replica."""

    def noise_shape(self, system: System) -> tuple[int, ...] | None:
        """Shape of the normal numbers that a step needs for each replica; None for deterministic dynamics."""
        return None

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """Total energy in eV. A thermostat does not conserve it."""
        return state.energy + kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))

    def degrees_of_freedom(self, system: System) -> int:
        """Degrees of freedom that remain when the conserved momenta are zero; 3N if none are conserved."""
        return system.internal_degrees_of_freedom if self.conserves_momentum else 3 * system.n_atoms

    def required(self, system: System, state: MDState, noise: Tensor | None) -> Float[Tensor, "replica ..."]:
        """The noise of a step.

        Raises:
            ValueError: there is none, or it has another shape.
        """
        return required_noise(self, system, state, noise)


def required_noise(
    integrator: Integrator, system: System, state: MDState, noise: Tensor | None
) -> Float[Tensor, "replica ..."]:
    """`BaseIntegrator.required` of any integrator."""
    shape = (state.n_replicas, *(integrator.noise_shape(system) or ()))
    if noise is None or noise.shape != shape:
        found = "none was given" if noise is None else f"the given ones have the shape {tuple(noise.shape)}"
        raise ValueError(f"{type(integrator).__name__}: a step needs normal numbers of the shape {shape}, but {found}")
    return noise


@dataclass(frozen=True)
class SplitIntegrator(BaseIntegrator):
    """An integrator whose step has a part before the new forces and one after them, so that a barostat fits between."""

    def step(
        self, system: System, potential: Potential, state: MDState, noise: Float[Tensor, "replica ..."] | None = None
    ) -> MDState:
        """The state one time step later, with standard normal numbers of the shape `noise_shape` for each replica."""
        moved = self.before_forces(system, state, noise)
        energy, forces = potential(moved.positions)
        return self.after_forces(system, replace(moved, energy=energy, forces=forces))

    @abstractmethod
    def before_forces(
        self, system: System, state: MDState, noise: Float[Tensor, "replica ..."] | None = None
    ) -> MDState:
        """The part of a step up to the new positions. Energies and forces remain those of the old ones."""

    @abstractmethod
    def after_forces(self, system: System, state: MDState) -> MDState:
        """The part of a step that follows the evaluation of energies and forces."""
