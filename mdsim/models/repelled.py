"""Force fields with an analytic repulsion of nuclei besides what they learn."""

from __future__ import annotations

from functools import cache

import torch

from mdsim.force_field import FAST_TOLERANCE, ForceField, Together
from mdsim.interfaces import Potential
from mdsim.neighbors import Neighbors
from mdsim.repulsion.potential import RepulsionPotential
from mdsim.repulsion.zbl import ZBL
from mdsim.state import System
from mdsim.typing import Float, Tensor

FRAMES_AT_ONCE = 64


class Repelled(ForceField):
    """What a repulsion changes in a force field: a class in front of that of any model, see `add_repulsion`."""

    repulsion: ZBL

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV, learned and repulsive; they sum to the energy of the replica."""
        learned = super().atomic_energies(system, positions, neighbors)
        return learned + self.repulsion.atomic_energies(system, positions, neighbors)

    # Shortcuts of a model that bypass its atomic energies would bypass the repulsion. Those of `fast_potential` remain.
    energy = ForceField.energy
    forward = ForceField.forward
    bind = ForceField.bind

    def fast_potential(self, system: System, tolerance: float = FAST_TOLERANCE) -> Potential:
        """That of the model, and the repulsion beside it."""
        learned = super().fast_potential(system, tolerance)
        description = f"{getattr(learned, 'description', 'fast path')}, and a repulsion of nuclei"
        return Together(learned, RepulsionPotential(self.repulsion, system), description)

    def normalize_to(
        self,
        system: System,
        positions: Float[Tensor, "frame atom 3"],
        energy: Float[Tensor, "frame"],
        forces: Float[Tensor, "frame atom 3"],
    ) -> None:
        """Set constants from the labels without their repulsive part, which is left to be learned."""
        potential = RepulsionPotential(self.repulsion, system)
        batches = [potential(batch.to(system.masses)) for batch in positions.split(FRAMES_AT_ONCE)]
        repulsive, push = (torch.cat(parts) for parts in zip(*batches, strict=True))
        super().normalize_to(system, positions, energy - repulsive.to(energy), forces - push.to(forces))


def add_repulsion(model: ForceField, repulsion: ZBL) -> None:
    """Add a repulsion to a force field of any kind, in place.

    Its class is replaced by one that is derived from `Repelled` and from it, as `torch.nn.utils.parametrize` does. All
    energies and forces of the model then include the repulsion, and its parameters keep their names.

    Raises:
        ValueError: the model has a repulsion already, or this one reaches beyond its cutoff.
    """
    if model.repulsion is not None:
        raise ValueError("the force field has a repulsion already")
    if repulsion.reach_A > model.cutoff:
        raise ValueError(f"a repulsion up to {repulsion.reach_A:g} Å needs a larger cutoff than {model.cutoff:g} Å")
    kind: type = type(model)
    model.__class__ = _repelled(kind)
    model.repulsion = repulsion


@cache
def _repelled(kind: type) -> type:
    """The class in front of that of a model, under the same name."""
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (Repelled, kind), names)
