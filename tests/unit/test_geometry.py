"""Displacements, distances and angles against closed forms and brute force."""

import math

import pytest
import torch

from mdsim.geometry import (
    all_pairs,
    angles,
    center_of_mass,
    dihedrals,
    dihedrals_deg,
    is_orthorhombic,
    minimum_image,
    pair_distances,
    unwrapped_in_time,
    whole_molecules,
    wrap,
)

CELLS = {
    "orthorhombic": [[6.0, 0, 0], [0, 7.5, 0], [0, 0, 9.0]],
    "reduced triclinic": [[7.0, 0, 0], [2.5, 6.5, 0], [-2.0, 1.5, 6.0]],
    "non-reduced": [[5.0, 0, 0], [12.0, 6.0, 0], [-9.0, 11.0, 7.0]],
    "needle": [[1.0, 0, 0], [7.3, 0.9, 0], [-11.2, 4.4, 25.0]],
    "left-handed": [[0, 6.0, 0.5], [6.0, 0.3, 0], [1.0, 0, 6.0]],
}


def _cell(name: str) -> torch.Tensor:
    return torch.tensor(CELLS[name], dtype=torch.float64)


def _shortest_by_brute_force(displacements: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    wrapped = displacements - torch.round(displacements @ torch.linalg.inv(cell)) @ cell
    images = torch.cartesian_prod(*[torch.arange(-n, n + 1, dtype=torch.float64) for n in (30, 14, 3)]) @ cell
    return torch.stack([(vector + images).norm(dim=-1).min() for vector in wrapped])


@pytest.mark.parametrize("name", CELLS)
def test_minimum_image_is_the_shortest_image(name, generator):
    cell = _cell(name)
    displacements = 40.0 * torch.randn(100, 3, generator=generator, dtype=torch.float64)
    found = minimum_image(displacements, cell)
    torch.testing.assert_close(found.norm(dim=-1), _shortest_by_brute_force(displacements, cell), rtol=0, atol=1e-10)
    translations = (found - displacements) @ torch.linalg.inv(cell)
    torch.testing.assert_close(translations, translations.round(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("longest", [0.99, 1.01, 1.5])
def test_vectors_about_as_long_as_half_the_shortest_lattice_vector(name, longest, generator):
    """Shorter ones, all together, are taken as they are."""
    cell = _cell(name)
    images = torch.cartesian_prod(*[torch.arange(-n, n + 1, dtype=torch.float64) for n in (30, 14, 3)]) @ cell
    lengths = images.norm(dim=-1)
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator, dtype=torch.float64), dim=-1)
    displacements = longest * 0.5 * lengths[lengths > 1e-9].min() * directions
    found = minimum_image(displacements + images[torch.randint(len(images), (200,), generator=generator)], cell)
    torch.testing.assert_close(found.norm(dim=-1), _shortest_by_brute_force(displacements, cell))


@pytest.mark.parametrize("name", CELLS)
def test_minimum_image_passes_gradients_unchanged(name, generator):
    displacements = (20.0 * torch.randn(5, 4, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    minimum_image(displacements, _cell(name)).sum().backward()
    torch.testing.assert_close(displacements.grad, torch.ones(5, 4, 3, dtype=torch.float64))


def test_minimum_image_with_open_boundaries(generator):
    displacements = torch.randn(3, 2, 3, generator=generator)
    assert minimum_image(displacements, None) is displacements


def test_minimum_image_leaves_non_finite_rows_to_themselves():
    displacements = torch.tensor([[float("nan"), 0, 0], [5.9, 0, 0]], dtype=torch.float64)
    found = minimum_image(displacements, _cell("reduced triclinic"))
    assert found[0].isnan().any()
    torch.testing.assert_close(found[1], torch.tensor([-1.1, 0, 0], dtype=torch.float64))


def test_pair_distances_of_a_square():
    positions = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.float64)
    distances = pair_distances(positions.expand(2, 3, 4, 3), all_pairs(4))
    expected = torch.tensor([1, math.sqrt(2), 1, 1, math.sqrt(2), 1], dtype=torch.float64)
    torch.testing.assert_close(distances, expected.expand(2, 3, 6))


def test_pair_distances_across_a_boundary():
    positions = torch.tensor([[0.2, 0, 0], [5.9, 0, 0]], dtype=torch.float64)
    distance = pair_distances(positions, torch.tensor([[0, 1]]), _cell("orthorhombic"))
    torch.testing.assert_close(distance, torch.tensor([0.3], dtype=torch.float64))


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 30.0, 90.0, 104.5, 179.9999, 180.0])
def test_angles(degrees):
    angle = math.radians(degrees)
    positions = torch.tensor(
        [[1.3, 0, 0], [0, 0, 0], [0.7 * math.cos(angle), 0.7 * math.sin(angle), 0]], dtype=torch.float64
    )
    found = angles(positions, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(found, torch.tensor([angle], dtype=torch.float64), rtol=0, atol=1e-12)


def test_angles_use_the_minimum_image(generator):
    cell = _cell("reduced triclinic")
    positions = torch.tensor([[0.9, 0.2, 0], [0, 0, 0], [-0.3, 0.9, 0.1]], dtype=torch.float64)
    jumps = torch.randint(-3, 4, (3, 3), generator=generator).double()
    triplets = torch.tensor([[0, 1, 2]])
    torch.testing.assert_close(angles(positions + jumps @ cell, triplets, cell), angles(positions, triplets))


def test_angle_gradients(generator):
    positions = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: angles(x, torch.tensor([[0, 1, 2], [1, 0, 2]])), (positions,))


QUADRUPLET = torch.tensor([[0, 1, 2, 3]])


def _twisted(degrees: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Four atoms with bonds of different lengths and bond angles of 100 and 125 degrees."""
    one, other, turn = map(math.radians, (100.0, 125.0, degrees))
    end = [1.5 - 0.9 * math.cos(other), *(0.9 * math.sin(other) * part for part in (math.cos(turn), math.sin(turn)))]
    first = [1.2 * math.cos(one), 1.2 * math.sin(one), 0.0]
    return torch.tensor([first, [0.0, 0, 0], [1.5, 0, 0], end], dtype=dtype)


@pytest.mark.parametrize("degrees", [-180 + 1e-9, -179.999, -120.0, -1e-4, 0.0, 30.0, 90.0, 179.9999, 180.0])
def test_dihedrals(degrees):
    positions = _twisted(degrees)
    expected = torch.tensor([math.radians(degrees)], dtype=torch.float64)
    torch.testing.assert_close(dihedrals(positions, QUADRUPLET), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(dihedrals(positions.flip(0), QUADRUPLET), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(dihedrals_deg(positions, QUADRUPLET), torch.rad2deg(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_trans_dihedral_is_plus_180(dtype, sign):
    positions = _twisted(180.0, dtype)
    positions[3, 2] = sign * 0.0
    positions[0, 2] = -sign * 0.0
    assert dihedrals_deg(positions, QUADRUPLET).tolist() == [180.0]


def test_the_mirror_image_has_the_opposite_dihedral(generator):
    positions = torch.randn(50, 4, 3, generator=generator, dtype=torch.float64)
    mirror = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    mirror = mirror * -torch.linalg.det(mirror)  # a rotation and a reflection
    torch.testing.assert_close(dihedrals(positions @ mirror, QUADRUPLET), -dihedrals(positions, QUADRUPLET))


@pytest.mark.parametrize("name", ["orthorhombic", "reduced triclinic"])
def test_dihedrals_use_the_minimum_image(name, generator):
    cell, positions = _cell(name), _twisted(-73.0)
    jumps = torch.randint(-3, 4, (4, 3), generator=generator).double()
    found = dihedrals(positions + jumps @ cell, QUADRUPLET, cell)
    torch.testing.assert_close(found, dihedrals(positions, QUADRUPLET), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_atoms_on_a_line_have_no_dihedral(dtype):
    straight, apart = _twisted(40.0, dtype), _twisted(40.0, dtype)
    straight[0] = torch.tensor([-1.2, 0.0, 0.0])
    coincident = _twisted(40.0, dtype)
    coincident[3] = coincident[2]
    positions = torch.stack([straight, apart, coincident]).requires_grad_()
    found = dihedrals(positions, QUADRUPLET)[:, 0]
    assert found.isnan().tolist() == [True, False, True]
    (gradient,) = torch.autograd.grad(found[1], positions)
    assert gradient.isfinite().all() and gradient[1].abs().max() > 0


def test_dihedrals_in_single_precision_down_to_the_line(generator):
    """Near a line, rounding turns the plane by the ratio of rounding to the sine of the bond angle, and no further."""
    for sine in (0.1, 1e-2, 1e-3, 3e-4):
        positions = _twisted(40.0).repeat(200, 1, 1)
        positions[:, 0] = torch.tensor([-1.2 * math.sqrt(1 - sine**2), 1.2 * sine, 0.0])
        moved = positions + 5 * torch.rand(200, 1, 3, generator=generator, dtype=torch.float64)
        found = dihedrals_deg(moved.float(), QUADRUPLET)
        assert found.isfinite().all()
        assert float((found - 40.0).abs().max()) < math.degrees(4e-6 / (1.2 * sine))


def test_dihedral_gradients(generator):
    positions = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    quadruplets = torch.tensor([[0, 1, 2, 3], [4, 2, 0, 1]])
    assert torch.autograd.gradcheck(lambda x: dihedrals(x, quadruplets), (positions,))


def test_center_of_mass():
    positions = torch.tensor([[0.0, 0, 0], [3, 0, 0]], dtype=torch.float64).expand(5, 2, 3)
    center = center_of_mass(positions, torch.tensor([2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(center, torch.tensor([1.0, 0, 0], dtype=torch.float64).expand(5, 1, 3))


def test_all_pairs():
    assert all_pairs(4).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert all_pairs(1).shape == (0, 2)


def _chain_and_ring(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Atoms of a bent chain of seven, a ring of five and one alone, in shuffled order, and their bonds."""
    steps = torch.tensor(
        [[1.0, 0.3, 0], [0.2, 1.1, 0.4], [0, 0.2, 1.2], [-0.9, 0.4, 0.1], [0.1, -1.0, 0], [0.7, 0, 0.8]]
    )
    chain = torch.cat([torch.zeros(1, 3), steps.cumsum(0)])
    turn = 2 * math.pi / 5 * torch.arange(5)
    ring = torch.stack([turn.cos() + 4, turn.sin(), 0.2 * turn], dim=1)
    bonds = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [7, 8], [8, 9], [9, 10], [10, 11], [7, 11]])
    place = torch.randperm(13, generator=generator)
    positions = torch.empty(13, 3, dtype=torch.float64)
    positions[place] = torch.cat([chain, ring, torch.tensor([[9.0, 9, 9]])]).double()
    return positions, place[bonds].sort(dim=1).values


@pytest.mark.parametrize("name", ["orthorhombic", "reduced triclinic", "non-reduced", "left-handed"])
def test_wrapped_molecules_are_made_whole(name, generator):
    cell = _cell(name)
    geometry, bonds = _chain_and_ring(generator)
    shifts = 10.0 * torch.randn(3, 2, 1, 3, generator=generator, dtype=torch.float64)
    intact = geometry + shifts
    wrapped = wrap(intact, cell)
    fractional = wrapped @ torch.linalg.inv(cell)
    assert fractional.min() > -1e-12 and fractional.max() < 1 + 1e-12
    whole = whole_molecules(wrapped, bonds, cell)
    vectors = whole[..., bonds[:, 1], :] - whole[..., bonds[:, 0], :]
    torch.testing.assert_close(vectors, (geometry[bonds[:, 1]] - geometry[bonds[:, 0]]).expand_as(vectors))
    translations = (whole - wrapped) @ torch.linalg.inv(cell)
    torch.testing.assert_close(translations, translations.round(), rtol=0, atol=1e-9)
    assert torch.equal(whole_molecules(intact, bonds, cell), intact), "whole molecules come back bit for bit"


def test_the_first_atom_of_a_molecule_stays():
    cell = _cell("orthorhombic")
    positions = torch.tensor([[0.2, 1.0, 1.0], [5.8, 1.0, 1.0], [5.9, 8.0, 1.0]], dtype=torch.float64)
    whole = whole_molecules(positions, torch.tensor([[0, 1]]), cell)
    expected = torch.tensor([[0.2, 1.0, 1.0], [-0.2, 1.0, 1.0], [5.9, 8.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(whole, expected)
    assert whole_molecules(positions, torch.empty(0, 2, dtype=torch.long), cell) is positions
    assert whole_molecules(positions, torch.tensor([[0, 1]]), None) is positions


@pytest.mark.parametrize("name", ["orthorhombic", "reduced triclinic", "non-reduced"])
def test_wrapped_paths_are_unwrapped(name, generator):
    cell = _cell(name)
    start = torch.rand(1, 4, 5, 3, generator=generator, dtype=torch.float64) @ cell
    path = start + 0.4 * torch.randn(200, 4, 5, 3, generator=generator, dtype=torch.float64).cumsum(0)
    wrapped = wrap(path, cell)
    assert (path - wrapped).abs().max() > 5.0
    unwrapped = unwrapped_in_time(wrapped, cell)
    torch.testing.assert_close(unwrapped - unwrapped[0], path - path[0], rtol=0, atol=1e-9)
    assert torch.equal(unwrapped_in_time(path, cell), path)
    assert unwrapped_in_time(path, None) is path


@pytest.mark.parametrize("rounding", [1e-15, -4e-9])
def test_rounding_of_a_cell_does_not_make_it_triclinic(rounding, generator):
    cell = _cell("orthorhombic")
    cell[0, 1], cell[2, 0] = rounding, -rounding
    assert is_orthorhombic(cell) and not is_orthorhombic(_cell("reduced triclinic"))
    displacements = 40.0 * torch.randn(100, 3, generator=generator, dtype=torch.float64)
    expected = minimum_image(displacements, _cell("orthorhombic"))
    torch.testing.assert_close(minimum_image(displacements, cell), expected, rtol=0, atol=0)


def test_a_nan_cell_is_not_orthorhombic():
    assert not is_orthorhombic(torch.full((3, 3), float("nan")))
