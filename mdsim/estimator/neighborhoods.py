"""Neighborhoods of molecules as samples of the local Boltzmann estimator, stratified by bond-length deviation.

Strata ensure that rare distorted molecules are sampled. Source: Raja et al., arXiv 2402.13984, local estimator and its
stratified sampling. The importance weights, which keep averages unbiased, are an addition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.estimator.sample_energies import closest_molecules
from mdsim.geometry import pair_distances
from mdsim.observables.cells import of_some
from mdsim.state import System
from mdsim.typing import Bool, Float, Int, Tensor

LARGEST_DEVIATION_A = 1.0  # the strata end here: such a bond is broken, and a larger deviation must not widen them


@dataclass(frozen=True)
class Neighborhoods:
    """Selected neighborhoods. Those of one frame are adjacent."""

    frames: Int[Tensor, "sample"]
    molecules: Int[Tensor, "sample"]  # central molecule of each neighborhood
    membership: Bool[Tensor, "sample atom"]
    weights: Float[Tensor, "sample"] | None  # importance of each; None: equal weights

    def subset(self, kept: Int[Tensor, "sample"]) -> Neighborhoods:
        """Some of the neighborhoods, by ascending index."""
        weights = None if self.weights is None else self.weights[kept]
        return Neighborhoods(self.frames[kept], self.molecules[kept], self.membership[kept], weights)


@dataclass(frozen=True, eq=False)
class NeighborhoodSampler:
    """Draws central molecules evenly over their bond-length deviation, each with the molecules closest to it.

    Args:
        reference_lengths_A: reference length of each bond of the system, Å.
        n_molecules: whole molecules per neighborhood, including the central one.
        per_frame: candidates for central molecules per frame, drawn at random. None: all molecules.
        n_strata: number of equal intervals of the bond-length deviation of the central molecule.
        max_per_stratum: neighborhoods drawn from each interval. None: all, which disables the stratification.
        weighted: weight each neighborhood by the number of candidates that it represents. Without weights, as in the
            published code, averages are those of a distribution that is flat over the strata.
    """

    reference_lengths_A: Float[Tensor, "bond"]
    n_molecules: int = 1
    per_frame: int | None = None
    n_strata: int = 100
    max_per_stratum: int | None = None
    weighted: bool = True

    def __call__(
        self, system: System, positions: Float[Tensor, "frame atom 3"], generator: torch.Generator
    ) -> Neighborhoods:
        """Neighborhoods drawn from the frames (Å). The system can have a cell for each frame.

        Raises:
            ValueError: ``n_molecules`` exceeds the number of molecules.
        """
        frames, molecules = self._candidates(system, len(positions), generator)
        deviation = worst_bond_of_molecules(system, positions, self.reference_lengths_A)[frames, molecules]
        chosen, weights = stratified(deviation, self.n_strata, self.max_per_stratum, generator)
        frames, molecules = frames[chosen], molecules[chosen]
        centers = central_atoms(system)[molecules]
        membership = closest_molecules(of_some(system, frames), positions[frames], centers, self.n_molecules)
        alike = not self.weighted or self.max_per_stratum is None
        return Neighborhoods(frames, molecules, membership, None if alike else weights)

    def _candidates(
        self, system: System, n_frames: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "candidate"], Int[Tensor, "candidate"]]:
        """Frame and molecule of every candidate."""
        device, found = system.molecules.device, system.n_molecules
        count = found if self.per_frame is None else min(self.per_frame, found)
        if count == found:
            molecules = torch.arange(found, device=device).expand(n_frames, -1)
        else:
            lots = torch.rand(n_frames, found, generator=generator, device=generator.device).to(device)
            molecules = lots.topk(count, dim=1).indices.sort(dim=1).values
        return torch.arange(n_frames, device=device).repeat_interleave(count), molecules.reshape(-1)


def stratified(
    values: Float[Tensor, "candidate"], n_strata: int, max_per_stratum: int | None, generator: torch.Generator
) -> tuple[Int[Tensor, "sample"], Float[Tensor, "sample"]]:
    """Draw up to ``max_per_stratum`` candidates from each of equal intervals of the values, with importance weights.

    Args:
        values: values to stratify by. All values above `LARGEST_DEVIATION_A` count as equal.
        n_strata: number of intervals between the smallest and the largest value.
        max_per_stratum: candidates kept per interval. None: all.
        generator: random numbers of the draw.

    Returns:
        Indices of the kept candidates in ascending order, and the number of candidates that each represents. Weighted
        sums over the kept candidates are unbiased estimates of the sums over all.
    """
    if max_per_stratum is None:
        return torch.arange(len(values), device=values.device), torch.ones_like(values)
    values = values.clamp(max=LARGEST_DEVIATION_A)
    low, high = values.min(), values.max()
    stratum = ((values - low) / (high - low).clamp(min=1e-12) * n_strata).long().clamp(max=n_strata - 1)
    shuffle = torch.randperm(len(values), generator=generator, device=generator.device).to(values.device)
    by_stratum = shuffle[torch.argsort(stratum[shuffle], stable=True)]
    size = torch.bincount(stratum, minlength=n_strata)
    rank = torch.arange(len(values), device=values.device) - (size.cumsum(0) - size)[stratum[by_stratum]]
    kept = by_stratum[rank < max_per_stratum].sort().values
    stands_for = size / size.clamp(max=max_per_stratum)  # 0/0 of an empty stratum is never looked up
    return kept, stands_for[stratum[kept]].to(values)


def worst_bond_of_molecules(
    system: System, positions: Float[Tensor, "frame atom 3"], reference_lengths_A: Float[Tensor, "bond"]
) -> Float[Tensor, "frame molecule"]:
    """Largest deviation of any bond of each molecule from its reference length, Å. Zero for single atoms."""
    worst = positions.new_zeros(len(positions), system.n_molecules)
    if not len(system.bonds):
        return worst
    deviation = (pair_distances(positions, system.bonds, system.cell) - reference_lengths_A.to(positions)).abs()
    molecule = system.molecules[system.bonds[:, 0]].expand(len(positions), -1)
    return worst.scatter_reduce(1, molecule, deviation, "amax")


def central_atoms(system: System) -> Int[Tensor, "molecule"]:
    """The heaviest atom of each molecule (the first, if there are several)."""
    by_weight = torch.argsort(system.masses, descending=True, stable=True)
    order = by_weight[torch.argsort(system.molecules[by_weight], stable=True)]
    size = torch.bincount(system.molecules)
    return order[size.cumsum(0) - size]
