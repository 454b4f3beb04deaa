import math

import numpy as np
import pytest
import torch

from mdsim.observables import VACF
from mdsim.observables.vacf import autocorrelation
from mdsim.state import System, Trajectory


def atoms(masses: list[float]) -> System:
    n_atoms = len(masses)
    return System(
        torch.ones(n_atoms, dtype=torch.long),
        torch.tensor(masses, dtype=torch.float64),
        None,
        torch.empty(0, 2, dtype=torch.long),
        torch.arange(n_atoms),
    )


def trajectory_of(velocities: torch.Tensor, frame_interval_fs: float = 1.0) -> Trajectory:
    return Trajectory(torch.zeros_like(velocities), velocities, None, frame_interval_fs)


def direct(velocities: np.ndarray, n_lags: int) -> np.ndarray:
    """Mean of v(t)·v(t + lag) over origins, atoms and components, one lag at a time. Input [frame atom 3]."""
    n = len(velocities)
    return np.array([(velocities[: n - lag] * velocities[lag:]).mean() for lag in range(n_lags)])


def test_equals_the_direct_sum(generator):
    velocities = torch.randn(37, 2, 5, 3, dtype=torch.float64, generator=generator)
    found = VACF(36.0, normalized=False)(atoms([1.0] * 5), trajectory_of(velocities))
    for replica in range(2):
        np.testing.assert_allclose(found[replica], direct(velocities[:, replica].numpy(), 37), rtol=1e-10, atol=1e-12)


def test_harmonic_oscillators(generator):
    """Whole periods of v = A cos(ωt + φ) with evenly spread phases: exactly cos(ω lag), for every origin."""
    n_frames, period = 400, 50.0
    time = torch.arange(n_frames, dtype=torch.float64) * 0.5
    phases = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    wave = torch.cos(2 * math.pi * time[:, None] / period + phases)
    velocities = (wave[:, None, :, None] * torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)).expand(-1, 2, -1, -1)
    trajectory = trajectory_of(velocities, frame_interval_fs=0.5)
    vacf = VACF(60.0)
    lags = vacf.lags_fs(trajectory)
    assert lags[-1] == 60.0 and len(lags) == 121
    expected = torch.cos(2 * math.pi * lags / period).expand(2, -1)
    torch.testing.assert_close(vacf(atoms([1.0] * 8), trajectory), expected, rtol=0, atol=1e-10)


def test_windows_average_over_stretches(generator):
    velocities = torch.randn(235, 3, 2, 3, dtype=torch.float64, generator=generator)
    found = VACF(99.0, window=100, normalized=False)(atoms([1.0, 1.0]), trajectory_of(velocities))
    for replica in range(3):
        one = velocities[:, replica].numpy()
        expected = 0.5 * (direct(one[:100], 100) + direct(one[100:200], 100))
        np.testing.assert_allclose(found[replica], expected, rtol=1e-9, atol=1e-12)


def test_mass_weighted_lag_zero_is_kT(generator):
    masses, kT = [1.0, 16.0, 4.0], 0.025
    spread = math.sqrt(kT) / torch.tensor(masses, dtype=torch.float64).sqrt()[:, None]
    velocities = spread * torch.randn(2000, 1, 3, 3, dtype=torch.float64, generator=generator)
    found = VACF(5.0, mass_weighted=True, normalized=False)(atoms(masses), trajectory_of(velocities))[0]
    error = kT * math.sqrt(2 / (2000 * 9))
    assert abs(found[0] - kT) < 4 * error
    assert (found[1:].abs() < 4 * error).all()  # white noise has no memory


def test_ornstein_uhlenbeck_decay(generator):
    """Langevin velocities of free particles decay as exp(-γ t)."""
    decay, n_frames, n_atoms = 0.9, 1500, 60
    noise = math.sqrt(1 - decay**2) * torch.randn(n_frames, 4, n_atoms, 3, dtype=torch.float64, generator=generator)
    velocities = torch.empty_like(noise)
    velocities[0] = noise[0] / math.sqrt(1 - decay**2)
    for frame in range(1, n_frames):
        velocities[frame] = decay * velocities[frame - 1] + noise[frame]
    samples = VACF(20.0, normalized=False)(atoms([1.0] * n_atoms), trajectory_of(velocities))
    expected = decay ** torch.arange(21, dtype=torch.float64)
    # Bartlett's formula bounds the error of each lag by that of the variance, with correlation time (1+ρ²)/(1-ρ²).
    error = math.sqrt(2 * (1 + decay**2) / (1 - decay**2) / (n_frames * 4 * n_atoms * 3))
    assert ((samples.mean(0) - expected).abs() < 4 * error).all()


def test_chunks_do_not_matter(generator, monkeypatch):
    series = torch.randn(30, 4, 21, dtype=torch.float64, generator=generator)
    whole = autocorrelation(series, 12)
    monkeypatch.setattr("mdsim.observables.vacf.VALUES_PER_CHUNK", 500)
    torch.testing.assert_close(autocorrelation(series, 12), whole, rtol=1e-12, atol=1e-12)


def test_lags_survive_rounding():
    trajectory = trajectory_of(torch.zeros(10, 1, 1, 3, dtype=torch.float64), frame_interval_fs=0.1)
    assert len(VACF(0.3).lags_fs(trajectory)) == 4


def test_errors():
    system = atoms([1.0])
    velocities = torch.ones(10, 1, 1, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="the trajectory has none"):
        VACF(1.0)(system, Trajectory(velocities, None, None, 1.0))
    with pytest.raises(ValueError, match="window of 20 frames, but the trajectory has 10"):
        VACF(1.0, window=20)(system, trajectory_of(velocities))
    with pytest.raises(ValueError, match="needs windows of 6 frames"):
        VACF(5.0, window=5)(system, trajectory_of(velocities))
    with pytest.raises(ValueError, match="must not be negative"):
        VACF(-1.0)
