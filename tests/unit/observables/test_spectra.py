"""Vibrational density of states and infrared spectrum against oscillators of known frequency."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from paths import ROOT

from mdsim.datasets import load_dataset
from mdsim.interfaces import Observable
from mdsim.observables import VACF, InfraredSpectrum, VibrationalDOS
from mdsim.state import System, Trajectory
from mdsim.units import PER_CM_IN_PER_FS

F64 = torch.float64


def atoms(numbers: list[int], masses: list[float]) -> System:
    n = len(numbers)
    return System(
        torch.tensor(numbers), torch.tensor(masses, dtype=F64), None, torch.empty(0, 2).long(), torch.arange(n)
    )


def oscillating(wavenumbers_per_cm: list[float], amplitudes: list[float], interval_fs: float, n: int) -> Trajectory:
    """Atoms that oscillate along x, each at its own frequency, from rest at a random phase."""
    time = interval_fs * torch.arange(n, dtype=F64)
    velocities = torch.zeros(n, 1, len(wavenumbers_per_cm), 3, dtype=F64)
    for atom, (wavenumber, amplitude) in enumerate(zip(wavenumbers_per_cm, amplitudes, strict=True)):
        phase = 2 * math.pi * PER_CM_IN_PER_FS * wavenumber * time + 0.7 * atom
        velocities[:, 0, atom, 0] = amplitude * torch.cos(phase)
    return Trajectory(torch.zeros_like(velocities), velocities, None, interval_fs)


def test_a_wavenumber_is_a_frequency():
    period_fs = 1 / PER_CM_IN_PER_FS
    assert period_fs == pytest.approx(33356.4095, rel=1e-7), "the period of 1 cm⁻¹ is 33.36 ps"


@pytest.mark.parametrize("wavenumber", [200.0, 1650.0, 3700.0])
@pytest.mark.parametrize("window", ["hann", "none"])
def test_a_harmonic_oscillator_is_a_peak_at_its_frequency(wavenumber, window):
    trajectory = oscillating([wavenumber], [0.01], 1.0, 8000)
    observable = VibrationalDOS(2000.0, 4000.0, 10.0, window)
    spectrum = observable(atoms([6], [12.0]), trajectory)[0]
    assert abs(float(observable.bin_centers[spectrum.argmax()]) - wavenumber) <= 10.0
    near = (observable.bin_centers - wavenumber).abs() < 60
    assert 10.0 * float(spectrum[near].sum()) == pytest.approx(3.0, rel=0.05), "three modes per atom"


def test_the_integral_up_to_the_highest_frequency_is_three(generator):
    """Noise of any color: 3 modes per atom, exactly, in all and for each element."""
    interval_fs = 2.0
    highest = 1 / (2 * PER_CM_IN_PER_FS * interval_fs)
    velocities = torch.randn(300, 2, 4, 3, dtype=F64, generator=generator).cumsum(0)
    trajectory = Trajectory(velocities, velocities, None, interval_fs)
    for element in (None, "O", "H"):
        observable = VibrationalDOS(100.0, highest, highest / 50, "hann", element)
        values = observable(atoms([8, 1, 1, 8], [16.0, 1.0, 1.0, 16.0]), trajectory)
        torch.testing.assert_close(values.sum(-1) * highest / 50, torch.full((2,), 3.0, dtype=F64))


def test_peaks_have_the_weight_of_their_kinetic_energy():
    """Two atoms with m v² of 1 : 3."""
    trajectory = oscillating([800.0, 2400.0], [1.0, 1.0], 1.0, 8000)
    observable = VibrationalDOS(1000.0, 3200.0, 20.0)
    spectrum = observable(atoms([1, 6], [4.0, 12.0]), trajectory)[0]
    low = observable.bin_centers < 1600
    assert float(spectrum[low].sum() / spectrum[~low].sum()) == pytest.approx(1 / 3, rel=0.02)
    only = VibrationalDOS(1000.0, 3200.0, 20.0, element="C")(atoms([1, 6], [4.0, 12.0]), trajectory)[0]
    assert float(only[low].sum() / only[~low].sum()) < 0.01
    assert VibrationalDOS(1.0, 3200.0, 20.0, element="C").name == "vibrational_dos_C"


def test_the_transform_is_a_discrete_cosine_transform():
    """Very narrow bins of a spectrum without window are those of scipy's DCT-I of the correlation function."""
    dataset = load_dataset(str(ROOT / "data" / "bundled"), "water_spcfw", "water", "20")
    system, trajectory = dataset.system().to(dtype=F64), dataset.contiguous_trajectory().to(dtype=F64)
    n_lags = 65
    correlation = VACF(256.0, mass_weighted=True)(system, trajectory)[0].numpy()
    assert len(correlation) == n_lags
    spacing = 1 / (2 * PER_CM_IN_PER_FS * 4.0 * (n_lags - 1))
    transform = scipy.fft.dct(correlation, type=1)
    transform += correlation[-1] * (-1.0) ** np.arange(n_lags)  # DCT-I has the last lag once, the spectrum twice
    expected = 3 * 2 * PER_CM_IN_PER_FS * 4.0 * transform
    fine = 1e-2
    observable = VibrationalDOS(256.0, 3000.0, fine, "none")
    found = observable(system, trajectory)[0]
    for k in (1, 5, 20, 40):
        assert float(found[round(k * spacing / fine)]) == pytest.approx(expected[k], rel=1e-4, abs=1e-7)


def test_one_oscillating_dipole_absorbs_at_its_frequency():
    """A charge oscillates at 1500 1/cm, and a neutral atom, which is not seen, at 3000 1/cm."""
    system = atoms([11, 17, 18], [20.0, 40.0, 40.0])
    trajectory = oscillating([1500.0, 0.0, 3000.0], [0.5, 0.0, 5.0], 1.0, 8000)
    observable = InfraredSpectrum(1500.0, 4000.0, 10.0, charges_e=(1.0, -1.0, 0.0))
    seen = observable(system, trajectory)[0]
    assert abs(float(observable.bin_centers[seen.argmax()]) - 1500.0) <= 10.0
    near = (observable.bin_centers - 1500.0).abs() < 60
    assert 10.0 * float(seen[near].sum()) == pytest.approx(1.0, rel=0.02)
    by_element = InfraredSpectrum(1500.0, 4000.0, 10.0, charges_e=(("Na", 1.0), ("Cl", -2.0), ("Ar", 1.0)))
    both = by_element(system, trajectory)[0]
    high = observable.bin_centers > 2250
    assert float(both[high].sum() / both.sum()) == pytest.approx(25 / 25.25, rel=0.01), "power of the charge flux"


def test_the_spectrum_of_a_dipole_is_omega_squared_times_that_of_its_moment():
    """Two modes of equal dipole amplitude: intensities as the squares of their frequencies, 1 : 9."""
    wavenumbers = [600.0, 1800.0]
    amplitudes = [0.02 * wavenumber for wavenumber in wavenumbers]
    trajectory = oscillating([*wavenumbers, 0.0], [*amplitudes, 0.0], 1.0, 8000)
    observable = InfraredSpectrum(1000.0, 2400.0, 20.0, charges_e=(1.0, 1.0, -2.0))
    spectrum = observable(atoms([1, 1, 8], [1.0, 1.0, 16.0]), trajectory)[0]
    low = observable.bin_centers < 1200
    assert float(spectrum[low].sum() / spectrum[~low].sum()) == pytest.approx(1 / 9, rel=0.05)


def test_motion_of_the_whole_is_not_absorbed(generator):
    """The spectrum of an ion does not depend on the velocity of its center of mass."""
    system = atoms([8, 1], [16.0, 1.0])
    trajectory = oscillating([1000.0, 2000.0], [0.3, 1.0], 1.0, 2000)
    drifting = Trajectory(trajectory.positions, trajectory.velocities + 2.0, None, 1.0)
    observable = InfraredSpectrum(500.0, 3000.0, 50.0, charges_e=(-2.0, 1.0))
    torch.testing.assert_close(observable(system, drifting), observable(system, trajectory))


def test_wrong_input_is_named():
    system = atoms([8, 1], [16.0, 1.0])
    trajectory = oscillating([1000.0, 2000.0], [0.3, 1.0], 4.0, 100)
    assert isinstance(VibrationalDOS(100.0, 4000.0, 50.0), Observable)
    with pytest.raises(ValueError, match="beyond the 4170 1/cm that frames every 4 fs resolve"):
        VibrationalDOS(100.0, 5000.0, 50.0)(system, trajectory)
    with pytest.raises(ValueError, match="shorter than the 4 fs between frames"):
        VibrationalDOS(2.0, 4000.0, 50.0)(system, trajectory)
    with pytest.raises(ValueError, match="needs 126 frames"):
        InfraredSpectrum(500.0, 4000.0, 50.0, charges_e=(1.0, -1.0))(system, trajectory)
    with pytest.raises(ValueError, match="found 3 charges for 2 atoms"):
        InfraredSpectrum(100.0, 4000.0, 50.0, charges_e=(1.0, -1.0, 0.0))(system, trajectory)
    with pytest.raises(ValueError, match="needs a charge of H"):
        InfraredSpectrum(100.0, 4000.0, 50.0, charges_e=(("O", 1.0),))(system, trajectory)
    with pytest.raises(ValueError, match="needs charges_e"):
        InfraredSpectrum(100.0, 4000.0, 50.0)
    with pytest.raises((ValueError, TypeError), match="square"):
        VibrationalDOS(100.0, 4000.0, 50.0, "square")
    with pytest.raises(ValueError, match="no atom of element 'N'"):
        VibrationalDOS(100.0, 4000.0, 50.0, element="N")(system, trajectory)
    with pytest.raises(ValueError, match="needs velocities"):
        InfraredSpectrum(100.0, 4000.0, 50.0, charges_e=(1.0, -1.0))(
            system, Trajectory(trajectory.positions, None, None, 1.0)
        )
