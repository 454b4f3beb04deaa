"""Structure factor of an open system by the Debye formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdsim.geometry import pair_distances
from mdsim.observables.histogram import VALUES_PER_CHUNK
from mdsim.observables.pairs import PairKind
from mdsim.observables.structure_factor import Pair, StructureFactor, per_ordered_pair
from mdsim.observables.tuples import map_in_chunks
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class DebyeStructureFactor(StructureFactor):
    """Structure factor of isolated molecules or clusters, averaged over all orientations:

        S_ab(q) = 1 + N / (N_a N_b) Σ_{i in a, j in b, j ≠ i} sin(q r_ij) / (q r_ij)

    It includes forward scattering, so that the total at q = 0 is N. Source: Debye, Ann. Phys. 351, 809 (1915).

    Args:
        all: see `StructureFactor`.
    """

    def _excesses(
        self, system: System, trajectory: Trajectory, pairs: Sequence[Pair]
    ) -> list[Float[Tensor, "frame replica bin"]]:
        if system.cell is not None:
            raise ValueError(
                "the Debye formula is for open boundaries, but the system has a cell: use FourierStructureFactor or "
                "DirectStructureFactor"
            )
        rows = trajectory.positions.flatten(0, 1)
        q = self.bin_centers.to(rows) / math.pi  # torch.sinc(x) is sin(πx) / (πx)
        excesses = []
        for pair in pairs:
            blocks = map_in_chunks(
                lambda some, tuples, _: torch.sinc(pair_distances(some, tuples)[..., None] * q).sum(-2),
                *(rows, PairKind(pair).all_of(system), None, max(1, VALUES_PER_CHUNK // len(q))),
            )
            ordered = (2 if pair[0] == pair[1] else 1) * per_ordered_pair(system, pair)
            excesses.append(ordered * torch.stack(blocks).sum(0).unflatten(0, trajectory.positions.shape[:2]))
        return excesses
