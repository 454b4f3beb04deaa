"""Sizes of the checks that fit into a budget of time: fewer paths and shorter dynamics for slow force fields."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from mdsim.interfaces import Potential
from mdsim.typing import Float, Tensor

SCAN_SHARE, DRIFT_SHARE, DYNAMICS_SHARE = 0.2, 0.2, 0.6
LONGEST_PS, SHORTEST_PS = 10.0, 0.1  # of dynamics whose length follows from the budget
LONGEST_DRIFT_PS, SHORTEST_DRIFT_PS = 0.5, 0.01
MANY_REPLICAS, FEW_REPLICAS = 4, 2  # of the drift


@dataclass(frozen=True)
class ScanSizes:
    """Paths of each kind, and points on each."""

    most_of_a_kind: int
    points: int
    lines: int
    line_points: int

    @property
    def n_structures(self) -> int:
        """Number of structures, about."""
        return 3 * self.most_of_a_kind * self.points + (self.lines + 1) * self.line_points


FULL = ScanSizes(12, 61, 3, 161)
SMALLER = (FULL, ScanSizes(6, 61, 3, 121), ScanSizes(4, 41, 2, 81), ScanSizes(2, 31, 1, 61))


@dataclass(frozen=True)
class DriftSizes:
    """Replicas and length of the runs at constant energy, and time of equilibration before."""

    n_replicas: int
    length_ps: float
    equilibration_ps: float


@dataclass(frozen=True)
class Budget:
    """Time of a test.

    Args:
        total_s: of the whole test.
        structure_s: of the evaluation of one structure in double precision.
    """

    total_s: float
    structure_s: float

    def scans(self) -> ScanSizes:
        """The largest set of paths that fits, or the smallest."""
        affordable = SCAN_SHARE * self.total_s / self.structure_s
        return next((sizes for sizes in SMALLER if sizes.n_structures <= affordable), SMALLER[-1])

    def drift(self, timesteps_fs: Sequence[float]) -> DriftSizes:
        """Runs at constant energy with all time steps."""
        steps_per_ps = sum(1000 / timestep_fs for timestep_fs in timesteps_fs)
        affordable = DRIFT_SHARE * self.total_s / self.structure_s
        n_replicas = MANY_REPLICAS if affordable > MANY_REPLICAS * steps_per_ps * 0.1 else FEW_REPLICAS
        length_ps = 0.7 * affordable / (n_replicas * steps_per_ps)
        length_ps = min(LONGEST_DRIFT_PS, max(SHORTEST_DRIFT_PS, length_ps))
        return DriftSizes(n_replicas, length_ps, min(0.1, max(0.02, length_ps)))


def affordable_ps(total_s: float, step_s: float, timesteps_fs: Sequence[float]) -> float:
    """Length of dynamics with several time steps one after the other, ps.

    Args:
        total_s: of the whole test.
        step_s: one step of all replicas.
        timesteps_fs: of all runs.
    """
    steps_per_ps = sum(1000 / timestep_fs for timestep_fs in timesteps_fs)
    affordable = DYNAMICS_SHARE * total_s / (step_s * steps_per_ps)
    return round(min(LONGEST_PS, max(SHORTEST_PS, affordable)), 2)


def seconds(potential: Potential, structure: Float[Tensor, "atom 3"], n_replicas: int) -> float:
    """Time of one evaluation of all replicas, after a first one that prepares it."""
    batch = structure.expand(n_replicas, -1, -1).clone()
    potential(batch)
    begun = time.perf_counter()
    for _ in range(3):
        potential(batch)
    return max(1e-7, (time.perf_counter() - begun) / 3)
