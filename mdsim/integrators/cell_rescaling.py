"""Stochastic cell rescaling: constant temperature and pressure by a first-order barostat, on top of any thermostat.

The lengths of the cell are divided into groups that scale together: all three, the plane and its normal, or each axis.
With ε the logarithm of the product of the n lengths of a group,

    dε = n/3 · β/τ · (P - P₀ + c kT/V) dt + √(n/3 · 2 kT β / (V τ)) dW

samples the isothermal-isobaric distribution exp(-(U + K + P₀ V)/kT), with a flat measure of the lengths. P is the mean
over the axes of the group of the instantaneous pressure, which contains the kinetic energy. c is 1 if the total
momentum is zero, so that the kinetic energy is that of N - 1 atoms, and 0 if all momenta are thermal. Positions and
cell are scaled by exp(Δε/n) and velocities by its inverse, after the last drift of a step and before the forces.

The drift follows from the density of ε at fixed scaled positions and momenta. It is that of the lengths times their
product, and its logarithm has the derivative (P - P₀) V/kT + c + 1. The drift is this derivative times the diffusion
coefficient D = n/3 · kT β/(V τ), plus ∂D/∂ε = -D, since the noise depends on the volume (Itô).

| symbol | variable                                   |
|--------|--------------------------------------------|
| ε      | `change`, its increment in a step          |
| β      | `compressibility_per_bar`                  |
| τ      | `relaxation_time_fs`                       |
| P₀     | `state.pressure`, or else `pressure_bar`   |
| kT     | `state.kT`, or else that of `thermostat`   |

References:
    Bernetti, Bussi, J. Chem. Phys. 153, 114107 (2020).
    Del Tatto, Raiteri, Bernetti, Bussi, Appl. Sci. 12, 1139 (2022), for cells that do not scale isotropically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from mdsim.geometry import volume
from mdsim.integrators.barostat import GROUPS, Barostat, cell_of, pressure_tensor
from mdsim.integrators.base import required_noise
from mdsim.state import MDState, System
from mdsim.typing import Float, Tensor
from mdsim.units import BAR


@dataclass(frozen=True)
class StochasticCellRescaling(Barostat):
    """Constant temperature and pressure by stochastic cell rescaling. One evaluation of forces and stress per step.

    Args:
        thermostat: keeps the temperature, and sets the time step.
        pressure_bar: external pressure, bar, on replicas without one of their own (`MDState.pressure`).
        relaxation_time_fs: τ, fs. A thousand time steps or more. Longer times disturb the dynamics less.
        compressibility_per_bar: β, an estimate of the isothermal compressibility, 1/bar. It matters only as β/τ.
        scaling: "isotropic", "semi_isotropic" (the x-y plane and z) or "anisotropic" (each axis).
    """

    relaxation_time_fs: float = 1000.0
    compressibility_per_bar: float = 4.5e-5
    scaling: str = "isotropic"

    positive: ClassVar[tuple[str, ...]] = ("relaxation_time_fs", "compressibility_per_bar")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scaling not in GROUPS:
            names = ", ".join(GROUPS)
            raise ValueError(f"StochasticCellRescaling: scaling must be one of {names}, but it is {self.scaling!r}")

    def noise_shape(self, system: System) -> tuple[int, ...]:
        """The numbers of the thermostat, then one for each group of axes."""
        return (_count(self.thermostat.noise_shape(system)) + len(GROUPS[self.scaling]),)

    def before_forces(
        self, system: System, state: MDState, noise: Float[Tensor, "replica number"] | None = None
    ) -> MDState:
        """The part of the thermostat, then the scaling."""
        noise, shape = required_noise(self, system, state, noise), self.thermostat.noise_shape(system)
        of_thermostat = None if shape is None else noise[:, : _count(shape)].unflatten(1, shape)
        moved = self.thermostat.before_forces(system, state, of_thermostat)
        scale = self._scale(system, state, noise[:, _count(shape) :])[:, None]
        positions, velocities = moved.positions * scale, moved.velocities / scale
        return replace(moved, positions=positions, velocities=velocities, cell=cell_of(state) * scale)

    def after_forces(self, system: System, state: MDState) -> MDState:
        """The part of the thermostat."""
        return self.thermostat.after_forces(system, state)

    def _scale(
        self, system: System, state: MDState, noise: Float[Tensor, "replica group"]
    ) -> Float[Tensor, "replica 3"]:
        """The factor on each length."""
        rate = self.compressibility_per_bar / BAR * self.timestep_fs / self.relaxation_time_fs  # β Δt/τ, Å³/eV
        pressures = torch.diagonal(pressure_tensor(system, state), dim1=-2, dim2=-1)
        thermal = self.kT_of(state) / volume(cell_of(state))
        offset = thermal if self.conserves_momentum else 0.0
        scales = []
        for number, axes in enumerate(GROUPS[self.scaling]):
            n = len(axes)
            drift = n / 3 * rate * (pressures[:, axes[0] : axes[-1] + 1].mean(1) - self.pressure_of(state) + offset)
            change = torch.addcmul(drift, torch.sqrt(thermal), noise[:, number], value=math.sqrt(n / 3 * 2 * rate))
            scales += n * [torch.exp(change / n)]
        return torch.stack(scales, dim=1)


def _count(shape: tuple[int, ...] | None) -> int:
    return 0 if shape is None else math.prod(shape)
