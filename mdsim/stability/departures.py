"""Departures: the first time at which each replica leaves the support of the reference, and stays outside.

A frame is outside the support if any coordinate is outside its range. An excursion is a run of consecutive frames
outside. It becomes a departure when it has lasted a given number of frames, or when the replica breaks in it. The
departure is dated to the beginning of the excursion. Excursions that end earlier have no effect, and one that is still
open at the end of the simulation is undecided. A replica that breaks departs at its break at the latest.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from mdsim.payloads import Form, number, same, tensor
from mdsim.stability.support import Support
from mdsim.state import Trajectory
from mdsim.typing import Bool, Int, Tensor

FEWEST_SUSTAINED_FRAMES = 2
NONE = -1


class Departures:
    """Departures of all replicas of a simulation, stretch by stretch.

    Args:
        support: of the reference, on the device of the simulation.
        n_replicas: number of replicas.
        sustained_frames: frames after which an excursion is a departure.
    """

    def __init__(self, support: Support, n_replicas: int, sustained_frames: int) -> None:
        self.support = support
        self.sustained_frames = sustained_frames
        self.n_frames = 0  # followed so far
        self._inside_until = torch.zeros(n_replicas, dtype=torch.long)  # frames up to the last one inside
        self._counts = torch.zeros(n_replicas, len(support.names), dtype=torch.long)  # of the open excursion
        self._before = torch.full((n_replicas,), NONE)  # frames before the departure
        self._coordinate = torch.full((n_replicas,), NONE)

    @property
    def departed(self) -> Bool[Tensor, "replica"]:
        return self._before != NONE

    @property
    def frames_before(self) -> Int[Tensor, "replica"]:
        """Number of frames before the departure of each replica. -1 if it has not departed."""
        return self._before

    @property
    def coordinates(self) -> list[str | None]:
        """Name of the coordinate by which each replica departed.

        It is the one that is outside in most frames of the excursion, up to its confirmation. That is the first that
        left and did not return. None if the replica has not departed, or broke with all coordinates in their ranges.
        """
        names = self.support.names
        return [None if index == NONE else names[index] for index in self._coordinate.tolist()]

    def follow(
        self, alive: Int[Tensor, "moving"], trajectory: Trajectory, first_unstable: Int[Tensor, "moving"]
    ) -> None:
        """Judge the next frames of the replicas that move.

        Args:
            alive: indices of the replicas of the trajectory.
            trajectory: the frames of one stretch. What is outside is found on its device, and transferred once.
            first_unstable: first unstable frame of each, and the number of frames for the stable ones.
        """
        self._follow(alive, self.support.outside(trajectory).cpu(), first_unstable.cpu())
        self.n_frames += trajectory.n_frames

    def _follow(
        self,
        alive: Int[Tensor, "moving"],
        outside: Bool[Tensor, "frame moving coordinate"],
        first_unstable: Int[Tensor, "moving"],
    ) -> None:
        frame = torch.arange(len(outside))[:, None]
        breaks = frame == first_unstable
        inside = ~(outside.any(-1) | breaks)
        known = self._inside_until[alive]
        ends = torch.where(inside, self.n_frames + frame + 1, known)
        inside_until = ends.cummax(0).values
        lasted = self.n_frames + frame + 1 - inside_until
        departs = ((lasted >= self.sustained_frames) & (frame < first_unstable)) | breaks
        new = departs.any(0) & (self._before[alive] == NONE)
        last = torch.where(new, departs.int().argmax(0), len(outside) - 1)
        begin = inside_until.gather(0, last[None])[0]
        in_excursion = (self.n_frames + frame >= begin) & (frame <= last)
        counts = (outside & in_excursion[..., None]).sum(0)
        counts += torch.where(begin == known, 1, 0)[:, None] * self._counts[alive]
        most, coordinate = counts.max(-1)
        self._inside_until[alive], self._counts[alive] = begin, counts
        self._before[alive] = torch.where(new, begin, self._before[alive])
        self._coordinate[alive] = torch.where(new & (most > 0), coordinate, self._coordinate[alive])

    def state_dict(self) -> dict[str, Any]:
        """What the departures of the next stretches depend on."""
        return {
            "sustained_frames": self.sustained_frames,
            "n_frames": self.n_frames,
            "inside_until": self._inside_until,
            "counts": self._counts,
            "before": self._before,
            "coordinate": self._coordinate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        if bool((state["coordinate"] >= len(self.support.names)).any()):
            raise ValueError("departures.coordinate names more coordinates than the support has")
        self.n_frames = state["n_frames"]
        self._inside_until, self._counts = state["inside_until"].clone(), state["counts"].clone()
        self._before, self._coordinate = state["before"].clone(), state["coordinate"].clone()

    @property
    def form(self) -> Form:
        """The form of a saved state."""
        n_replicas, n_coordinates = self._counts.shape
        per_replica = tensor(n_replicas, dtype=torch.long)
        return {
            "sustained_frames": same(self.sustained_frames),
            "n_frames": number(low=0, high=2**53, whole=True),
            "inside_until": per_replica,
            "counts": tensor(n_replicas, n_coordinates, dtype=torch.long),
            "before": per_replica,
            "coordinate": per_replica,
        }


def sustained_frames(sustained_ps: float, frame_interval_fs: float) -> int:
    """Number of consecutive frames outside that make a departure; at least two."""
    return max(FEWEST_SUSTAINED_FRAMES, math.ceil(1000 * sustained_ps / frame_interval_fs - 1e-9))
