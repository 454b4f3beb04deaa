"""What a force field, an integrator, an observable and a stability criterion are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch

from mdsim.state import MDState, System, Trajectory
from mdsim.typing import Bool, Float, Tensor

#: Positions of all replicas (Å) to their energies (eV) and forces (eV/Å). That is all an integrator needs to know.
Potential = Callable[[Tensor], tuple[Tensor, Tensor]]


@runtime_checkable
class Integrator(Protocol):
    """One step of the equations of motion of all replicas. Steps are pure: they return a new state.

    Where the potential is differentiable, so is the step: with respect to positions, velocities and parameters.
    """

    @property
    def timestep_fs(self) -> float: ...

    def init(
        self,
        system: System,
        potential: Potential,
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
    ) -> MDState:
        """The state from which steps begin: with forces, and the thermostat at rest."""
        ...

    def step(self, system: System, potential: Potential, state: MDState, generator: torch.Generator | None) -> MDState:
        """The state one time step later."""
        ...

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """The quantity in eV that the dynamics conserves (deterministic ones), or the total energy."""
        ...

    def degrees_of_freedom(self, system: System) -> int:
        """Momenta free to move, for temperatures."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A quantity of a trajectory: structural ones per frame and replica, dynamical ones per replica."""

    @property
    def name(self) -> str: ...

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "*axes bin"]: ...


@runtime_checkable
class BinnedObservable(Observable, Protocol):
    """A structural observable with a density in each of its bins."""

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]: ...


@runtime_checkable
class CorrelationFunction(Observable, Protocol):
    """A dynamical observable with one value for each lag."""

    def lags_fs(self, trajectory: Trajectory) -> Float[Tensor, "lag"]:
        """The lags in fs, from zero, that the frames of a trajectory allow."""
        ...


@runtime_checkable
class LocalObservable(BinnedObservable, Protocol):
    """A structural observable that is a mean of contributions of molecules, as the local estimator needs it."""

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """What each molecule contributes; the mean over molecules is the observable of the frame."""
        ...


@runtime_checkable
class StabilityCriterion(Protocol):
    """Says which frames of which replicas are no longer physical. Non-finite frames are always unstable."""

    @property
    def name(self) -> str: ...

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]: ...
