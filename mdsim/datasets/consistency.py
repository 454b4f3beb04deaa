"""Consistency of energies and forces: energy differences between frames compared with the work of the forces.

Similar frames are compared. The energy difference of two frames is approximately the work along the path between
them. The trapezoid rule gives this work, -½ (g_i + g_j)·Δq. In the coordinates q energies are nearly harmonic: inverse
distances of all atoms of a molecule, or exp(-r/Å) of near atoms in a cell. g are the forces along q. The error of the
rule can be measured without energies: the exact work around a triangle of frames is zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mdsim.datasets.npz import Frames
from mdsim.geometry import all_pairs, minimum_image
from mdsim.typing import Float, Int, Tensor

FEWEST_FRAMES = 6
MOST_TRIANGLES, FEWEST_TRIANGLES = 40, 8
EXACT = 0.2  # noise below which no better coordinates are tried
KEPT = 0.9  # fraction of triangles
WORK_AT_MOST = 2e8  # atoms cubed times triangles
MOST_ATOMS = 300  # for more atoms, displacements are the coordinates
MOST_FRAMES, MOST_NUMBERS = 2000, 10_000_000  # examined, and compared, to find similar frames
ALL_DISTANCES_UP_TO = 64  # atoms
NEAR_EACH, FEWEST_COMPARED = 100, 100
FARTHEST_A = 0.65  # largest root mean square displacement between frames of a liquid that can be compared
REACH_A = 6.0  # longest distance used in larger systems
RIDGE = 1e-6  # of the mean square of the coordinates' gradients: rotations, and what distances do not fix, stay put


@dataclass(frozen=True)
class Comparison:
    """Energy differences of pairs of frames, and the work of the forces between them, eV."""

    differences: Float[Tensor, "pair"]
    work: Float[Tensor, "pair"]
    closure: Float[Tensor, "triangle"]  # work around triangles of frames; zero if the rule were exact

    @property
    def noise(self) -> float:
        """Relative error of the work, from the closure of triangles."""
        return float(self.closure.square().mean().div(3).sqrt() / self.work.square().mean().sqrt().clamp_min(1e-300))

    @property
    def slope(self) -> float:
        """Slope of the differences against the work: one for consistent labels, slightly less with noise."""
        return float((self.work * self.differences).sum() / self.work.square().sum().clamp_min(1e-300))

    @property
    def correlation(self) -> float:
        """Correlation of differences and work, from -1 to 1. Zero without differences."""
        size = (self.work.square().sum() * self.differences.square().sum()).sqrt()
        return float((self.work * self.differences).sum() / size.clamp_min(1e-300))


def compare(frames: Frames) -> Comparison | None:
    """Compare each frame with the two most similar ones.

    Args:
        frames: with forces, in eV and Å.

    Returns:
        The comparison. None if there are too few frames, or if they do not differ.
    """
    n_atoms = len(frames.atomic_numbers)
    if frames.forces is None or len(frames) < FEWEST_FRAMES or n_atoms < 2:
        return None
    most = min(MOST_FRAMES, max(FEWEST_COMPARED, MOST_NUMBERS // min(n_atoms**2, NEAR_EACH * n_atoms)))
    some = frames[:: -(-len(frames) // most)]
    count = int(min(MOST_TRIANGLES, max(FEWEST_TRIANGLES, WORK_AT_MOST / n_atoms**3), len(some)))
    anchors = torch.linspace(0, len(some) - 1, count).round().long()
    best = None
    if frames.cell is not None or n_atoms > MOST_ATOMS:
        best = _compared(some, _Displacements(some), anchors)
    if n_atoms <= MOST_ATOMS and (best is None or best.noise > EXACT):
        other = _compared(some, _Distances(some), anchors)
        best = other if best is None or (other is not None and other.noise < best.noise) else best
    return best


def _compared(
    frames: Frames, coordinates: _Displacements | _Distances, anchors: Int[Tensor, "anchor"]
) -> Comparison | None:
    triangles = [[anchor, *coordinates.nearest(anchor)] for anchor in anchors.tolist()]
    if _too_far(frames, triangles):
        return None
    differences, work = [], []
    for corners in triangles:
        for first, second in zip(corners, corners[1:] + corners[:1], strict=True):
            work.append(coordinates.work(first, second))
            differences.append(frames.energy[second].double() - frames.energy[first].double())
    rows = torch.stack(work).reshape(-1, 3)
    # Remove the largest triangles, so that one broken frame does not make the whole data set fail.
    kept = rows.square().sum(1).argsort()[: math.ceil(KEPT * len(rows))]
    chosen = torch.stack(differences).reshape(-1, 3)[kept]
    found = Comparison(chosen.reshape(-1), rows[kept].reshape(-1), rows[kept].sum(1))
    return found if bool(found.work.isfinite().all()) and float(found.work.abs().max()) > 0 else None


def _too_far(frames: Frames, triangles: list[list[int]]) -> bool:
    """Whether atoms of a periodic system have exchanged places even between the most similar frames."""
    if frames.cell is None:
        return False
    first, second, _ = torch.tensor(triangles).T
    steps = minimum_image(frames.positions[second].double() - frames.positions[first].double(), frames.cell.double())
    steps = steps - steps.mean(1, keepdim=True)
    return float(steps.square().sum(-1).mean(1).sqrt().median()) > FARTHEST_A


class _Displacements:
    """Cartesian coordinates, for crystals and large systems: the nearest images, without a common shift."""

    def __init__(self, frames: Frames) -> None:
        self.positions, self.forces = frames.positions.double(), frames.labels.double()
        self.cell = None if frames.cell is None else frames.cell.double()

    def nearest(self, anchor: int) -> list[int]:
        others = torch.arange(len(self.positions))
        distances = self._between(anchor, others).square().sum((1, 2))
        distances[others == anchor] = torch.inf
        return others[distances.argsort()[:2]].tolist()

    def work(self, first: int, second: int) -> Float[Tensor, ""]:
        step = self._between(first, torch.tensor([second]))[0]
        return -0.5 * ((self.forces[first] + self.forces[second]) * step).sum()

    def _between(self, first: int, others: Int[Tensor, "other"]) -> Float[Tensor, "other atom 3"]:
        steps = minimum_image(self.positions[others] - self.positions[first], self.cell)
        return steps - steps.mean(1, keepdim=True)


class _Distances:
    """Functions of distances between atoms, invariant under translation and rotation of the whole frame."""

    def __init__(self, frames: Frames) -> None:
        self.positions, self.forces = frames.positions.double(), frames.labels.double()
        self.cell = None if frames.cell is None else frames.cell.double()
        n_atoms = self.positions.shape[1]
        pairs = all_pairs(n_atoms)
        if n_atoms > ALL_DISTANCES_UP_TO or self.cell is not None:
            at = self.positions[0]
            near = minimum_image(at[pairs[:, 1]] - at[pairs[:, 0]], self.cell).norm(dim=-1) < REACH_A
            pairs = pairs[near]
        self.pairs = pairs
        self.values = torch.stack([self._at(one)[0] for one in self.positions])

    def nearest(self, anchor: int) -> list[int]:
        distances = (self.values - self.values[anchor]).square().sum(1)
        distances[anchor] = torch.inf
        return distances.argsort()[:2].tolist()

    def work(self, first: int, second: int) -> Float[Tensor, ""]:
        change = self.values[second] - self.values[first]
        start, end = ((self.forces[at] * self._displacement(at, change)).sum() for at in (first, second))
        return -0.5 * (start + end)

    def _at(self, positions: Float[Tensor, "atom 3"]) -> tuple[Float[Tensor, "pair"], Float[Tensor, "pair 3"]]:
        """The coordinates, and their gradients with respect to the second atom of each pair."""
        arms = minimum_image(positions[self.pairs[:, 1]] - positions[self.pairs[:, 0]], self.cell)
        lengths = arms.norm(dim=-1).clamp_min(1e-3)
        if self.cell is None:
            return 1 / lengths, -arms / lengths[:, None] ** 3
        values = torch.exp(-lengths)
        return values, -arms * (values / lengths)[:, None]

    def _displacement(self, frame: int, change: Float[Tensor, "pair"]) -> Float[Tensor, "atom 3"]:
        """The smallest displacement of the atoms with this change of coordinates, to first order (least squares)."""
        _, gradient = self._at(self.positions[frame])
        n_atoms, (first, second) = self.positions.shape[1], self.pairs.T
        outer = gradient[:, :, None] * gradient[:, None, :]
        matrix = torch.zeros(n_atoms * n_atoms, 3, 3, dtype=torch.float64)
        for i, j, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
            matrix.index_add_(0, i * n_atoms + j, sign * outer)
        matrix = matrix.reshape(n_atoms, n_atoms, 3, 3).transpose(1, 2).reshape(3 * n_atoms, 3 * n_atoms)
        matrix.diagonal().add_(RIDGE * matrix.diagonal().mean() + 1e-300)
        side = torch.zeros(n_atoms, 3, dtype=torch.float64)
        side.index_add_(0, second, change[:, None] * gradient).index_add_(0, first, -change[:, None] * gradient)
        return torch.cholesky_solve(side.reshape(-1, 1), torch.linalg.cholesky(matrix)).reshape(n_atoms, 3)
