"""Bond lengths, their distribution, and the largest deviation from reference lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mdsim.geometry import pair_distances
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import molecule_histogram, tuple_histogram
from mdsim.observables.tuples import of_elements
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class BondLengths:
    """Minimum-image length in Å of every bond of the system, in the order of ``system.bonds``."""

    name: ClassVar[str] = "bond_lengths"
    unit: ClassVar[str] = "Å"

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bond"]:
        """Bond lengths in Å; NaN where an atom of the bond has a coordinate that is not finite.

        Raises:
            ValueError: the system has no bonds.
        """
        bonds = of_elements(system, system.bonds, None, "bond")
        return pair_distances(trajectory.positions, bonds, trajectory.in_cells(system).cell)


@dataclass(frozen=True)
class BondLengthDistribution:
    """Probability density in 1/Å of bond lengths, averaged over the bonds of a frame.

    Args:
        max_length_A: upper end of the range. Bonds outside the range are missing from the integral.
        bin_width_A: width of a bin, which must divide the range.
        pair: two chemical symbols in any order; None takes all bonds.
        min_length_A: lower end of the range.

    Raises:
        ValueError: bins that do not fill the range.
    """

    max_length_A: float
    bin_width_A: float
    pair: tuple[str, str] | None = None
    min_length_A: float = 0.0

    unit: ClassVar[str] = "Å"

    def __post_init__(self) -> None:
        if self.min_length_A < 0:
            raise ValueError(f"min_length_A must not be negative, found {self.min_length_A}")
        Bins.spanning(self.min_length_A, self.max_length_A, self.bin_width_A)

    @property
    def name(self) -> str:
        return "bond_length_distribution" + ("" if self.pair is None else "_" + "".join(self.pair))

    @property
    def bins(self) -> Bins:
        return Bins.spanning(self.min_length_A, self.max_length_A, self.bin_width_A)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density in each bin in 1/Å; NaN for frames with a coordinate that is not finite.

        Raises:
            ValueError: the system has no such bond.
        """
        bonds = of_elements(system, system.bonds, self.pair, "bond")
        counts = tuple_histogram(
            pair_distances, trajectory.positions, bonds, trajectory.in_cells(system).cell, self.bins
        )
        return counts / (len(bonds) * self.bins.width)

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule. The mean over molecules is the density of the frame, see `LocalObservable`."""
        bonds = of_elements(system, system.bonds, self.pair, "bond")
        counts = molecule_histogram(pair_distances, trajectory.positions, bonds, trajectory.in_cells(system), self.bins)
        return counts * (system.n_molecules / (len(bonds) * self.bins.width))


def max_bond_deviation(
    system: System,
    positions: Float[Tensor, "frame replica atom 3"],
    reference_lengths: Float[Tensor, "bond"],
) -> Float[Tensor, "frame replica"]:
    """Largest |length - reference| over the bonds, as used by the bond-length stability criterion.

    Args:
        system: provides the bonds and the cell, or the cells of all frames (`Trajectory.in_cells`).
        positions: Å.
        reference_lengths: one per bond, Å, in the order of ``system.bonds``.

    Returns:
        Å; NaN where an atom of any bond has a coordinate that is not finite.

    Raises:
        ValueError: the system has no bonds, or the number of reference lengths differs from that of bonds.
    """
    bonds = of_elements(system, system.bonds, None, "bond")
    if len(reference_lengths) != len(bonds):
        raise ValueError(f"{len(bonds)} bonds need as many reference lengths, found {len(reference_lengths)}")
    lengths = pair_distances(positions, bonds, system.cell)
    return (lengths - reference_lengths.to(lengths)).abs().amax(-1)
