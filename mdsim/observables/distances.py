"""Distributions of distances by elements, within molecules or between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import ClassVar, Literal, get_args

from ase.data import chemical_symbols

from mdsim.observables.bins import Bins
from mdsim.observables.pairs import PairKind, check_range, molecule_pair_histogram, pair_histogram
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

#: The pairs of atoms that are counted.
Among = Literal["all", "within_molecules", "between_molecules"]

SAME_MOLECULE = {"all": None, "within_molecules": True, "between_molecules": False}


@dataclass(frozen=True)
class DistanceDistribution:
    """Probability density h(r) in 1/Å of the distance of two atoms, averaged over pairs. It uses the minimum image.

    It is not divided by the volume of a shell as a g(r) is, so that all distances have the same weight. For a molecule,
    this is also the `RDF` of the paper.

    Args:
        max_distance_A: upper end of the range. Longer distances are missing from the integral. In a periodic system at
            most half the smallest height of the cell.
        bin_width_A: width of a bin, which must divide the range.
        pair: two chemical symbols in any order; None counts all pairs.
        among: "all", "within_molecules" or "between_molecules".

    Raises:
        ValueError: bins that do not fill the range, or another kind of pairs.
    """

    max_distance_A: float
    bin_width_A: float
    pair: tuple[str, str] | None = None
    among: Among = "all"

    unit: ClassVar[str] = "Å"

    def __post_init__(self) -> None:
        Bins.spanning(0.0, self.max_distance_A, self.bin_width_A)
        if self.among not in get_args(Among):
            raise ValueError(f"among must be one of {', '.join(get_args(Among))}, found {self.among!r}")

    @property
    def name(self) -> str:
        pair = "" if self.pair is None else "_" + "".join(self.pair)
        return f"distances{pair}" + ("" if self.among == "all" else f"_{self.among}")

    @property
    def bins(self) -> Bins:
        return Bins.spanning(0.0, self.max_distance_A, self.bin_width_A)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    @property
    def pairs(self) -> PairKind:
        """The pairs that are counted."""
        return PairKind(self.pair, SAME_MOLECULE[self.among])

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density in each bin; NaN for frames with a coordinate that is not finite.

        Args:
            system: the system of all replicas.
            trajectory: positions in Å.

        Raises:
            ValueError: no such pairs, or a range beyond half the cell.
        """
        system = trajectory.in_cells(system)
        check_range(system, self.max_distance_A)
        counts = pair_histogram(system, trajectory.positions, self.pairs, self.bins)
        return counts / (self.pairs.count(system) * self.bins.width)

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule. The mean over molecules is the density of the frame, see `LocalObservable`."""
        system = trajectory.in_cells(system)
        check_range(system, self.max_distance_A)
        counts = molecule_pair_histogram(system, trajectory.positions, self.pairs, self.bins)
        return counts * (system.n_molecules / (self.pairs.count(system) * self.bins.width))


def pairs_of_elements(system: System, among: Among = "all") -> list[tuple[str, str]]:
    """The pairs of elements of which the system has pairs of atoms, heavier elements first."""
    heaviest_first = sorted(set(system.atomic_numbers.tolist()), reverse=True)
    pairs = combinations_with_replacement([chemical_symbols[number] for number in heaviest_first], 2)
    return [pair for pair in pairs if PairKind(pair, SAME_MOLECULE[among]).number(system)]
