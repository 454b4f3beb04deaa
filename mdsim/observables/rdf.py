"""Radial distribution functions: h(r) for molecules and g(r) for periodic systems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from mdsim.geometry import volume
from mdsim.observables.bins import Bins
from mdsim.observables.pairs import PairKind, check_range, molecule_pair_histogram, pair_histogram
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class RDF:
    """Radial distribution function of each frame and replica. Periodic systems use the minimum image.

    ``"pair_density"`` is h(r), the probability density in 1/Å that a pair is at distance r; its integral is the share
    of pairs within range (Fu et al., "Forces are Not Enough", TMLR 2023). ``"ideal_gas"`` is g(r), the number of pairs
    in each shell divided by the number for the same pairs spread evenly over the cell. It is 1 for an ideal gas of any
    number of atoms.

    Args:
        max_distance_A: upper end of the range; in a periodic system at most half the smallest height of the cell.
        bin_width_A: width of a bin, which must divide the range.
        pair: two chemical symbols in any order; None counts all pairs.
        normalization: "pair_density" or "ideal_gas".
        smearing_A: standard deviation of the Gaussian that replaces each distance, which makes the RDF differentiable
            with respect to positions. None: a plain histogram.
        intermolecular_only: leave out pairs within a molecule.

    Raises:
        ValueError: bins that do not fill the range, or another normalization.
    """

    max_distance_A: float
    bin_width_A: float
    pair: tuple[str, str] | None = None
    normalization: Literal["pair_density", "ideal_gas"] = "pair_density"
    smearing_A: float | None = None
    intermolecular_only: bool = False

    unit: ClassVar[str] = "Å"

    def __post_init__(self) -> None:
        Bins.spanning(0.0, self.max_distance_A, self.bin_width_A)
        if self.normalization not in ("pair_density", "ideal_gas"):
            raise ValueError(f"normalization must be 'pair_density' or 'ideal_gas', found {self.normalization!r}")
        if self.smearing_A is not None and not self.smearing_A > 0:
            raise ValueError(f"smearing_A must be positive, or None for a plain histogram; found {self.smearing_A}")

    @property
    def error_unit(self) -> str:
        """Unit of the area between two of them."""
        return "Å" if self.normalization == "ideal_gas" else "1"

    @property
    def name(self) -> str:
        pair = "" if self.pair is None else "_" + "".join(self.pair)
        return "rdf" + pair + ("_intermolecular" if self.intermolecular_only else "")

    @property
    def bins(self) -> Bins:
        return Bins.spanning(0.0, self.max_distance_A, self.bin_width_A)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The distribution in each bin.

        Args:
            system: the system of all replicas.
            trajectory: positions in Å.

        Returns:
            h(r) in 1/Å, or g(r) without unit; NaN for frames with a coordinate that is not finite.

        Raises:
            ValueError: no such pairs, a range beyond half the cell, or g(r) without a cell.
        """
        system = trajectory.in_cells(system)
        check_range(system, self.max_distance_A)
        norm = self.pairs.count(system) * self._share_per_pair(system)
        counts = pair_histogram(system, trajectory.positions, self.pairs, self.bins, self.smearing_A)
        return counts / norm.to(counts)

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule to the plain RDF. The mean over molecules is the RDF of the frame.

        A pair is split equally between the molecules of its two atoms, see `LocalObservable`.
        """
        system = trajectory.in_cells(system)
        check_range(system, self.max_distance_A)
        norm = self.pairs.count(system) * self._share_per_pair(system) / system.n_molecules
        counts = molecule_pair_histogram(system, trajectory.positions, self.pairs, self.bins)
        return counts / norm.to(counts)[..., None, :]

    @property
    def pairs(self) -> PairKind:
        """The pairs that are counted."""
        return PairKind(self.pair, same_molecule=False if self.intermolecular_only else None)

    def _share_per_pair(self, system: System) -> Float[Tensor, "*frames bin"]:
        """Normalization per pair in each bin: the bin width in Å, or the shell's fraction of the cell volume."""
        bins = self.bins
        if self.normalization == "pair_density":
            return torch.full((bins.count,), bins.width, dtype=torch.float64)
        if system.cell is None:
            raise ValueError(
                "normalization 'ideal_gas' needs the density of a periodic system, but the system has no cell: "
                "use 'pair_density'"
            )
        shells = 4.0 / 3.0 * math.pi * bins.edges.pow(3).diff()
        return shells / volume(system.cell.double()).cpu()[..., None]
