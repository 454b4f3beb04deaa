"""Verdicts on the stability of replicas: the first unstable frame of each, and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mdsim.interfaces import StabilityCriterion
from mdsim.state import System, Trajectory
from mdsim.typing import Bool, Int

NON_FINITE = "non_finite"


@dataclass(frozen=True)
class Verdict:
    """When and why each replica broke."""

    first_frame: Int[Tensor, "replica"]  # the number of frames if the replica is stable throughout
    unstable: Bool[Tensor, "replica"]
    reason: tuple[str | None, ...]  # name of the criterion, `NON_FINITE`, or None if stable

    @property
    def fraction_unstable(self) -> float:
        return float(self.unstable.double().mean())


def first_unstable(criteria: Sequence[StabilityCriterion], system: System, trajectory: Trajectory) -> Verdict:
    """The first frame of each replica that is unstable by any criterion.

    Args:
        criteria: any number of criteria. Non-finite frames are unstable even without criteria.
        system: the system of the replicas.
        trajectory: their frames.

    Returns:
        First unstable frames and reasons. If several criteria fail in the same frame, non-finite numbers take
        precedence, followed by the criteria in order.
    """
    names = [NON_FINITE, *(criterion.name for criterion in criteria)]
    flags = [non_finite(trajectory), *(criterion(system, trajectory) for criterion in criteria)]
    broken = torch.stack(flags)  # criterion, frame, replica
    any_broken = broken.any(0)
    unstable = any_broken.any(0)
    first = any_broken.int().argmax(0)
    replica = torch.arange(trajectory.n_replicas, device=first.device)
    cause = broken[:, first, replica].int().argmax(0)
    pairs = zip(cause.tolist(), unstable.tolist(), strict=True)
    return Verdict(
        first_frame=torch.where(unstable, first, trajectory.n_frames),
        unstable=unstable,
        reason=tuple(names[index] if is_unstable else None for index, is_unstable in pairs),
    )


def non_finite(trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
    """Frames in which any position, velocity or energy is infinite or not a number."""
    finite = torch.isfinite(trajectory.positions).all(-1).all(-1)
    if trajectory.velocities is not None:
        finite = finite & torch.isfinite(trajectory.velocities).all(-1).all(-1)
    if trajectory.energy is not None:
        finite = finite & torch.isfinite(trajectory.energy)
    return ~finite
