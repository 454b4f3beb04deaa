"""Static structure factor S(q): partial ones of element pairs, and totals weighted for X-rays or neutrons.

The partial structure factors are those of Faber and Ziman, Philos. Mag. 11, 153 (1965), 1 for an ideal gas and for
q → ∞. With N_a atoms of element a among N,

    S_ab(q) = 1 + N / (N_a N_b) <Σ_{i in a, j in b, j ≠ i} exp(-i q·(r_j - r_i))>

averaged over the directions of q. A total is Σ w_ab S_ab, with the weights of `mdsim.observables.scattering`. For
intensities I per atom, it is [I(q) - <f²> + <f>²] / <f>². A class below `StructureFactor` computes the sum for a
periodic system from g(r) (`FourierStructureFactor`) or from the wave vectors of the cell (`DirectStructureFactor`),
and for an open one by the Debye formula (`DebyeStructureFactor`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import volume
from mdsim.observables.bins import Bins
from mdsim.observables.pairs import PairKind
from mdsim.observables.rdf import RDF
from mdsim.observables.scattering import Isotope, Weighting, check_weighting, pair_weights
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

Pair = tuple[str, str]


@dataclass(frozen=True)
class StructureFactor(ABC):
    """Base of the structure factors of each frame and replica, without unit, at the centers of bins of q.

    Args:
        max_q_per_A: upper end of the range of q, 1/Å.
        bin_width_per_A: width of a bin, which must divide the range, 1/Å.
        pair: two chemical symbols in any order, for the partial structure factor. None: a total.
        weighting: weights of the atoms in the total, "number", "xray" or "neutron". A partial one has none.
        min_q_per_A: lower end of the range, 1/Å.
        isotopes: isotopes in place of natural elements for neutrons, such as (("H", 2),) for heavy water.

    Raises:
        ValueError: bins that do not fill the range, or another weighting.
    """

    max_q_per_A: float
    bin_width_per_A: float
    pair: Pair | None = None
    weighting: Weighting = "number"
    min_q_per_A: float = 0.0
    isotopes: tuple[Isotope, ...] = ()

    unit: ClassVar[str] = "1/Å"
    is_density: ClassVar[bool] = False
    error_unit: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if self.min_q_per_A < 0:
            raise ValueError(f"min_q_per_A must not be negative, found {self.min_q_per_A}")
        Bins.spanning(self.min_q_per_A, self.max_q_per_A, self.bin_width_per_A)
        check_weighting(self.weighting)

    @property
    def name(self) -> str:
        return "structure_factor_" + (self.weighting if self.pair is None else "".join(self.pair))

    @property
    def bins(self) -> Bins:
        return Bins.spanning(self.min_q_per_A, self.max_q_per_A, self.bin_width_per_A)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The structure factor; NaN for frames with a coordinate that is not finite.

        Args:
            system: the system of all replicas.
            trajectory: positions in Å.

        Raises:
            ModuleNotFoundError: weights need `periodictable`, which is missing.
            ValueError: no such pair, no tabulated weight, or a system of the wrong boundaries.
        """
        weights = self._weights(system)
        excesses = self._excesses(system, trajectory, list(weights))
        return 1.0 + _combined(excesses, list(weights.values()))

    def _weights(self, system: System) -> dict[Pair, Float[Tensor, "bin"]]:
        """The weight of each pair of elements in the sum, without the pairs of an element with a single atom."""
        if self.pair is not None:
            PairKind(self.pair).count(system)
            return {self.pair: torch.ones(self.bins.count, dtype=torch.float64)}
        weights = pair_weights(system, self.bin_centers, self.weighting, self.isotopes)
        weights = {pair: weight for pair, weight in weights.items() if PairKind(pair).number(system)}
        if not weights:
            raise ValueError("a structure factor needs two atoms")
        return weights

    @abstractmethod
    def _excesses(
        self, system: System, trajectory: Trajectory, pairs: Sequence[Pair]
    ) -> list[Float[Tensor, "frame replica bin"]]:
        """S_ab(q) - 1 of each pair of elements."""


def _combined(parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return torch.stack([weight.to(part) * part for weight, part in zip(weights, parts, strict=True)]).sum(0)


def per_ordered_pair(system: System, pair: Pair) -> float:
    """The factor N / (N_a N_b) of a sum over ordered pairs of atoms."""
    kinds = (PairKind((symbol, symbol)).atoms(system) for symbol in pair)
    return system.n_atoms / math.prod(len(atoms) for atoms in kinds)


def ordered_pairs(system: System, pair: Pair) -> int:
    """Number of pairs of different atoms (i in a, j in b)."""
    return PairKind(pair).number(system) * (2 if pair[0] == pair[1] else 1)


@dataclass(frozen=True)
class FourierStructureFactor(StructureFactor):
    """Structure factor of a periodic system from its g(r):

        S_ab(q) = 1 + 4π ρ (1 - δ_ab/N_a) ∫_0^R r² [g_ab(r) - 1] sin(qr)/(qr) W(r) dr

    The factor in parentheses is that of a closed system of N_a atoms, with a g(r) of 1 for an ideal gas. Features are
    as wide as 2π/R at least. The abrupt end of the integral adds ripples, which the window of Lorch, J. Phys. C 2, 229
    (1969), W = sin(πr/R) / (πr/R), removes at the price of broader peaks. References need the same R and window.

    Args:
        max_distance_A: the upper end R of the integral, at most half the smallest height of the cell.
        distance_bin_width_A: bin width of g(r), which must divide R and resolve bonds.
        lorch_window: multiply g(r) - 1 by the window.
        others: see `StructureFactor`.
    """

    max_distance_A: float = 6.0
    distance_bin_width_A: float = 0.02
    lorch_window: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        Bins.spanning(0.0, self.max_distance_A, self.distance_bin_width_A)

    def _excesses(
        self, system: System, trajectory: Trajectory, pairs: Sequence[Pair]
    ) -> list[Float[Tensor, "frame replica bin"]]:
        _volume_A3(system)  # an open system is refused before its pairs are counted
        cells = trajectory.in_cells(system)
        return [self._excess(cells, pair, self._rdf(pair)(system, trajectory)) for pair in pairs]

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule. Their mean is the structure factor of the frame, see `LocalObservable`."""
        weights, cells = self._weights(system), trajectory.in_cells(system)
        parts = [self._excess(cells, pair, self._rdf(pair).per_molecule(system, trajectory)) for pair in weights]
        return 1.0 + _combined(parts, list(weights.values()))

    def _rdf(self, pair: Pair) -> RDF:
        return RDF(self.max_distance_A, self.distance_bin_width_A, pair, "ideal_gas")

    def _excess(self, system: System, pair: Pair, rdf: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch bin"]:
        density = per_ordered_pair(system, pair) * ordered_pairs(system, pair) / _volume_A3(system)
        density = density.reshape(density.shape + (1,) * (rdf.ndim - density.ndim)).to(rdf)
        return density * ((rdf - 1.0) @ self._kernel().to(rdf))

    def _kernel(self) -> Float[Tensor, "r bin"]:
        """∫ 4π r² sin(qr)/(qr) dr over each shell, times the window at its center."""
        distances = Bins.spanning(0.0, self.max_distance_A, self.distance_bin_width_A)
        q = self.bin_centers
        qr = distances.edges[:, None] * q
        kernel = 4.0 * math.pi * (torch.sin(qr) - qr * torch.cos(qr)).diff(dim=0) / q**3
        return kernel * torch.sinc(distances.centers / self.max_distance_A)[:, None] if self.lorch_window else kernel


def _volume_A3(system: System) -> Float[Tensor, "*frames"]:
    if system.cell is None:
        raise ValueError(
            "the structure factor from g(r) needs the density of a periodic system, but the system has no cell: use "
            "DebyeStructureFactor"
        )
    return volume(system.cell.double())
