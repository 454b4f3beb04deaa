"""A custom stability criterion: a ring that is no longer flat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.datasets import Dataset
from mdsim.geometry import minimum_image
from mdsim.state import System, Trajectory
from mdsim.typing import Bool, Float, Tensor


@dataclass(frozen=True)
class PlanarityDeviation:
    """Calls a frame unstable if the root mean square distance of given atoms from their plane is too large.

    Args:
        atoms: indices of the atoms, four or more.
        tolerance_A: largest root mean square distance from the best plane of a stable molecule, Å.
    """

    atoms: tuple[int, ...]
    tolerance_A: float
    name: str = "planarity_deviation"  # the reported reason of a break

    def measure(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica"]:
        """Root mean square distance of the atoms from their best plane, Å. NaN if a coordinate is not finite."""
        ring = trajectory.positions[..., list(self.atoms), :]
        ring = minimum_image(ring - ring[..., :1, :], system.cell)
        centered = ring - ring.mean(-2, keepdim=True)
        finite = centered.isfinite().all(-1).all(-1)
        # The smallest singular value is the square root of the sum of squared distances from the best plane.
        out_of_plane = torch.linalg.svdvals(centered.nan_to_num(0.0, 0.0, 0.0))[..., -1] / len(self.atoms) ** 0.5
        return torch.where(finite, out_of_plane, torch.nan)

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        return ~(self.measure(system, trajectory) <= self.tolerance_A)  # NaN is not within the tolerance either


def planar_ring(system: System, dataset: Dataset, atoms: list[int], tolerance_A: float) -> PlanarityDeviation:
    """The factory: creates the criterion after a check that the reference data are stable by it.

    Raises:
        ValueError: the tolerance is smaller than what the training frames reach.
    """
    criterion = PlanarityDeviation(tuple(atoms), tolerance_A)
    frames = Trajectory(dataset.train.positions[:, None], None, None, frame_interval_fs=1.0)
    largest = float(criterion.measure(system, frames).max())
    if largest > tolerance_A:
        raise ValueError(f"tolerance_A = {tolerance_A}, but the training frames reach {largest:.3f} Å")
    return criterion
