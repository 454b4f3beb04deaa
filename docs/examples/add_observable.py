"""A custom observable: the distribution of one torsion angle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import minimum_image
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import tuple_histogram
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class DihedralDistribution:
    """Probability density in 1/degree of the torsion angle i-j-k-l, over -180 to 180 degrees.

    Args:
        atoms: indices of i, j, k and l.
        bin_width_deg: width of a bin, which must divide 360 degrees.

    Raises:
        ValueError: not four atoms, or a width that does not divide 360 degrees.
    """

    atoms: tuple[int, int, int, int]
    bin_width_deg: float = 5.0

    unit: ClassVar[str] = "degree"

    def __post_init__(self) -> None:
        if len(set(self.atoms)) != 4:
            raise ValueError(f"a torsion angle has four atoms, found {list(self.atoms)}")
        Bins.spanning(-180.0, 180.0, self.bin_width_deg)

    @property
    def name(self) -> str:  # name of the results in final_metrics.json, the .npy files and the figure
        return "dihedral_" + "_".join(map(str, self.atoms))

    @property
    def bins(self) -> Bins:
        return Bins.spanning(-180.0, 180.0, self.bin_width_deg)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density of each frame. NaN for frames with a coordinate that is not finite."""
        positions = trajectory.positions
        quadruplet = torch.tensor([list(self.atoms)], device=positions.device)
        return tuple_histogram(dihedrals_deg, positions, quadruplet, system.cell, self.bins) / self.bins.width


def dihedrals_deg(
    positions: Float[Tensor, "*batch atom 3"],
    quadruplets: Int[Tensor, "quadruplet 4"],
    cell: Float[Tensor, "3 3"] | None,
) -> Float[Tensor, "*batch quadruplet"]:
    """Torsion angles in degrees with the sign of IUPAC: 0 is cis, positive is clockwise along j-k."""
    i, j, k, end = (positions[..., column, :] for column in quadruplets.T)
    first, axis, last = (minimum_image(to - start, cell) for start, to in ((i, j), (j, k), (k, end)))
    normal = torch.linalg.cross(axis, last)
    sine = torch.linalg.vector_norm(axis, dim=-1) * (first * normal).sum(-1)
    cosine = (torch.linalg.cross(first, axis) * normal).sum(-1)
    return torch.rad2deg(torch.atan2(sine, cosine))
