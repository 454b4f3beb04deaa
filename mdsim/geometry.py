"""Displacements, distances, angles and center-of-mass helpers, with and without periodic boundaries."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from ase.geometry.minkowski_reduction import minkowski_reduce
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mdsim.kept import Kept
from mdsim.typing import Bool, Float, Int, Tensor

#: Largest off-diagonal element of a cell, relative to its longest edge, that is due to rounding.
ROUNDING = 1e-7
#: Lattice vectors as rows, Å.
Rows = tuple[tuple[float, ...], ...]
#: Sine of a bond angle below which three atoms are on a line. Single-precision rounding turns the plane through them.
STRAIGHT = 1e-4


def minimum_image(
    displacements: Float[Tensor, "*batch 3"], cell: Float[Tensor, "*leading 3 3"] | None
) -> Float[Tensor, "*batch 3"]:
    """Shortest periodic image of each displacement.

    The result is exact for every cell. A triclinic cell is first Minkowski-reduced (the same lattice, spanned by its
    shortest vectors). It is then sufficient to round the fractional displacement and to search the 27 images around it
    (Nguyen and Stehlé, ACM Trans. Algorithms 5, 46 (2009)). An orthorhombic cell needs only the rounding, and so do
    vectors shorter than half the shortest lattice vector, such as bonds in a large cell. Several triclinic cells are
    reduced like the first, which is exact as long as they are strained by a few percent.

    Args:
        displacements: vectors in Å.
        cell: lattice vectors as rows in Å; None for open boundaries, which returns the input. Several cells have the
            leading axes of the displacements.

    Returns:
        Vectors in Å, with the gradients of the displacements and of the cell.
    """
    if cell is None:
        return displacements
    if cell.ndim > 2:
        return _in_many_cells(displacements, cell) if len(displacements) else displacements
    rows = rows_of(cell)
    cell = cell.to(displacements)
    if _are_orthogonal(rows):
        edges = torch.diagonal(cell)
        steps = torch.round(displacements * (1 / edges)).detach()
        # The product with all elements costs more, and only a derivative with respect to them needs it.
        return displacements - (steps @ cell if cell.requires_grad else steps * edges)
    cell = (_reduction(rows, cell.device) @ cell.double()).to(cell)
    wrapped = displacements - torch.round(displacements @ torch.linalg.inv(cell)).detach() @ cell
    if wrapped.device.type == "cpu" and _all_shorter(wrapped, 0.5 * float(cell.detach().norm(dim=-1).min())):
        return wrapped  # a GPU would wait for the comparison
    # |w ± s|² - |w|² = s² ± 2 w·s: one number per pair of opposite images, instead of six coordinates.
    shifts = _half_of_the_images(wrapped.device).to(wrapped) @ cell
    along = wrapped.detach() @ shifts.T
    gain, nearest = (shifts.square().sum(-1) - 2 * along.abs()).min(-1)
    steps = torch.where(gain < 0, -along.gather(-1, nearest[..., None])[..., 0].sign(), 0.0)
    return wrapped + steps[..., None] * shifts[nearest]


def _in_many_cells(
    displacements: Float[Tensor, "*batch 3"], cells: Float[Tensor, "*leading 3 3"]
) -> Float[Tensor, "*batch 3"]:
    """`minimum_image` in cells that differ. Vectors in a cell that is not finite become NaN."""
    cells = cells.flatten(0, -3).to(displacements)
    flat = displacements.reshape(len(cells), -1, 3)  # cell, vector, axis
    finite = cells.isfinite().all(-1).all(-1)
    example = cells[finite][:1]
    if not len(example):
        return torch.full_like(displacements, torch.nan)
    safe = torch.where(finite[:, None, None], cells, example)
    is_orthogonal = is_orthorhombic(safe)
    if not is_orthogonal:
        safe = (_reduction(rows_of(example[0]), safe.device) @ safe.double()).to(safe)
    nearest = flat - torch.round(flat @ torch.linalg.inv(safe)).detach() @ safe
    if not is_orthogonal:
        shifts = _half_of_the_images(safe.device).to(safe) @ safe  # cell, image, axis
        gain, image = (shifts.square().sum(-1)[:, None] - 2 * (nearest.detach() @ shifts.mT).abs()).min(-1)
        chosen = shifts.gather(1, image[..., None].expand(-1, -1, 3))
        steps = torch.where(gain < 0, -(nearest.detach() * chosen.detach()).sum(-1).sign(), 0.0)
        nearest = nearest + steps[..., None] * chosen
    return torch.where(finite[:, None, None], nearest, torch.nan).reshape(displacements.shape)


def _all_shorter(vectors: Float[Tensor, "*batch 3"], length: float) -> bool:
    return not vectors.numel() or float(vectors.detach().square().sum(-1).max()) < length**2


def wrap(positions: Float[Tensor, "*batch atom 3"], cell: Float[Tensor, "3 3"]) -> Float[Tensor, "*batch atom 3"]:
    """Positions moved by whole lattice vectors into the cell at the origin. Its faces may divide molecules."""
    cell = cell.to(positions)
    return positions - torch.floor(positions @ torch.linalg.inv(cell)) @ cell


def whole_molecules(
    positions: Float[Tensor, "*batch atom 3"], bonds: Int[Tensor, "bond 2"], cell: Float[Tensor, "*leading 3 3"] | None
) -> Float[Tensor, "*batch atom 3"]:
    """Positions in which no bond crosses a face of the cell. The first atom of each molecule does not move.

    Atoms are moved by whole lattice vectors, so that every bond is its minimum image. Molecules that are already whole
    are returned unchanged. The bonds of a ring must be consistent. They are if they are shorter than half the cell.

    Args:
        positions: Å, wrapped or not.
        bonds: each once, i < j, as in `System.bonds`.
        cell: lattice vectors as rows in Å; None for open boundaries, which returns the input.
    """
    if cell is None or not len(bonds):
        return positions
    cell = cell.to(positions)
    first, second = bonds.T
    across = _lattice_steps(positions[..., second, :] - positions[..., first, :], cell)
    steps = torch.zeros_like(positions)
    placed = torch.ones(positions.shape[-2], dtype=torch.bool, device=positions.device)
    placed[_beyond_the_first_atom(bonds, len(placed))] = False
    while not bool(placed.all()):  # one pass per generation of bonded neighbors
        for known, new, sign in ((first, second, 1.0), (second, first, -1.0)):
            grows = placed[known] & ~placed[new]
            steps[..., new[grows], :] = steps[..., known[grows], :] + sign * across[..., grows, :]
            placed = placed.index_fill(0, new[grows], True)
    return positions + steps @ cell


def unwrapped_in_time(
    positions: Float[Tensor, "frame *batch atom 3"], cell: Float[Tensor, "3 3"] | None
) -> Float[Tensor, "frame *batch atom 3"]:
    """Consecutive frames without the jumps of atoms that were wrapped into the cell.

    Each atom is moved by whole lattice vectors to the image nearest to its position one frame before. This is its true
    path if it moves by less than half the cell between frames. Paths without jumps are returned unchanged.
    """
    if cell is None:
        return positions
    cell = cell.to(positions)
    steps = _lattice_steps(positions.diff(dim=0), cell).cumsum(0)
    return positions + torch.cat([torch.zeros_like(positions[:1]), steps]) @ cell


def _lattice_steps(displacements: Tensor, cell: Float[Tensor, "*leading 3 3"]) -> Tensor:
    """Integer numbers of lattice vectors to add to each displacement for its shortest image."""
    return torch.round((minimum_image(displacements, cell) - displacements) @ torch.linalg.inv(cell))


def _beyond_the_first_atom(bonds: Int[Tensor, "bond 2"], n_atoms: int) -> Int[Tensor, "other"]:
    """Atoms except the one with the lowest index in each molecule."""
    graph = coo_matrix((np.ones(len(bonds)), bonds.cpu().numpy().T), shape=(n_atoms, n_atoms))
    molecule = connected_components(graph, directed=False)[1]
    first = np.unique(molecule, return_index=True)[1]
    return torch.from_numpy(np.setdiff1d(np.arange(n_atoms), first)).to(bonds.device)


def is_orthorhombic(cell: Float[Tensor, "*cells 3 3"]) -> bool:
    """Whether the lattice vectors of a cell, or of all cells, are parallel to the axes, up to rounding."""
    if cell.ndim == 2:
        return _are_orthogonal(rows_of(cell))
    finite = _finite(cell.detach())
    diagonal = torch.diagonal(finite, dim1=-2, dim2=-1)
    across = (finite - torch.diag_embed(diagonal)).abs().amax((-2, -1))
    return bool((across <= ROUNDING * diagonal.abs().amax(-1)).all())


def rows_of(cell: Float[Tensor, "3 3"]) -> Rows:
    """The numbers of a cell (Å) on the host."""
    return _rows(cell)


_rows: Kept[Rows] = Kept(lambda cell: tuple(map(tuple, cell.detach().tolist())))


def _are_orthogonal(rows: Rows) -> bool:
    longest = max(abs(rows[axis][axis]) for axis in range(3))
    across = (abs(rows[i][j]) for i in range(3) for j in range(3) if i != j)
    is_finite = all(math.isfinite(number) for row in rows for number in row)
    return is_finite and all(number <= ROUNDING * longest for number in across)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _reduction(rows: Rows, device: torch.device) -> Float[Tensor, "3 3"]:
    """Integers that combine the lattice vectors to the shortest ones of the same lattice, float64."""
    return torch.from_numpy(minkowski_reduce(rows)[1].astype(np.float64)).to(device)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _half_of_the_images(device: torch.device) -> Float[Tensor, "image 3"]:
    """One of each two opposite translations to the 26 cells around a cell."""
    return torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 3)[14:].to(device)


def pair_distances(
    positions: Float[Tensor, "*batch atom 3"],
    pairs: Int[Tensor, "pair 2"],
    cell: Float[Tensor, "*leading 3 3"] | None = None,
) -> Float[Tensor, "*batch pair"]:
    """Minimum-image distances in Å between the given pairs of atoms."""
    displacements = positions[..., pairs[:, 1], :] - positions[..., pairs[:, 0], :]
    return torch.linalg.vector_norm(minimum_image(displacements, cell), dim=-1)


def angles(
    positions: Float[Tensor, "*batch atom 3"],
    triplets: Int[Tensor, "triplet 3"],
    cell: Float[Tensor, "*leading 3 3"] | None = None,
) -> Float[Tensor, "*batch triplet"]:
    """Angles in radians at the middle atom of each triplet (i, j, k), from the arms j→i and j→k.

    Uses atan2(|a × b|, a · b), which is accurate and differentiable at 0 and π where acos is not.
    """
    first = minimum_image(positions[..., triplets[:, 0], :] - positions[..., triplets[:, 1], :], cell)
    second = minimum_image(positions[..., triplets[:, 2], :] - positions[..., triplets[:, 1], :], cell)
    sine = torch.linalg.vector_norm(torch.linalg.cross(first, second), dim=-1)
    return torch.atan2(sine, (first * second).sum(-1))


def angles_deg(
    positions: Float[Tensor, "*batch atom 3"],
    triplets: Int[Tensor, "triplet 3"],
    cell: Float[Tensor, "*leading 3 3"] | None = None,
) -> Float[Tensor, "*batch triplet"]:
    """`angles` in degrees."""
    return torch.rad2deg(angles(positions, triplets, cell))


def dihedrals(
    positions: Float[Tensor, "*batch atom 3"],
    quadruplets: Int[Tensor, "quadruplet 4"],
    cell: Float[Tensor, "*leading 3 3"] | None = None,
) -> Float[Tensor, "*batch quadruplet"]:
    """Dihedral angles in radians of each quadruplet (i, j, k, l), in (-π, π].

    The sign is that of IUPAC: 0 is cis, and positive is clockwise from j-i to k-l, seen along j→k. Mirror images have
    opposite signs. Uses atan2, which is accurate and differentiable at all angles (Blondel and Karplus, J. Comput.
    Chem. 17, 1132 (1996)).

    Returns:
        NaN where i, j, k or j, k, l are on a line, because the angle is undefined there.
    """
    i, j, k, end = (positions[..., column, :] for column in quadruplets.T)
    first, axis, last = (minimum_image(to - start, cell) for start, to in ((i, j), (j, k), (k, end)))
    left, right = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    undefined = _on_a_line(first, axis, left) | _on_a_line(axis, last, right)
    # A harmless angle in its place keeps the gradients of the other quadruplets finite.
    sine = torch.where(undefined, 0.0, torch.linalg.vector_norm(axis, dim=-1) * (first * right).sum(-1))
    cosine = torch.where(undefined, 1.0, (left * right).sum(-1))
    angle = torch.atan2(sine, cosine)
    return torch.where(undefined, torch.nan, torch.where(angle <= -math.pi, -angle, angle))


def _on_a_line(
    one: Float[Tensor, "*batch 3"], other: Float[Tensor, "*batch 3"], cross: Float[Tensor, "*batch 3"]
) -> Bool[Tensor, "*batch"]:
    """Whether two vectors are parallel, or one is zero, from their cross product."""
    lengths = torch.linalg.vector_norm(one, dim=-1) * torch.linalg.vector_norm(other, dim=-1)
    return torch.linalg.vector_norm(cross, dim=-1) <= STRAIGHT * lengths


def dihedrals_deg(
    positions: Float[Tensor, "*batch atom 3"],
    quadruplets: Int[Tensor, "quadruplet 4"],
    cell: Float[Tensor, "*leading 3 3"] | None = None,
) -> Float[Tensor, "*batch quadruplet"]:
    """`dihedrals` in degrees, in (-180, 180]."""
    return torch.rad2deg(dihedrals(positions, quadruplets, cell)).clamp(max=180.0)


def center_of_mass(
    positions: Float[Tensor, "*batch atom 3"], masses: Float[Tensor, "atom"]
) -> Float[Tensor, "*batch 1 3"]:
    """Mass-weighted mean of positions (or of velocities)."""
    weights = (masses / masses.sum()).to(positions)
    return (weights[:, None] * positions).sum(-2, keepdim=True)


def half_height_A(cell: Float[Tensor, "*cells 3 3"]) -> float:
    """Half the smallest distance between opposite faces of a cell, Å. Shorter distances have a unique image.

    Of several cells, those that are finite count.
    """
    finite = _finite(cell.double())
    if not len(finite):
        return math.inf
    return 0.5 * float(1.0 / torch.linalg.vector_norm(torch.linalg.inv(finite), dim=-2).max())


def volume(cell: Float[Tensor, "*cells 3 3"]) -> Float[Tensor, "*cells"]:
    """Volume of each cell, Å³."""
    first, second, third = cell.unbind(-2)
    return (first * torch.linalg.cross(second, third)).sum(-1).abs()


def largest_cell(cell: Float[Tensor, "*cells 3 3"]) -> Float[Tensor, "3 3"]:
    """The only cell, or the one of the largest volume among those that are finite."""
    if cell.ndim == 2:
        return cell
    finite = _finite(cell)
    return finite[volume(finite).argmax()] if len(finite) else torch.full_like(cell.reshape(-1, 3, 3)[0], math.inf)


def outer(a: Float[Tensor, "*vectors 3"], b: Float[Tensor, "*vectors 3"]) -> Float[Tensor, "*vectors 3 3"]:
    """Outer products of vectors. Not as matrix products, which lose digits in mixed precision."""
    return a[..., :, None] * b[..., None, :]


def _finite(cells: Float[Tensor, "*cells 3 3"]) -> Float[Tensor, "chosen 3 3"]:
    cells = cells.reshape(-1, 3, 3)
    return cells[cells.isfinite().all(-1).all(-1)]


def all_pairs(n_atoms: int, device: torch.device | None = None) -> Int[Tensor, "pair 2"]:
    """All unordered pairs of atoms, i < j."""
    return torch.triu_indices(n_atoms, n_atoms, offset=1, device=device).T
