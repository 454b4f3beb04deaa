"""Scans of one-dimensional energies with known jumps, kinks, holes and walls."""

import pytest
import torch

from mdsim.stress_test.paths import Path
from mdsim.stress_test.scans import judge, scan


def path(kind="stretch", radii_A=1.0):
    """A single coordinate: the x of one atom from 0.4 to 2.0 Å, with the structure at 1."""
    values = torch.linspace(0.4, 2.0, 161, dtype=torch.float64)
    positions = torch.zeros(161, 2, 3, dtype=torch.float64)
    positions[:, 1, 0] = values
    tangent = torch.zeros_like(positions)
    tangent[:, 1, 0] = 1.0
    start = int((values - 1).abs().argmin())
    return Path(kind, "bond A0-B1", "Å", values, start, positions, tangent, radii_A)


def potential_of(energy, slope=None):
    """Potential of a function of that coordinate. The slope is by autograd unless it is given."""

    def potential(positions):
        x = positions[:, 1, 0].detach().requires_grad_()
        value = energy(x)
        forces = torch.zeros_like(positions)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        forces[:, 1, 0] = -(gradient if slope is None else slope(x.detach()))
        return value.detach(), forces

    return potential


def morse(x):
    return 4.0 * (1 - torch.exp(-2.0 * (x - 1.0))) ** 2


def test_smooth_energies_pass():
    (found,) = scan(potential_of(morse), [path()], 1e-12)
    assert (found.jump_eV, found.kink_eV_per_A, found.hole_eV, found.wall_eV) == (None,) * 4
    assert [finding.level for finding in judge([found], 300.0)] == ["pass"] * 3


@pytest.mark.parametrize("size", [2e-4, 5e-3, 0.2])
def test_jumps_are_found_with_size_and_place(size):
    energy = potential_of(lambda x: morse(x) + size * (x > 1.4137))
    (found,) = scan(energy, [path()], 1e-12)
    assert found.jump_eV == pytest.approx(size, rel=0.05)
    assert found.jump_at == pytest.approx(1.4137, abs=1e-3)
    assert judge([found], 300.0)[0].level == ("fail" if size > 1e-3 else "warn")


def test_jumps_below_the_noise_are_not_named():
    noisy = torch.Generator().manual_seed(0)

    def energy(x):
        return morse(x) + 1e-3 * torch.randn(x.shape, generator=noisy, dtype=x.dtype)

    (found,) = scan(potential_of(energy), [path()], 1e-3)
    assert found.jump_eV is None


def test_kinks_of_forces_are_found():
    (found,) = scan(potential_of(lambda x: morse(x) + 0.1 * (x - 1.3).clamp_min(0)), [path()], 1e-12)
    assert found.jump_eV is None
    assert found.kink_eV_per_A == pytest.approx(0.1, rel=0.05)
    assert found.kink_at == pytest.approx(1.3, abs=0.011)


def test_a_hole_has_a_barrier_and_a_depth():
    def energy(x):  # a barrier of 0.5 eV at 1.5 Å, and 2 eV less at 2 Å
        return torch.where(x < 1.5, 0.5 * torch.sin(torch.pi * (x - 1.0)).clamp_min(-9) ** 2, 0.5 - 10 * (x - 1.5) ** 2)

    (found,) = scan(potential_of(energy), [path("bend", 0.0)], 1e-12)
    assert found.barrier_eV == pytest.approx(0.5, abs=1e-3)
    assert (found.hole_eV, found.hole_at) == (pytest.approx(-2.0), pytest.approx(2.0))
    assert judge([found], 300.0)[1].level == "fail"  # 20 kT are 0.52 eV
    assert judge([found], 200.0)[1].level == "warn"


def test_a_structure_off_its_minimum_has_no_hole():
    (found,) = scan(potential_of(lambda x: 2.0 * (x - 1.5) ** 2), [path()], 1e-12)
    assert found.hole_eV is None


def test_missing_repulsion():
    def energy(x):  # rises to 0.6 Å, and falls inside
        return 3.0 * torch.exp(-(((x - 0.6) / 0.2) ** 2))

    (found,) = scan(potential_of(energy), [path("approach")], 1e-12)
    assert found.wall_eV == pytest.approx(3.0 - float(energy(torch.tensor(1.0))), abs=1e-3)
    assert judge([found], 300.0)[2].level == "warn"


def test_not_a_number_is_a_hole():
    (found,) = scan(potential_of(lambda x: torch.where(x > 1.8, torch.nan, morse(x))), [path()], 1e-12)
    assert found.hole_at is not None and found.barrier_eV == pytest.approx(float(morse(torch.tensor(1.8))), rel=0.02)
