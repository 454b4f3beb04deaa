"""Observables of the frames of all replicas, each rank computing those of its share of the replicas."""

from __future__ import annotations

from collections.abc import Callable

from mdsim import distributed
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor


def by_rank(
    observable: Callable[[System, Trajectory], Tensor], system: System, trajectory: Trajectory
) -> Float[Tensor, "frame replica ..."]:
    """A structural observable of all frames and replicas."""
    if distributed.n_ranks() == 1:
        return observable(system, trajectory)
    mine = distributed.share_of_equals(trajectory.n_replicas, trajectory.positions.device)
    return distributed.gathered(observable(system, trajectory.replicas(mine)), trajectory.n_replicas, dim=1)
