"""Samples of earlier reruns, carried to the current parameters and added to those of the latest rerun.

Source: reweighting of trajectories as in Thaler & Zavadlav, Nature Communications 12, 6884 (2021). The effective number
of samples is Kish's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, compress
from typing import Any

import torch

from mdsim.estimator.neighborhoods import Neighborhoods
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.state import Trajectory
from mdsim.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True, eq=False)
class Rerun:
    """What the samples of one rerun do not share with those of others. Attributes as in `Samples`."""

    positions: Float[Tensor, "structure atom 3"]
    energy: Float[Tensor, "sample"]
    replica: Int[Tensor, "sample"]
    after_break: Bool[Tensor, "sample"]
    bath: float | Float[Tensor, "sample"]
    neighborhoods: Neighborhoods | None
    cells: Float[Tensor, "structure 3 3"] | None
    pressure: Float[Tensor, "sample"] | None

    @classmethod
    def of(cls, samples: Samples) -> Rerun:
        return cls(**{one.name: getattr(samples, one.name) for one in fields(cls)})

    def samples(self, like: Samples) -> Samples:
        """The samples again. What all reruns share is that of other samples."""
        cells = None if self.cells is None else self.cells[None]
        frames = Trajectory(self.positions[None], None, None, like.trajectory.frame_interval_fs, cells)
        mask = torch.ones(1, len(self.positions), dtype=torch.bool, device=self.positions.device)
        return replace(like, trajectory=frames, mask=mask, **vars(self), _values={}, _parent=None)

    def state_dict(self) -> dict[str, Any]:
        return vars(self) | {"neighborhoods": None if self.neighborhoods is None else vars(self.neighborhoods)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> Rerun:
        moved = _on(device, state)
        if state["neighborhoods"] is not None:
            moved["neighborhoods"] = Neighborhoods(**_on(device, state["neighborhoods"]))
        return cls(**moved)


def _on(device: torch.device, state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in state.items()}


@dataclass
class Replay:
    """The latest reruns, in addition to the present one.

    Each is reweighted to the current parameters by exp(-ΔU/kT), and counts as its effective number of samples. One
    whose effective fraction is too small is forgotten, because parameters only move away from those that made it.

    Attributes:
        n_reruns: largest number of earlier reruns. Zero: none.
        min_effective_fraction: smallest effective fraction of the samples of a rerun.
        kept: the reruns, the latest one last.
    """

    n_reruns: int = 0
    min_effective_fraction: float = 0.5
    kept: list[Rerun] = field(default_factory=list)

    def __call__(self, latest: Samples, force_field: ForceField) -> tuple[Samples, int]:
        """The samples of the latest rerun and of the earlier ones, and the number of structures evaluated for that."""
        if not self.n_reruns or not len(latest):
            return latest, 0
        evaluated = sum(len(rerun.positions) for rerun in self.kept)
        carried = [rerun.samples(latest).carried(force_field) for rerun in self.kept]
        useful = [self._is_useful(samples) for samples in carried]
        self.kept = [*compress(self.kept, useful), Rerun.of(latest)][-self.n_reruns :]
        return pooled([latest, *compress(carried, useful)]), evaluated

    def _is_useful(self, samples: Samples) -> bool:
        assert samples.carry is not None
        return float(samples.carry.sum()) >= self.min_effective_fraction * len(samples)

    def state_dict(self) -> list[dict[str, Any]]:
        return [rerun.state_dict() for rerun in self.kept]

    def load_state_dict(self, state: list[dict[str, Any]], device: torch.device) -> None:
        self.kept = [Rerun.from_state_dict(one, device) for one in state]


def pooled(parts: Sequence[Samples]) -> Samples:
    """Samples of several reruns together, each with replicas of its own. The first rerun sets what they share."""
    if len(parts) == 1:
        return parts[0]
    bath = parts[0].bath
    together = Rerun(
        torch.cat([part.positions for part in parts]),
        torch.cat([part.energy for part in parts]),
        torch.cat(_apart([part.replica for part in parts], [int(part.replica.max()) + 1 for part in parts])),
        torch.cat([part.after_break for part in parts]),
        bath if isinstance(bath, float) else torch.cat([part.bath for part in parts if isinstance(part.bath, Tensor)]),
        _pooled_neighborhoods(parts),
        _joined([part.cells for part in parts]),
        _joined([part.pressure for part in parts]),
    )
    carry = torch.cat([torch.ones_like(part.energy) if part.carry is None else part.carry for part in parts])
    return replace(together.samples(parts[0]), carry=carry)


def _joined(values: Sequence[Tensor | None]) -> Tensor | None:
    """A field of all reruns, which all have it or none."""
    known = [value for value in values if value is not None]
    return torch.cat(known) if known else None


def _pooled_neighborhoods(parts: Sequence[Samples]) -> Neighborhoods | None:
    drawn = [part.neighborhoods for part in parts if part.neighborhoods is not None]
    if not drawn:
        return None
    return Neighborhoods(
        torch.cat(_apart([one.frames for one in drawn], [len(part.positions) for part in parts])),
        torch.cat([one.molecules for one in drawn]),
        torch.cat([one.membership for one in drawn]),
        _joined([one.weights for one in drawn]),
    )


def _apart(indices: Sequence[Int[Tensor, "..."]], counts: Sequence[int]) -> list[Int[Tensor, "..."]]:
    """Indices of several groups, numbered one group after the other."""
    return [index + before for index, before in zip(indices, accumulate(counts, initial=0), strict=False)]
