"""Stability criteria: tests of whether a frame of a replica is unphysical.

Each criterion measures one number per frame and replica and compares it with its tolerance. Non-finite numbers are
never within the tolerance. Sources: arXiv 2402.13984 (bond lengths, RDF, intermolecular distances);
Fu et al., "Forces are not enough", arXiv 2210.07237 (the notion of stability).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from mdsim.geometry import angles_deg, pair_distances
from mdsim.interfaces import BinnedObservable
from mdsim.observables import cells
from mdsim.observables.adf import bonded_triplets
from mdsim.observables.contacts import MinimumDistance
from mdsim.observables.density import Density
from mdsim.stability.verdict import non_finite
from mdsim.state import System, Trajectory, kinetic_temperature_K
from mdsim.typing import Bool, Float, Tensor

DISTANCES_AT_ONCE = 2**20  # bounds the memory of pair distances (27 images of 3 coordinates in the worst case)


@dataclass(frozen=True, eq=False)
class BondLengthDeviation:
    """Unstable when any bond differs from its reference by more than the tolerance.

    Args:
        reference_lengths_A: one per bond of the system, e.g. the mean over the reference data, Å.
        tolerance_A: largest deviation of a stable molecule, Å (0.25 in training, 0.5 in evaluation in the paper).
    """

    reference_lengths_A: Float[Tensor, "bond"]
    tolerance_A: float
    name: str = "bond_length_deviation"

    @property
    def tolerance(self) -> float:
        return self.tolerance_A

    def measure(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica"]:
        """Largest deviation of any bond, Å."""
        if not len(system.bonds):
            raise ValueError(f"{self.name} needs bonds, but the system has none")
        found, expected = len(self.reference_lengths_A), len(system.bonds)
        if found != expected:
            raise ValueError(f"the system has {expected} bonds, but {found} reference lengths are given")
        lengths = partial(pair_distances, pairs=system.bonds)
        return _largest_deviation(lengths, self.reference_lengths_A, system, trajectory, len(system.bonds))

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        return _outside(self.measure(system, trajectory), trajectory, upper=self.tolerance)


@dataclass(frozen=True, eq=False)
class AngleDeviation:
    """Unstable when any angle between two bonds differs from its reference by more than the tolerance.

    A force field with spurious minima often folds an angle long before a bond breaks. The learning phase needs the
    frames in which the error begins.

    Args:
        reference_angles_deg: one per triplet of `bonded_triplets`, e.g. the mean over the reference data, degrees.
        tolerance_deg: largest deviation of a stable molecule, degrees.
    """

    reference_angles_deg: Float[Tensor, "triplet"]
    tolerance_deg: float
    name: str = "angle_deviation"

    @property
    def tolerance(self) -> float:
        return self.tolerance_deg

    def measure(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica"]:
        """Largest deviation of any angle, degrees."""
        triplets = bonded_triplets(system)
        found, expected = len(self.reference_angles_deg), len(triplets)
        if found != expected or not expected:
            raise ValueError(f"the system has {expected} bonded angles, but {found} references are given")
        angles = partial(angles_deg, triplets=triplets)
        return _largest_deviation(angles, self.reference_angles_deg, system, trajectory, 2 * len(triplets))

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        return _outside(self.measure(system, trajectory), trajectory, upper=self.tolerance)


@dataclass(frozen=True, eq=False)
class MinimumIntermolecularDistance:
    """Unstable when two atoms of different molecules come closer than the tolerance.

    Args:
        tolerance_A: smallest distance in a stable liquid, Å (1.2 for water in the paper).
    """

    tolerance_A: float
    name: str = "minimum_intermolecular_distance"

    @property
    def tolerance(self) -> float:
        return self.tolerance_A

    def measure(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica"]:
        """Smallest distance between atoms of different molecules, Å."""
        if system.n_molecules < 2:
            raise ValueError(f"{self.name} needs at least two molecules, but the system has one")
        return MinimumDistance()(system, trajectory).squeeze(-1)

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        return _outside(self.measure(system, trajectory), trajectory, lower=self.tolerance)


@dataclass(frozen=True, eq=False)
class DensityDeviation:
    """Unstable when the density of a replica differs from its reference by more than the tolerance.

    At constant pressure, a wrong force field evaporates or collapses.

    Args:
        reference_g_per_cm3: density of the stable liquid or solid, g/cm³.
        tolerance_g_per_cm3: largest deviation, far above the fluctuations of a cell of this size, g/cm³.
    """

    reference_g_per_cm3: float
    tolerance_g_per_cm3: float
    name: str = "density_deviation"

    @property
    def tolerance(self) -> float:
        return self.tolerance_g_per_cm3

    def measure(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica"]:
        """Deviation of the density, g/cm³."""
        return (Density()(system, trajectory).squeeze(-1) - self.reference_g_per_cm3).abs()

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        return _outside(self.measure(system, trajectory), trajectory, upper=self.tolerance)


@dataclass(frozen=True, eq=False)
class RDFDeviation:
    """Unstable when the RDF, averaged over a time window, deviates too much from its reference.

    The deviation is the paper's RDF MAE, ∫ |g - g_ref| dr = range × mean over bins, for each replica separately. The
    RDF is averaged over the ``window_frames`` frames up to and including the current one. Because a single frame is too
    noisy, frames before the first full window share the value of that window (or of all frames, if there are fewer).
    Non-finite frames are unstable and are excluded from the averages.

    Args:
        observable: a structural observable, g(r) per frame and replica, with evenly spaced `bin_centers` in Å.
        reference: its reference, of equal length.
        tolerance_A: largest deviation of a stable replica, Å (3.0 for water in the paper).
        window_frames: frames to average over. None: average over the whole trajectory, which is then stable or
            unstable as a whole, as in the published evaluation.
    """

    observable: BinnedObservable
    reference: Float[Tensor, "bin"]
    tolerance_A: float
    window_frames: int | None = None

    @property
    def name(self) -> str:
        return f"{self.observable.name}_deviation"  # rdf_deviation or rdf_OO_deviation, so that several can be combined

    def __post_init__(self) -> None:
        if self.window_frames is not None and self.window_frames < 1:
            raise ValueError(f"window_frames must be at least 1, found {self.window_frames}")

    @property
    def tolerance(self) -> float:
        return self.tolerance_A

    def measure(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica"]:
        """Mean absolute deviation of the windowed RDF times the range, Å."""
        rdf = self.observable(system, trajectory)
        expected = (trajectory.n_frames, trajectory.n_replicas, len(self.reference))
        if rdf.shape != expected:
            raise ValueError(
                f"{self.name} needs an observable of shape {expected} (frame, replica, bin of the reference), "
                f"found {tuple(rdf.shape)}"
            )
        averaged = _trailing_mean(rdf, self.window_frames or trajectory.n_frames)
        bin_width_A = self.observable.bin_centers.diff().mean().to(averaged)
        deviation = bin_width_A * (averaged - self.reference.to(averaged)).abs().sum(-1)
        return torch.where(torch.isfinite(rdf).all(-1), deviation, torch.nan).to(rdf.dtype)

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        return _outside(self.measure(system, trajectory), trajectory, upper=self.tolerance)


@dataclass(frozen=True, eq=False)
class TemperatureExplosion:
    """Unstable when the kinetic temperature exceeds a bound, because energy is not conserved.

    Args:
        max_temperature_K: largest temperature of a stable replica. Choose it well above the fluctuations of the
            ensemble, which are √(2 / degrees of freedom) relative to the mean.
        degrees_of_freedom: degrees of freedom under the integrator.
    """

    max_temperature_K: float
    degrees_of_freedom: int
    name: str = "temperature_explosion"

    @property
    def tolerance(self) -> float:
        return self.max_temperature_K

    def measure(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica"]:
        """Kinetic temperature, K."""
        if trajectory.velocities is None:
            raise ValueError(f"{self.name} needs velocities, but the trajectory was stored without them")
        return kinetic_temperature_K(trajectory.velocities, system.masses, self.degrees_of_freedom)

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        return _outside(self.measure(system, trajectory), trajectory, upper=self.tolerance)


def _outside(
    measure: Float[Tensor, "frame replica"],
    trajectory: Trajectory,
    lower: float = -float("inf"),
    upper: float = float("inf"),
) -> Bool[Tensor, "frame replica"]:
    """Mask of frames beyond the bounds. The test is "not within", so that NaN counts as beyond."""
    return ~((measure >= lower) & (measure <= upper)) | non_finite(trajectory)


def _largest_deviation(
    coordinates: Callable[..., Tensor],
    references: Float[Tensor, "coordinate"],
    system: System,
    trajectory: Trajectory,
    distances_each: int,
) -> Float[Tensor, "frame replica"]:
    """Largest deviation of the internal coordinates of each structure from their references.

    Args:
        coordinates: of the positions of some structures, and of their ``cell``.
        references: one per coordinate.
        system, trajectory: the structures.
        distances_each: distances in each structure, which take memory.
    """
    structures, cell = trajectory.positions.flatten(0, 1), cells.in_rows(system, trajectory).cell
    references, size = references.to(structures), max(1, DISTANCES_AT_ONCE // distances_each)
    pieces = zip(structures.split(size), cells.split(cell, len(structures), size), strict=True)
    largest = [(coordinates(piece, cell=of_piece) - references).abs().amax(-1) for piece, of_piece in pieces]
    return torch.cat(largest).unflatten(0, trajectory.positions.shape[:2])


def _trailing_mean(values: Float[Tensor, "frame replica bin"], window: int) -> Float[Tensor, "frame replica bin"]:
    """Mean over the finite frames of the window that ends at each frame, in double precision. See `RDFDeviation`."""
    n_frames = len(values)
    window = min(window, n_frames)
    finite = torch.isfinite(values).all(-1, keepdim=True)
    total = _cumulative(torch.where(finite, values, 0).double())
    count = _cumulative(finite.double())
    end = torch.arange(1, n_frames + 1, device=values.device).clamp(min=window)
    return (total[end] - total[end - window]) / (count[end] - count[end - window])


def _cumulative(values: Float[Tensor, "frame ..."]) -> Float[Tensor, "edge ..."]:
    """Sums of the first 0, 1, 2, ... frames."""
    return torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
