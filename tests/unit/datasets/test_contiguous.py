"""Contiguous frames: the check of their time order, and velocities from high-order differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mdsim.datasets.contiguous import MARGIN, check_time_order, contiguous_frames, with_velocities
from mdsim.datasets.npz import Frames
from mdsim.datasets.sources.raw import RawFrames, Units
from mdsim.errors import DatasetError
from mdsim.units import FS

O_H_STRETCH_PER_FS = 0.70  # angular frequency of 3,700 cm⁻¹


def oscillating(
    interval_fs: float, frequency_per_fs: float, cell: torch.Tensor | None = None
) -> tuple[Frames, torch.Tensor]:
    """One atom on a circle, and its exact velocities in ASE units."""
    time = interval_fs * torch.arange(60, dtype=torch.float64)
    phase = frequency_per_fs * time
    circle = 0.03 * torch.stack([phase.cos(), phase.sin(), 0 * phase], dim=-1)[:, None]
    velocities = 0.03 * frequency_per_fs / FS * torch.stack([-phase.sin(), phase.cos(), 0 * phase], dim=-1)[:, None]
    drift = torch.tensor([0.01, 0.0, 0.0]) * time[:, None, None]
    positions = circle + drift
    if cell is not None:
        positions = positions % cell.diagonal()
    return Frames(torch.tensor([1]), positions, torch.zeros(60), cell=cell), velocities + torch.tensor(
        [0.01 / FS, 0, 0]
    )


@pytest.mark.parametrize(("interval_fs", "error"), [(0.5, 2e-5), (1.0, 1e-3), (2.0, 0.05)])
def test_differences_keep_the_fastest_vibration(interval_fs, error):
    frames, exact = oscillating(interval_fs, O_H_STRETCH_PER_FS)
    found = with_velocities(frames, interval_fs)
    assert len(found) == 60 - 2 * MARGIN
    assert float((found.velocities - exact[MARGIN:-MARGIN]).norm() / exact[MARGIN:-MARGIN].norm()) < error
    assert torch.equal(found.positions, frames.positions[MARGIN:-MARGIN])


def test_polynomials_of_degree_six_are_exact():
    time = torch.arange(20, dtype=torch.float64)
    frames = Frames(torch.tensor([1]), ((time / 10) ** 6)[:, None, None].expand(20, 1, 3), torch.zeros(20))
    exact = (6 * (time / 10) ** 5 / 10 / FS)[MARGIN:-MARGIN]
    torch.testing.assert_close(with_velocities(frames, 1.0).velocities[:, 0, 0], exact, rtol=1e-11, atol=1e-12)


def test_wrapped_positions_give_the_same_velocities():
    cell = 0.35 * torch.eye(3, dtype=torch.float64)
    wrapped, exact = oscillating(0.5, 0.3, cell)
    assert wrapped.positions.diff(dim=0).abs().max() > 0.3
    torch.testing.assert_close(with_velocities(wrapped, 0.5).velocities, exact[MARGIN:-MARGIN], rtol=1e-4, atol=1e-5)
    check_time_order("file", wrapped, 0.5)


def raw_of(frames: Frames) -> RawFrames:
    units = Units("angstrom", "eV", "eV/angstrom")
    return RawFrames(
        frames.atomic_numbers.numpy(), frames.positions.numpy(), frames.energy.double().numpy(), units=units
    )


def test_shuffled_frames_are_refused():
    frames, _ = oscillating(0.5, O_H_STRETCH_PER_FS)
    frames = frames[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    with pytest.raises(
        DatasetError, match=r"not in time order: in \d+ of 55 steps, the first after frame \d+, an atom"
    ):
        contiguous_frames("file", raw_of(frames), 50, 0, 0.5)


def test_a_stretch_begins_where_asked():
    frames, _ = oscillating(0.5, O_H_STRETCH_PER_FS)
    stretch, how = contiguous_frames("file", raw_of(frames), 40, 7, 0.5)
    assert torch.equal(stretch.positions, frames.positions[7 + MARGIN : 47 + MARGIN]) and "differences" in how
    with pytest.raises(DatasetError, match="need 67 frames, but there are 60"):
        contiguous_frames("file", raw_of(frames), 60, 1, 0.5)


def test_long_intervals_give_no_velocities():
    frames, _ = oscillating(10.0, 0.01)
    stretch, how = contiguous_frames("file", raw_of(frames), 60, 0, 10.0)
    assert stretch.velocities is None and how == "none"


def test_real_dynamics_obey_newton(reference_path):
    """Velocities by differences, differentiated again, are accelerations: order of frames and units are right."""
    from ase.data import atomic_masses

    from mdsim.datasets.sources.md17 import read_kcal

    raw = read_kcal(reference_path / "md17_format" / "ethanol.npz")
    stretch, _ = contiguous_frames("ethanol", raw, 1500, 0, 0.5)
    again = with_velocities(Frames(stretch.atomic_numbers, stretch.velocities, stretch.energy), 0.5)
    masses = torch.from_numpy(atomic_masses[stretch.atomic_numbers.numpy()])
    forces = masses[:, None] * again.velocities
    expected = stretch.labels[MARGIN:-MARGIN].double()
    slope = float((forces * expected).sum() / expected.square().sum())
    assert slope == pytest.approx(1.0, abs=0.04)  # a thermostat acts too, and positions have four decimals


def test_positions_are_kept_to_the_last_bit():
    frames, _ = oscillating(0.5, O_H_STRETCH_PER_FS)
    raw = raw_of(frames)
    assert np.array_equal(raw.frames(slice(3, 9)).positions.numpy(), raw.positions[3:9])
