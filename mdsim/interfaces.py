"""Interfaces of potentials, integrators, observables and stability criteria."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from mdsim.state import MDState, System, Trajectory
from mdsim.typing import Bool, Float, Tensor

#: Maps positions of all replicas (Å) to their energies (eV) and forces (eV/Å). Integrators need nothing else.
Potential = Callable[[Tensor], tuple[Tensor, Tensor]]

#: Maps positions and cells of all replicas (Å) to their energies (eV), forces (eV/Å) and stresses (eV/Å³), with ASE's
#: sign: derivatives of the energy with respect to strain, per volume. A barostat needs it in place of `Potential`.
CellPotential = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@runtime_checkable
class Integrator(Protocol):
    """Time stepping of all replicas. Steps are pure functions that return a new state.

    If the potential is differentiable, so is the step, with respect to positions, velocities and parameters. The
    potential is a `Potential`, or a `CellPotential` for an integrator that moves the cells.
    """

    @property
    def timestep_fs(self) -> float: ...

    def init(
        self,
        system: System,
        potential: Callable[..., Any],
        positions: Float[Tensor, "replica atom 3"],
        velocities: Float[Tensor, "replica atom 3"],
    ) -> MDState:
        """The initial state, with forces and with the thermostat at rest."""
        ...

    def noise_shape(self, system: System) -> tuple[int, ...] | None:
        """Shape of the normal numbers that a step needs for each replica; None for deterministic dynamics."""
        ...

    def step(
        self, system: System, potential: Callable[..., Any], state: MDState, noise: Tensor | None = None
    ) -> MDState:
        """The state one time step later, with standard normal numbers of that shape for each replica."""
        ...

    def conserved(self, system: System, state: MDState) -> Float[Tensor, "replica"]:
        """The conserved quantity of deterministic dynamics in eV, or otherwise the total energy."""
        ...

    def degrees_of_freedom(self, system: System) -> int:
        """Number of unconstrained momenta, for temperatures."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A quantity of a trajectory: per frame and replica if structural, per replica if dynamical."""

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
    """A dynamical observable with one value per lag."""

    def lags_fs(self, trajectory: Trajectory) -> Float[Tensor, "lag"]:
        """The lags in fs, from zero, that the frames of a trajectory allow."""
        ...


@runtime_checkable
class LocalObservable(BinnedObservable, Protocol):
    """A structural observable that is a mean over contributions of molecules, as needed by the local estimator."""

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule. The mean over molecules is the observable of the frame."""
        ...


@runtime_checkable
class StabilityCriterion(Protocol):
    """A mask of the frames and replicas that are unphysical. Non-finite frames are always unstable."""

    @property
    def name(self) -> str: ...

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]: ...
