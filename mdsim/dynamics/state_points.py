"""State points: replicas of one batch are divided evenly among temperatures, and begin from structures of their own.

A replica carries its state point as `MDState.kT`, which all selections and assignments of replicas keep. With a single
state point, the state has no kT, and that of the integrator holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.force_field import ForceField
from mdsim.state import MDState
from mdsim.typing import Bool, Float, Tensor
from mdsim.units import KB_EV_PER_K, kT_eV

RESOLUTION = 1e-4  # relative difference of temperatures below which they are the same


@dataclass(frozen=True, eq=False)
class StatePoint:
    """A temperature (K), and the structures (Å) that its replicas begin from."""

    temperature_K: float
    structures: Float[Tensor, "structure atom 3"]


def label(temperature_K: float) -> str:
    """Name of a state point in logs, results and folders, such as 300K."""
    return f"{temperature_K:g}K"


def at_kT(values: Float[Tensor, "item"], kT: float) -> Bool[Tensor, "item"]:
    """Which of some thermal energies are those of a state point, within the precision of their type."""
    return (values / kT - 1).abs() < RESOLUTION


def begin(
    points: Sequence[StatePoint], n_replicas: int, force_field: ForceField, stretch: Stretch, generator: torch.Generator
) -> MDState:
    """The initial state of replicas divided evenly among state points, in consecutive shares."""
    if len(points) == 1:
        return _begin(points, None, n_replicas, force_field, stretch, generator)
    own = torch.arange(n_replicas) * len(points) // n_replicas
    kT = torch.tensor([kT_eV(point.temperature_K) for point in points], dtype=torch.float64)[own]
    return _begin(points, kT, n_replicas, force_field, stretch, generator)


def begin_again(
    points: Sequence[StatePoint],
    replicas: MDState,
    force_field: ForceField,
    stretch: Stretch,
    generator: torch.Generator,
) -> MDState:
    """A new initial state of replicas, each at its state point."""
    return _begin(points, replicas.kT, replicas.n_replicas, force_field, stretch, generator)


def _begin(
    points: Sequence[StatePoint],
    kT: Float[Tensor, "replica"] | None,
    n_replicas: int,
    force_field: ForceField,
    stretch: Stretch,
    generator: torch.Generator,
) -> MDState:
    system = stretch.system
    if kT is None:
        (point,) = points
        drawn = initial_conditions(system, point.structures, n_replicas, point.temperature_K, generator)
        return stretch.begin(force_field, *drawn)
    positions = system.masses.new_full((n_replicas, system.n_atoms, 3), torch.nan)
    velocities = positions.clone()
    for point in points:
        here = at_kT(kT, kT_eV(point.temperature_K)).to(positions.device)
        if n_here := int(here.sum()):
            drawn = initial_conditions(system, point.structures, n_here, point.temperature_K, generator)
            positions[here], velocities[here] = drawn
    if bool(torch.isnan(velocities).any()):
        known = ", ".join(label(point.temperature_K) for point in points)
        found = ", ".join(label(float(one) / KB_EV_PER_K) for one in kT.unique())
        raise ValueError(f"replicas are at {found}, but the state points are {known}")
    return stretch.begin(force_field, positions, velocities, kT)


def by_state_point(
    name: str, state: MDState, values: Float[Tensor, "replica"] | Bool[Tensor, "replica"]
) -> dict[str, float]:
    """The mean of a number of each replica at each state point, by name; empty for a single state point."""
    if state.kT is None:
        return {}
    means = {float(kT): float(values.double()[at_kT(state.kT, float(kT))].mean()) for kT in state.kT.unique()}
    return {f"{name}_{label(kT / KB_EV_PER_K)}": mean for kT, mean in means.items()}
