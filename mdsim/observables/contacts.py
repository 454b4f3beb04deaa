"""Closest contact between molecules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import all_pairs, pair_distances
from mdsim.observables.histogram import VALUES_PER_CHUNK
from mdsim.observables.tuples import map_in_chunks
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class MinimumDistance:
    """Shortest minimum-image distance in Å between atoms of different molecules."""

    name: ClassVar[str] = "minimum_distance"
    unit: ClassVar[str] = "Å"

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica 1"]:
        """The distance in Å, for each frame and replica; NaN for frames with a coordinate that is not finite.

        Raises:
            ValueError: the system is a single molecule.
        """
        pairs = all_pairs(system.n_atoms, system.molecules.device)
        molecule = system.molecules[pairs]
        pairs = pairs[molecule[:, 0] != molecule[:, 1]]
        if len(pairs) == 0:
            raise ValueError(
                f"the system is a single molecule of {system.n_atoms} atoms: there is no distance between molecules"
            )

        def closest(rows: Tensor, some_pairs: Tensor) -> Tensor:
            return pair_distances(rows, some_pairs, system.cell).amin(-1)

        blocks = map_in_chunks(closest, trajectory.positions.flatten(0, 1), pairs, VALUES_PER_CHUNK)
        return torch.stack(blocks).amin(0).unflatten(0, trajectory.positions.shape[:2]).unsqueeze(-1)
