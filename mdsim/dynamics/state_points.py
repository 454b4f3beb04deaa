"""State points: replicas of one batch are divided evenly among conditions, and begin from structures of their own.

A replica carries its state point as `MDState.kT` and, where state points have pressures, `MDState.pressure`, which all
selections and assignments of replicas keep. With a single state point, the state has neither, and those of the
integrator hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.force_field import ForceField
from mdsim.state import MDState, System
from mdsim.typing import Bool, Float, Tensor
from mdsim.units import BAR, KB_EV_PER_K, kT_eV

RESOLUTION = 1e-4  # relative difference of temperatures or pressures below which they are the same


@dataclass(frozen=True)
class Conditions:
    """A temperature (K), and a pressure (bar) where state points have one each."""

    temperature_K: float
    pressure_bar: float | None = None

    @property
    def label(self) -> str:
        """Name of a state point in logs, results and folders, such as 300K or 300K_1000bar."""
        kelvin = f"{self.temperature_K:g}K"
        return kelvin if self.pressure_bar is None else f"{kelvin}_{self.pressure_bar:g}bar"

    def among(self, kT: Float[Tensor, "item"], pressure: Float[Tensor, "item"] | None) -> Bool[Tensor, "item"]:
        """Which of some items are at these conditions, within the precision of their type.

        Args:
            kT: thermal energy of each, eV.
            pressure: pressure on each, eV/Å³, where state points have one.
        """
        here = (kT / kT_eV(self.temperature_K) - 1).abs() < RESOLUTION
        if pressure is None or self.pressure_bar is None:
            return here
        return here & ((pressure / BAR - self.pressure_bar).abs() < RESOLUTION * max(abs(self.pressure_bar), 1.0))


def conditions_among(kT: Float[Tensor, "item"], pressure: Float[Tensor, "item"] | None) -> list[Conditions]:
    """The state points at which some items are, by increasing temperature and pressure."""
    if pressure is None:
        return [Conditions(one / KB_EV_PER_K) for one in kT.unique().tolist()]
    pairs = torch.stack([kT, pressure.to(kT)], dim=1).unique(dim=0).tolist()
    return [Conditions(one / KB_EV_PER_K, each / BAR) for one, each in pairs]


@dataclass(frozen=True, eq=False)
class StatePoint:
    """Conditions, and the structures (Å) that replicas begin from, in a cell (rows, Å) or in that of the system."""

    conditions: Conditions
    structures: Float[Tensor, "structure atom 3"]
    cell: Float[Tensor, "3 3"] | None = None


def begin(
    points: Sequence[StatePoint], n_replicas: int, force_field: ForceField, stretch: Stretch, generator: torch.Generator
) -> MDState:
    """The initial state of replicas divided evenly among state points, in consecutive shares."""
    if len(points) == 1:
        return _begin(points, None, None, n_replicas, force_field, stretch, generator)
    own = torch.arange(n_replicas) * len(points) // n_replicas
    kT = torch.tensor([kT_eV(point.conditions.temperature_K) for point in points], dtype=torch.float64)[own]
    bars = [point.conditions.pressure_bar for point in points]
    pressure = None if None in bars else torch.tensor(bars, dtype=torch.float64)[own] * BAR
    return _begin(points, kT, pressure, n_replicas, force_field, stretch, generator)


def begin_again(
    points: Sequence[StatePoint],
    replicas: MDState,
    force_field: ForceField,
    stretch: Stretch,
    generator: torch.Generator,
) -> MDState:
    """A new initial state of replicas, each at its state point."""
    return _begin(points, replicas.kT, replicas.pressure, replicas.n_replicas, force_field, stretch, generator)


def _begin(
    points: Sequence[StatePoint],
    kT: Float[Tensor, "replica"] | None,
    pressure: Float[Tensor, "replica"] | None,
    n_replicas: int,
    force_field: ForceField,
    stretch: Stretch,
    generator: torch.Generator,
) -> MDState:
    system = stretch.system
    if kT is None:
        (point,) = points
        drawn = initial_conditions(system, point.structures, n_replicas, point.conditions.temperature_K, generator)
        cells = None if point.cell is None else point.cell.to(system.masses).repeat(n_replicas, 1, 1)
        return stretch.begin(force_field, *drawn, cells=cells)
    positions = system.masses.new_full((n_replicas, system.n_atoms, 3), torch.nan)
    velocities, cells = positions.clone(), _cells_of_system(system, n_replicas, points)
    for point in points:
        here = point.conditions.among(kT, pressure).to(positions.device)
        if n_here := int(here.sum()):
            drawn = initial_conditions(system, point.structures, n_here, point.conditions.temperature_K, generator)
            positions[here], velocities[here] = drawn
            if cells is not None and point.cell is not None:
                cells[here] = point.cell.to(cells)
    if bool(torch.isnan(velocities).any()):
        known = ", ".join(point.conditions.label for point in points)
        found = ", ".join(one.label for one in conditions_among(kT, pressure))
        raise ValueError(f"replicas are at {found}, but the state points are {known}")
    return stretch.begin(force_field, positions, velocities, kT, pressure, cells)


def _cells_of_system(
    system: System, n_replicas: int, points: Sequence[StatePoint]
) -> Float[Tensor, "replica 3 3"] | None:
    """The cell of the system for each replica, if state points have cells of their own."""
    if system.cell is None or all(point.cell is None for point in points):
        return None
    return system.cell.repeat(n_replicas, 1, 1)


def by_state_point(
    name: str, state: MDState, values: Float[Tensor, "replica"] | Bool[Tensor, "replica"]
) -> dict[str, float]:
    """The mean of a number of each replica at each state point, by name; empty for a single state point."""
    if state.kT is None:
        return {}
    return {
        f"{name}_{point.label}": float(values.double()[point.among(state.kT, state.pressure)].mean())
        for point in conditions_among(state.kT, state.pressure)
    }
