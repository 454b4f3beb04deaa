"""Structure factor of a periodic system by a sum over the wave vectors of its cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mdsim.observables import cells
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import VALUES_PER_CHUNK
from mdsim.observables.structure_factor import Pair, StructureFactor, per_ordered_pair
from mdsim.observables.tuples import atoms_of
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True)
class DirectStructureFactor(StructureFactor):
    """Structure factor of a periodic system from its Fourier components ρ_a(q) = Σ_{i in a} exp(-i q·r_i):

        S_ab(q) = 1 + N / (N_a N_b) [ <Re ρ_a(q) ρ_b(q)*> - δ_ab N_a ]

    averaged over those q in a bin that are wave vectors of the cell, 2π (n_1 b_1 + n_2 b_2 + n_3 b_3). Nothing is
    truncated, so that it is exact for the periodic system, and the first choice for small cells. It costs time
    proportional to atoms × wave vectors. There is no wave vector shorter than 2π/L.

    Where cells move, their wave vectors move along, and are assigned to the bins that they have in the cell of the
    system.

    Args:
        most_vectors_per_bin: wave vectors used in each bin, spread evenly over those that there are. None: all.
        others: see `StructureFactor`.
    """

    most_vectors_per_bin: int | None = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most_vectors_per_bin is not None and self.most_vectors_per_bin < 1:
            raise ValueError(f"most_vectors_per_bin must be at least 1, or None; found {self.most_vectors_per_bin}")

    def _excesses(
        self, system: System, trajectory: Trajectory, pairs: Sequence[Pair]
    ) -> list[Float[Tensor, "frame replica bin"]]:
        cell = _cell_of(system)
        vectors, of_bin = wave_vectors(cell, self.bins, self.most_vectors_per_bin)
        vectors = vectors.to(trajectory.positions)
        symbols = sorted({symbol for pair in pairs for symbol in pair})
        members = [atoms_of(system, symbol) for symbol in symbols]
        of_bins = torch.nn.functional.one_hot(of_bin, self.bins.count).double()
        share = (of_bins / of_bins.sum(0)).to(vectors)

        def correlations(rows: Float[Tensor, "row atom 3"], cell: Tensor) -> Float[Tensor, "pair row bin"]:
            densities = dict(zip(symbols, fourier_components(rows, cell, vectors, members), strict=True))
            products = [(densities[a] * densities[b]).sum(-1) @ share for a, b in pairs]
            return torch.stack(products)

        per_row = max(1, VALUES_PER_CHUNK // (system.n_atoms * len(vectors)))
        rows = trajectory.positions.flatten(0, 1)
        of_rows = cells.split(cells.in_rows(system, trajectory).cell, len(rows), per_row)
        parts = zip(rows.split(per_row), of_rows, strict=True)
        found = torch.cat([correlations(some, cell) for some, cell in parts if cell is not None], dim=1)
        found = found.unflatten(1, trajectory.positions.shape[:2])
        alone = {symbol: int(member.sum()) for symbol, member in zip(symbols, members, strict=True)}
        return [
            per_ordered_pair(system, (a, b)) * (product - (alone[a] if a == b else 0))
            for (a, b), product in zip(pairs, found, strict=True)
        ]


def _cell_of(system: System) -> Float[Tensor, "3 3"]:
    if system.cell is None:
        raise ValueError("wave vectors are those of a periodic cell, but the system has none: use DebyeStructureFactor")
    return system.cell


def fourier_components(
    rows: Float[Tensor, "row atom 3"],
    cell: Float[Tensor, "*row 3 3"],
    vectors: Float[Tensor, "vector 3"],
    members: Sequence[Tensor],
) -> list[Float[Tensor, "row vector 2"]]:
    """Real and negative imaginary part of Σ exp(-i q·r) over the atoms of each mask.

    Args:
        rows: positions in Å.
        cell: lattice vectors as rows, Å, of all rows or of each.
        vectors: whole numbers n of reciprocal lattice vectors.
        members: masks of atoms.
    """
    fractions = rows.double() @ torch.linalg.inv_ex(cell.double().to(rows.device)).inverse
    fractions = (fractions - fractions.floor()).to(rows)  # small numbers keep single precision accurate
    phases = 2.0 * math.pi * (fractions @ vectors.T)
    parts = torch.stack([torch.cos(phases), torch.sin(phases)], dim=-1)
    return [parts[:, member].sum(1) for member in members]


def wave_vectors(
    cell: Float[Tensor, "3 3"], bins: Bins, most_per_bin: int | None = None
) -> tuple[Int[Tensor, "vector 3"], Int[Tensor, "vector"]]:
    """The wave vectors of a cell with lengths in the bins, one of each pair of opposite ones.

    Args:
        cell: lattice vectors as rows, Å.
        bins: bins of their lengths, 1/Å.
        most_per_bin: the largest number in one bin. Bins with more keep an even selection.

    Returns:
        Whole numbers n of the reciprocal lattice vectors, and the bin of each vector.

    Raises:
        ValueError: a bin without wave vectors.
    """
    rows = cell.detach().double().cpu().numpy()
    reciprocal = 2.0 * np.pi * np.linalg.inv(rows).T
    reach = np.floor(bins.stop * np.linalg.norm(rows, axis=1) / (2.0 * np.pi) + 1e-9).astype(int)
    axes = np.meshgrid(*(np.arange(-most, most + 1) for most in reach), indexing="ij")
    vectors = np.stack([axis.reshape(-1) for axis in axes], axis=1)
    vectors = vectors[len(vectors) // 2 + 1 :]  # the others are opposite to these, and the middle one is zero
    lengths = np.linalg.norm(vectors @ reciprocal, axis=1)
    inside = (lengths >= bins.start) & (lengths <= bins.stop)
    vectors, lengths = vectors[inside], lengths[inside]
    of_bin = np.minimum(((lengths - bins.start) / bins.width).astype(int), bins.count - 1)
    counts = np.bincount(of_bin, minlength=bins.count)
    if not counts.all():
        centers = bins.centers.numpy()
        empty = ", ".join(f"{center:.4g}" for center in centers[counts == 0][:5])
        shortest = np.linalg.norm(reciprocal, axis=1).min()
        raise ValueError(
            f"the cell has no wave vector in {int((counts == 0).sum())} of {bins.count} bins (around {empty} 1/Å); its "
            f"shortest reciprocal lattice vector has {shortest:.4g} 1/Å: use wider bins or a larger min_q_per_A"
        )
    if most_per_bin is not None:
        order = np.argsort(of_bin, kind="stable")
        rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[of_bin[order]]
        wanted = np.minimum(counts, most_per_bin)[of_bin[order]]
        step = (rank + 1) * wanted // counts[of_bin[order]] - rank * wanted // counts[of_bin[order]]
        kept = np.sort(order[step > 0])
        vectors, of_bin = vectors[kept], of_bin[kept]
    return torch.from_numpy(vectors), torch.from_numpy(of_bin)
