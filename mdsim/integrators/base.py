"""Base class of the integrators. A subclass adds its settings and its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.interfaces import Potential
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
    def step(self, system: System, potential: Potential, state: MDState, generator: torch.Generator | None) -> MDState:
        """The state one time step later."""

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """Total energy in eV. A thermostat does not conserve it."""
        return state.energy + kinetic_energy_eV(state.velocities, system.masses.to(state.velocities))

    def degrees_of_freedom(self, system: System) -> int:
        """Degrees of freedom that remain when the conserved momenta are zero; 3N if none are conserved."""
        return system.internal_degrees_of_freedom if self.conserves_momentum else 3 * system.n_atoms

    def noise(self, shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Standard normal numbers with the type and on the device of ``like``.

        Raises:
            ValueError: no generator is given.
        """
        if generator is None:
            raise ValueError(f"{type(self).__name__}: its noise needs a torch.Generator, but none was given")
        return torch.randn(tuple(shape), generator=generator, dtype=like.dtype, device=like.device)
