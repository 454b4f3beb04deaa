"""Stability score of MLIPAudit for each replica.

The score is half the fraction of frames before an explosion; without one, a half plus half the fraction of frames
before a hydrogen atom is lost; without either, 1. As in that package, a replica explodes when its kinetic temperature
exceeds that of the bath by 10,000 K, rises a hundredfold between two frames, or is not a number. A hydrogen atom is
lost from the frame on from which it stays more than 2.5 Å away from all heavy atoms until the end.

Bonds come from covalent radii instead of a topology file, and the mean is over replicas of one structure instead of
several structures. MLIPAudit runs 100 ps at 300 K. Scores of other lengths and temperatures are not comparable with
its tables.

Source: MLIPAudit (InstaDeep), benchmark "stability".
"""

from __future__ import annotations

import torch

from mdsim.geometry import minimum_image
from mdsim.observables.histogram import VALUES_PER_CHUNK
from mdsim.state import System, Trajectory, kinetic_temperature_K
from mdsim.typing import Bool, Float, Int, Tensor

EXPLOSION_K, JUMP = 10_000.0, 100.0
LOST_A = 2.5


class StabilityScore:
    """Follows all replicas, stretch by stretch.

    Args:
        topology: its bonds say which hydrogen atoms are bonded to heavy atoms.
        n_replicas: number of replicas.
        degrees_of_freedom: of the kinetic temperature.
    """

    def __init__(self, topology: System, n_replicas: int, degrees_of_freedom: int) -> None:
        numbers, bonds = topology.atomic_numbers, topology.bonds
        mixed = bonds[(numbers[bonds] == 1).sum(-1) == 1]
        self.topology, self.degrees_of_freedom = topology, degrees_of_freedom
        self.hydrogens = torch.unique(mixed[numbers[mixed] == 1])
        self.heavy = torch.nonzero(numbers != 1)[:, 0]
        self.n_frames = 0
        self.exploded_at = torch.full((n_replicas,), -1)
        self._near_until = torch.zeros(n_replicas, len(self.hydrogens), dtype=torch.long)  # frames up to the last near
        self._last_K = torch.full((n_replicas,), torch.inf, dtype=torch.float64)

    @property
    def intact(self) -> Bool[Tensor, "replica"]:
        """Replicas that have not exploded."""
        return self.exploded_at < 0

    def follow(self, alive: Int[Tensor, "moving"], trajectory: Trajectory, bath_K: float) -> None:
        """Judge the next frames of the replicas that have not exploded.

        Args:
            alive: indices of the replicas of the trajectory.
            trajectory: their frames, with velocities.
            bath_K: temperature of the bath.
        """
        assert trajectory.velocities is not None
        velocities = trajectory.velocities.double()
        hot = kinetic_temperature_K(velocities, self.topology.masses.double(), self.degrees_of_freedom)
        before = torch.cat([self._last_K[alive][None], hot[:-1]])
        explodes = ~(hot <= bath_K + EXPLOSION_K) | (hot > JUMP * before)
        explodes |= ~torch.isfinite(trajectory.positions).all(-1).all(-1)
        now = explodes.any(0)
        self.exploded_at[alive] = torch.where(now, self.n_frames + explodes.int().argmax(0), -1)
        self._last_K[alive] = hot[-1]
        if len(self.hydrogens):
            frame = self.n_frames + 1 + torch.arange(trajectory.n_frames)[:, None, None]
            last = torch.where(self._near(trajectory), frame, 0).amax(0)
            self._near_until[alive] = torch.maximum(self._near_until[alive], last)
        self.n_frames += trajectory.n_frames

    def scores(self) -> Float[Tensor, "replica"]:
        """The score of each replica."""
        n = max(1, self.n_frames)
        kept = self._near_until.amin(-1) if len(self.hydrogens) else torch.full_like(self.exploded_at, n)
        return torch.where(self.intact, 0.5 + 0.5 * kept.double() / n, 0.5 * self.exploded_at.double() / n)

    def _near(self, trajectory: Trajectory) -> Bool[Tensor, "frame replica hydrogen"]:
        """Whether each bonded hydrogen atom has a heavy atom near it."""
        rows = trajectory.positions.flatten(0, 1)
        per_row = len(self.hydrogens) * len(self.heavy) * (1 if self.topology.cell is None else 27)
        near = [self._near_rows(some) for some in rows.split(max(1, VALUES_PER_CHUNK // max(1, per_row)))]
        return torch.cat(near).unflatten(0, trajectory.positions.shape[:2])

    def _near_rows(self, rows: Float[Tensor, "row atom 3"]) -> Bool[Tensor, "row hydrogen"]:
        arms = minimum_image(rows[:, self.hydrogens, None] - rows[:, None, self.heavy], self.topology.cell)
        return (arms.square().sum(-1) <= LOST_A**2).any(-1)
