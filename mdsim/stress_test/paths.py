"""Paths through configurations along which energies and forces must be smooth: stretches, bends, approaches, lines.

A path is a series of structures x(s) with its tangent dx/ds, so that the slope of the energy is -F·dx/ds. Parts that
bonds hold together move rigidly; atoms of a ring move alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order

from mdsim.geometry import all_pairs, angles, minimum_image, pair_distances
from mdsim.observables.adf import bonded_triplets
from mdsim.stability.support import coordinate_name
from mdsim.stability.topology import classes_of_tuples, pairs_held_by_bonds
from mdsim.state import System
from mdsim.stress_test.structure import Structure, covalent_radii_A
from mdsim.typing import Bool, Float, Tensor

STRETCH = (0.6, 1.8)  # of the bond length
BEND_DEG, WIDEST_DEG, NARROWEST_DEG = 60.0, 175.0, 40.0
APPROACH = 0.5  # closest distance, in sums of covalent radii
BREATHING = (0.9, 1.12)  # of all distances
LINE_A = 0.25  # half length of a line, rms per coordinate
MOST_ATOMS_IN_PAIRS = 2000  # among which close pairs are searched for


@dataclass(frozen=True, eq=False)
class Path:
    """Structures along one coordinate."""

    kind: str  # stretch, bend, approach, breathing or line
    name: str
    unit: str
    coordinate: Float[Tensor, "point"]
    start: int  # index of the point that is the structure, or next to it
    positions: Float[Tensor, "point atom 3"]
    tangent: Float[Tensor, "point atom 3"]
    radii_A: float = 0.0  # sum of the covalent radii of the two atoms of a stretch or an approach


def stretches(structure: Structure, most: int, n_points: int) -> list[Path]:
    """One path per class of covalent bonds, or per class of all bonds where none is covalent."""
    system = structure.topology if len(structure.topology.bonds) else structure.system
    found = []
    for members in classes_of_tuples(system, system.bonds)[:most]:
        i, j = system.bonds[members[0]].tolist()
        length = float(pair_distances(structure.reference, torch.tensor([[i, j]]), system.cell))
        values = torch.linspace(STRETCH[0] * length, STRETCH[1] * length, n_points, dtype=torch.float64)
        found.append(_along_pair(structure, system, i, j, values, "stretch", coordinate_name("bond", system, (i, j))))
    return found


def approaches(structure: Structure, most: int, n_points: int) -> list[Path]:
    """For each pair of elements, the closest pair of atoms that no bonds hold together, moved towards each other."""
    system = structure.topology
    radii = covalent_radii_A(system)
    found = []
    for i, j in _closest_of_each_kind(structure)[:most]:
        distance = float(pair_distances(structure.reference, torch.tensor([[i, j]]), system.cell))
        closest = APPROACH * float(radii[i] + radii[j])
        if distance > 1.05 * closest:
            values = torch.linspace(closest, 1.05 * distance, n_points, dtype=torch.float64)
            found.append(
                _along_pair(structure, system, i, j, values, "approach", coordinate_name("contact", system, (i, j)))
            )
    return found


def bends(structure: Structure, most: int, n_points: int) -> list[Path]:
    """One path per class of angles between covalent bonds; first those outside rings, at atoms with few bonds."""
    system, reference = structure.topology, structure.reference
    found = []
    for i, j, k, moving in _softest_angles(system)[:most]:
        here = float(torch.rad2deg(angles(reference, torch.tensor([[i, j, k]]), system.cell)))
        low, high = max(NARROWEST_DEG, here - BEND_DEG), min(WIDEST_DEG, here + BEND_DEG)
        if not low < here < high:
            continue
        axis, arms = _axis(structure, i, j, k)
        values = torch.linspace(low, high, n_points, dtype=torch.float64)
        turned = _rotated(arms, axis, torch.deg2rad(values - here))
        positions = torch.where(moving[:, None], reference[j] + turned, reference)
        spin = torch.linalg.cross(axis.expand_as(turned), turned) * (np.pi / 180)
        tangent = torch.where(moving[:, None], spin, 0.0)
        start = int((values - here).abs().argmin())
        name = coordinate_name("angle", system, (min(i, k), j, max(i, k)))
        found.append(Path("bend", name, "degree", values, start, positions, tangent))
    return found


def lines(structure: Structure, generator: torch.Generator, count: int, n_points: int) -> list[Path]:
    """Straight lines through the structure, on which light atoms move more."""
    reference, masses = structure.reference, structure.system.masses
    found = []
    for number in range(count):
        noise = torch.randn(reference.shape, generator=generator, dtype=torch.float64) / masses.sqrt()[:, None]
        direction = noise / noise.square().mean().sqrt()
        values = torch.linspace(-LINE_A, LINE_A, n_points, dtype=torch.float64)
        positions = reference + values[:, None, None] * direction
        start = n_points // 2
        found.append(Path("line", f"line {number}", "Å", values, start, positions, direction.expand_as(positions)))
    return found


def breathing(structure: Structure, n_points: int) -> Path:
    """All distances of an open system scaled together, so that many pairs cross each cutoff."""
    reference = structure.reference
    center = reference.mean(0)
    values = torch.linspace(*BREATHING, n_points, dtype=torch.float64)
    positions = center + values[:, None, None] * (reference - center)
    start = int((values - 1).abs().argmin())
    name = "scaling of all distances"
    return Path("breathing", name, "", values, start, positions, (reference - center).expand_as(positions))


def _softest_angles(system: System) -> list[tuple[int, int, int, Bool[Tensor, "atom"]]]:
    """An angle i-j-k of each class and the atoms that move with i: the smaller part, or i alone in a ring."""
    triplets = bonded_triplets(system)
    n_bonds = torch.bincount(system.bonds.flatten(), minlength=system.n_atoms)
    found = []
    for members in classes_of_tuples(system, triplets):
        i, j, k = triplets[members[0]].tolist()
        parts = {(i, k): _part(system, i, j), (k, i): _part(system, k, j)}
        (first, last), moving = min(parts.items(), key=lambda item: int(item[1].sum()))
        in_ring = bool(moving[j])
        order = in_ring, int(n_bonds[j]), int(moving.sum())
        alone = torch.zeros_like(moving)
        alone[first] = True
        found.append((order, (first, j, last, alone if in_ring else moving)))
    return [angle for _, angle in sorted(found, key=lambda item: item[0])]


def _along_pair(
    structure: Structure, system: System, i: int, j: int, values: Float[Tensor, "point"], kind: str, name: str
) -> Path:
    """Path on which the distance of two atoms changes. The smaller part moves, or the lighter atom alone."""
    reference = structure.reference
    arm = minimum_image(reference[j] - reference[i], system.cell)
    distance = torch.linalg.vector_norm(arm)
    along = arm / distance
    part, other = _part(system, j, i), _part(system, i, j)
    moving, sign = (part, 1.0) if part.sum() <= other.sum() else (other, -1.0)
    if moving[i] and moving[j]:  # bonds hold them together elsewhere
        first_is_lighter = system.masses[i] < system.masses[j]
        moving, sign = torch.zeros_like(part), -1.0 if first_is_lighter else 1.0
        moving[i if first_is_lighter else j] = True
    tangent = torch.where(moving[:, None], sign * along, torch.zeros_like(reference))
    positions = reference + (values - distance)[:, None, None] * tangent
    radii = covalent_radii_A(system)
    start = int((values - distance).abs().argmin())
    sums = float(radii[i] + radii[j])
    return Path(kind, name, "Å", values, start, positions, tangent.expand_as(positions), sums)


def _part(system: System, atom: int, away_from: int) -> Bool[Tensor, "atom"]:
    """Atoms that bonds connect with an atom when its bond to another one is cut."""
    bonds = system.bonds.numpy()
    cut = ((bonds == atom) | (bonds == away_from)).all(1)
    first, second = bonds[~cut].T
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(system.n_atoms,) * 2)
    found = torch.zeros(system.n_atoms, dtype=torch.bool)
    found[torch.from_numpy(breadth_first_order(graph.tocsr(), atom, False, False).astype(np.int64))] = True
    return found


def _closest_of_each_kind(structure: Structure) -> list[Sequence[int]]:
    """The closest nonbonded pair of each pair of elements, within and between molecules."""
    system = structure.topology
    pairs = all_pairs(system.n_atoms)
    pairs = pairs[(pairs < MOST_ATOMS_IN_PAIRS).all(-1)]
    codes = pairs[:, 0] * system.n_atoms + pairs[:, 1]
    held = pairs_held_by_bonds(system)
    pairs = pairs[~torch.isin(codes, held[:, 0] * system.n_atoms + held[:, 1])]
    if not len(pairs):
        return []
    distances = pair_distances(structure.reference, pairs, system.cell)
    numbers = system.atomic_numbers[pairs].sort(-1).values
    between = system.molecules[pairs[:, 0]] != system.molecules[pairs[:, 1]]
    kinds = torch.unique(torch.cat([numbers, between[:, None].long()], 1), dim=0, return_inverse=True)[1]
    chosen = []
    for kind in range(int(kinds.max()) + 1):
        members = torch.nonzero(kinds == kind)[:, 0]
        chosen.append(members[distances[members].argmin()])
    closest = torch.stack(chosen)
    relative = distances[closest] / covalent_radii_A(system)[pairs[closest]].sum(-1)
    return pairs[closest[relative.argsort()]].tolist()


def _axis(structure: Structure, i: int, j: int, k: int) -> tuple[Float[Tensor, "3"], Float[Tensor, "atom 3"]]:
    """Axis at atom j that widens the angle when atom i turns about it, and the vectors from j to all atoms."""
    arms = structure.reference - structure.reference[j]
    first, second = (minimum_image(arms[atom], structure.system.cell) for atom in (i, k))
    normal = torch.linalg.cross(second, first)
    return normal / torch.linalg.vector_norm(normal), arms


def _rotated(
    vectors: Float[Tensor, "atom 3"], axis: Float[Tensor, "3"], turns: Float[Tensor, "point"]
) -> Float[Tensor, "point atom 3"]:
    """Vectors rotated about an axis (Rodrigues)."""
    cosine, sine = turns.cos()[:, None, None], turns.sin()[:, None, None]
    across = torch.linalg.cross(axis.expand_as(vectors), vectors)
    return cosine * vectors + sine * across + (1 - cosine) * (vectors @ axis)[:, None] * axis
