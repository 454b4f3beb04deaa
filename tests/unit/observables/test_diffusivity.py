import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from mdsim.observables import MSD, Diffusivity, yeh_hummer_correction
from mdsim.state import System, Trajectory


def atoms(numbers: list[int], masses: list[float] | None = None) -> System:
    n_atoms = len(numbers)
    return System(
        torch.tensor(numbers),
        torch.tensor(masses or [1.0] * n_atoms, dtype=torch.float64),
        None,
        torch.empty(0, 2, dtype=torch.long),
        torch.arange(n_atoms),
    )


def trajectory_of(positions: torch.Tensor, frame_interval_fs: float = 1.0) -> Trajectory:
    return Trajectory(positions, None, None, frame_interval_fs)


def brownian(generator: torch.Generator, shape: tuple[int, ...], step: float) -> torch.Tensor:
    return step * torch.randn(shape, dtype=torch.float64, generator=generator).cumsum(0)


def test_equals_the_direct_sum(generator):
    positions = 100.0 + brownian(generator, (40, 2, 3, 3), 0.2)
    found = MSD(39.0)(atoms([8, 8, 8]), trajectory_of(positions))
    expected = [(positions[lag:] - positions[: 40 - lag]).square().sum(-1).mean((0, 2)) for lag in range(40)]
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-9, atol=1e-9)
    assert (found[:, 0].abs() < 1e-9).all()


def test_ballistic_motion(generator):
    velocity = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    time = 0.5 * torch.arange(50, dtype=torch.float64)
    trajectory = trajectory_of(time[:, None, None, None] * velocity, frame_interval_fs=0.5)
    msd = MSD(20.0)
    expected = velocity.square().sum(-1).mean(-1)[:, None] * msd.lags_fs(trajectory) ** 2
    torch.testing.assert_close(msd(atoms([8] * 4), trajectory), expected, rtol=1e-9, atol=1e-9)


def test_center_of_mass_and_element(generator):
    """Two species drift together; what is left of each is its own motion about the center of mass."""
    system = atoms([8, 1], [16.0, 1.0])
    time = torch.arange(30, dtype=torch.float64)[:, None, None]
    drift, relative = torch.tensor([0.3, -0.2, 0.1]).double(), torch.tensor([0.0, 0.05, 0.0]).double()
    oxygen, hydrogen = time * (drift - relative / 17), time * (drift + 16 * relative / 17)
    trajectory = trajectory_of(torch.stack([oxygen, hydrogen], dim=2))
    lags = torch.arange(11, dtype=torch.float64)
    still = MSD(10.0, element="O", remove_center_of_mass=True)(system, trajectory)[0]
    torch.testing.assert_close(still, (relative / 17).square().sum() * lags**2)
    moving = MSD(10.0, element="O")(system, trajectory)[0]
    torch.testing.assert_close(moving, (drift - relative / 17).square().sum() * lags**2)


def test_float32_keeps_small_displacements(generator):
    """A drift to 500 Å would leave a float32 sum of squares no digits for displacements of 0.01 Å."""
    positions = (500.0 + brownian(generator, (200, 1, 4, 3), 0.005)).float()
    found = MSD(20.0)(atoms([8] * 4), trajectory_of(positions))
    exact = MSD(20.0)(atoms([8] * 4), trajectory_of(positions.double()))
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-12)


def test_mdanalysis(generator):
    mda = pytest.importorskip("MDAnalysis")
    from MDAnalysis.analysis.msd import EinsteinMSD

    positions = brownian(generator, (60, 1, 7, 3), 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = mda.Universe.empty(7, trajectory=True)
        universe.load_new(positions[:, 0].numpy().astype(np.float32), order="fac")
        expected = EinsteinMSD(universe, msd_type="xyz", fft=False).run().results.timeseries
    found = MSD(59.0)(atoms([8] * 7), trajectory_of(positions))[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_brownian_diffusivity(generator):
    """Steps of variance 2 D Δt in each direction."""
    D, interval = 2.3e-4, 10.0  # Å²/fs, fs: 2.3e-9 m²/s, that of water
    positions = brownian(generator, (500, 40, 20, 3), math.sqrt(2 * D * interval))
    found = Diffusivity(20.0, 200.0)(atoms([8] * 20), trajectory_of(positions, interval))[:, 0]
    error = found.std() / math.sqrt(40)
    assert error < 0.03
    assert abs(found.mean() - 2.3) < 4 * error


def test_slope_is_that_of_the_fit_window():
    """MSD = v² t² has between t1 and t2, evenly sampled, the least-squares slope v² (t1 + t2)."""
    time = torch.arange(100, dtype=torch.float64)[:, None, None, None]
    trajectory = trajectory_of(time * torch.tensor([0.01, 0.0, 0.0], dtype=torch.float64))
    found = Diffusivity(10.0, 30.0)(atoms([8]), trajectory)
    assert found.item() == pytest.approx(1e4 * 0.01**2 * 40 / 6)


def test_yeh_hummer_in_si_units():
    kT, eta, length = 1.380649e-23 * 298.15, 0.89e-3, 12.42e-10
    expected = 2.837297 * kT / (6 * math.pi * eta * length) * 1e9
    assert yeh_hummer_correction(298.15, 0.89, 12.42) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.56, abs=0.01)


@pytest.mark.parametrize(
    "observable, message",
    [
        (MSD(20.0), "needs 21 frames"),
        (MSD(5.0, element="H"), r"elements O\) has no atom of element 'H'"),
        (Diffusivity(1.0, 50.0), "needs 51 frames"),
        (Diffusivity(4.5, 5.5), "holds 1 lags"),
    ],
)
def test_errors(observable, message):
    with pytest.raises(ValueError, match=message):
        observable(atoms([8]), trajectory_of(torch.zeros(10, 1, 1, 3, dtype=torch.float64)))


def test_wrong_settings():
    with pytest.raises(ValueError, match="empty or negative"):
        Diffusivity(10.0, 10.0)
    with pytest.raises(ValueError, match="must be positive"):
        yeh_hummer_correction(300.0, 0.0, 10.0)


def test_from_msd_fits_the_lags_of_the_window_alone():
    lags = 10.0 * torch.arange(11, dtype=torch.float64)
    msd = torch.stack([0.5 + 0.03 * lags, 0.06 * lags])
    msd[:, lags < 20.0] = 7.0
    msd[:, lags > 80.0] = -7.0
    found = Diffusivity(20.0, 80.0).from_msd(lags, msd)
    torch.testing.assert_close(found[:, 0], 1e4 * torch.tensor([0.03, 0.06]).double() / 6)
    with pytest.raises(ValueError, match="ends at 150 fs, but the lags at 100 fs"):
        Diffusivity(20.0, 150.0).from_msd(lags, msd)


def test_the_finite_size_correction_is_that_of_a_turned_cube():
    turn = torch.linalg.qr(torch.tensor([[1.0, 2.0, 0.5], [0.3, -1.0, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64))[0]
    system = replace(atoms([8]), cell=12.4 * turn)
    found = Diffusivity(1.0, 2.0, viscosity_mPa_s=0.8).finite_size_correction(system, 300.0)
    assert found == pytest.approx(yeh_hummer_correction(300.0, 0.8, 12.4))
    assert Diffusivity(1.0, 2.0).finite_size_correction(system, 300.0) is None
    assert Diffusivity(1.0, 2.0, viscosity_mPa_s=0.8).finite_size_correction(atoms([8]), 300.0) is None


@pytest.mark.parametrize("cell", [[[9, 0, 0], [0, 9, 0], [0, 0, 9.1]], [[9, 0, 0], [1, 8.944272, 0], [0, 0, 9]]])
def test_the_correction_is_refused_for_other_cells(cell):
    system = replace(atoms([8]), cell=torch.tensor(cell, dtype=torch.float64))
    with pytest.raises(ValueError, match="is that of a cube"):
        Diffusivity(1.0, 2.0, viscosity_mPa_s=0.8).finite_size_correction(system, 300.0)
