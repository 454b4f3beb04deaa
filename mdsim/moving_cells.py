"""Potentials of replicas whose cells move: energies, forces and stresses, for barostats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from mdsim.force_field import FAST_TOLERANCE, ForceField, InGroups, NoFastPath, announce
from mdsim.geometry import volume
from mdsim.interfaces import CellPotential, Potential
from mdsim.neighbors import MovingCellList, Neighbors
from mdsim.state import System
from mdsim.stress import atomic_energies_forces_virial
from mdsim.typing import Float, Tensor

#: A replica whose cell shrinks below this fraction of its volume, or grows above the inverse, is lost: its results are
#: NaN. A shrinking cell has ever more neighbors, which would exhaust the memory of all.
SMALLEST_VOLUME = 0.2

#: Energies (eV), forces (eV/Å) and virials (eV) at positions and in cells (Å).
InCells = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def bind_in_cells(
    force_field: ForceField,
    system: System,
    differentiable: bool = False,
    skin: float = 0.5,
    fast: bool = False,
    tolerance: float = FAST_TOLERANCE,
    prior: Potential | None = None,
) -> CellPotential:
    """The potential of a system whose replicas have moving cells, with its own neighbor list.

    Args:
        force_field: energies must depend on the pairs of `neighbors`, not on `System.cell`.
        system: the system to simulate, with the cell in which simulations start.
        differentiable, skin, fast, tolerance: see `ForceField.bind`.
        prior: added to the force field.

    Raises:
        ValueError: the boundaries are open, or the prior has no stress.
    """
    if system.cell is None:
        raise ValueError("a system with open boundaries has no volume, and so no pressure: give it a cell")
    force_field.check_species(system)
    faster = _fast(force_field, system, tolerance) if fast and not differentiable else None
    parts = [_plain(force_field, system, differentiable, skin) if faster is None else faster]
    if prior is not None:
        of_prior = getattr(prior, "in_cells", None)
        if of_prior is None:
            raise ValueError(f"the prior {type(prior).__name__} has no stress, which a barostat needs")
        parts.append(of_prior)
    return partial(_sum_of, parts, float(volume(system.cell)))


def _sum_of(
    parts: list[InCells],
    start_A3: float,
    positions: Float[Tensor, "replica atom 3"],
    cells: Float[Tensor, "replica 3 3"],
) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
    """Energies, forces and stresses. They are NaN for a replica whose cell has collapsed or flown apart."""
    volumes = volume(cells)
    lost = ~((volumes > SMALLEST_VOLUME * start_A3) & (volumes < start_A3 / SMALLEST_VOLUME))
    some = torch.where(lost[:, None, None], torch.nan, cells)
    energies, forces, virials = (sum(of_all) for of_all in zip(*(part(positions, some) for part in parts), strict=True))
    energy = torch.where(lost, torch.nan, energies)
    stress = torch.where(lost[:, None, None], torch.nan, virials / volumes[:, None, None])
    return energy, torch.where(lost[:, None, None], torch.nan, forces), stress


def _fast(force_field: ForceField, system: System, tolerance: float) -> InCells | None:
    """The faster path with virials, if there is one."""
    name = type(force_field).__name__
    try:
        faster = force_field.fast_potential(system, tolerance)
        in_cells = getattr(faster, "in_cells", None)
        if in_cells is None:
            raise NoFastPath("it has no stress, which a barostat needs")
    except NoFastPath as reason:
        announce(f"forces of {name}: plain path, no faster one: {reason}")
        return None
    announce(f"forces and stress of {name}: {getattr(faster, 'description', 'fast path')}")
    return in_cells


def _plain(force_field: ForceField, system: System, differentiable: bool, skin: float) -> InCells:
    """The path by automatic differentiation."""
    model = force_field if differentiable else force_field.frozen_copy()
    neighbor_list = MovingCellList(system, force_field.cutoff, skin)

    def evaluate(listed: Neighbors, positions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs = listed.in_cells(cells, system.n_atoms)
        found = atomic_energies_forces_virial(model, system, positions, pairs, create_graph=differentiable)
        return found[0].sum(-1), *found[1:]

    function = evaluate if differentiable else InGroups(evaluate)  # no groups for a graph, which is kept anyway
    return lambda positions, cells: neighbor_list.evaluate_in_cells(
        positions, cells, lambda listed: function(listed, positions, cells)
    )
