"""Bonded restraint: a prior that holds a molecule together, flat within the reference data and harmonic outside.

It serves as a control for learning, or as a stopgap for a stable trajectory. It needs a fixed bond graph, restrains
only the listed bonds and angles, and prevents reactions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.geometry import minimum_image, outer, pair_distances
from mdsim.observables.adf import bonded_triplets
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True, eq=False)
class BondedRestraint:
    """A `Potential` with the energy ½ Σ k d² over bonds and 1-3 distances, where d is the distance outside the range.

    Args:
        pairs: atoms at the ends of a bond or of an angle.
        lower_A, upper_A: range of each distance without restraint, Å.
        stiffness: k of each pair, eV/Å².
        cell: lattice vectors as rows, Å. None for open boundaries.
    """

    pairs: Int[Tensor, "pair 2"]
    lower_A: Float[Tensor, "pair"]
    upper_A: Float[Tensor, "pair"]
    stiffness: Float[Tensor, "pair"]
    cell: Float[Tensor, "3 3"] | None = None

    @classmethod
    def from_frames(
        cls, system: System, positions: Float[Tensor, "frame atom 3"], kT: float, margin_A: float
    ) -> BondedRestraint:
        """Ranges and stiffness from reference frames at equilibrium.

        Args:
            system: its bonds and the angles between them are restrained.
            positions: Å, on any device.
            kT: thermal energy of the frames in eV. The stiffness is that of a harmonic well with their variance.
            margin_A: margin added to both ends of the range in the frames, Å.
        """
        triplets = bonded_triplets(system)
        pairs = torch.cat([system.bonds, triplets[:, [0, 2]]]).sort(dim=1).values.unique(dim=0)
        if not len(pairs) or len(positions) < 2:
            raise ValueError(
                f"found {len(pairs)} bonded pairs in {len(positions)} frames, but ranges need one pair and two frames"
            )
        distances = pair_distances(positions.to(pairs.device).double(), pairs, system.cell)
        lower, upper = distances.amin(0) - margin_A, distances.amax(0) + margin_A
        lower, upper, stiffness = (x.to(system.masses) for x in (lower, upper, kT / distances.var(0)))
        return cls(pairs, lower, upper, stiffness, system.cell)

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV) and forces (eV/Å)."""
        return self._evaluate(positions, self.cell)[:2]

    def in_cells(
        self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
        """Energies (eV), forces (eV/Å) and virials (eV) in moving cells (Å)."""
        return self._evaluate(positions, cells)

    def _evaluate(self, positions: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        first, second = self.pairs.unbind(1)
        displacements = minimum_image(positions[:, second] - positions[:, first], cell)
        distances = torch.linalg.vector_norm(displacements, dim=-1)
        outside = (distances - self.upper_A).clamp(min=0) - (self.lower_A - distances).clamp(min=0)
        energy = 0.5 * (self.stiffness * outside.square()).sum(-1)
        pull = (self.stiffness * outside / distances)[..., None] * displacements
        forces = torch.zeros_like(positions).index_add(1, first, pull).index_add(1, second, -pull)
        return energy, forces, outer(displacements, pull).sum(1)
