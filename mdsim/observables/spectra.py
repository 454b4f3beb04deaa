"""Vibrational density of states and infrared spectrum: Fourier transforms of correlation functions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from ase.data import chemical_symbols

from mdsim.observables.bins import Bins
from mdsim.observables.tuples import elements_of
from mdsim.observables.vacf import VACF, autocorrelation, lags_fs
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor
from mdsim.units import PER_CM_IN_PER_FS

#: Window of a correlation function, from 1 at lag 0 to 0 beyond the longest lag.
Window = Literal["hann", "none"]
MODES_PER_ATOM = 3.0


@dataclass(frozen=True)
class Spectrum(ABC):
    """Base of the spectra of each replica, as averages over bins of the wavenumber.

    A spectrum is 2c ∫ C(t) W(t) cos(2π c ν̃ t) dt over all t, for a correlation function C that is 1 at lag 0. Its
    integral over all wavenumbers up to 1/(2c Δt), for frames Δt apart, is 1. Peaks are about 1/(c t_max) wide, which is
    33 1/cm for a longest lag of 1 ps.

    Args:
        max_lag_fs: longest lag t_max, which sets the resolution.
        max_wavenumber_per_cm: upper end of the range, at most 1/(2c Δt).
        bin_width_per_cm: width of a bin, which must divide the range.
        window: "hann", W = cos²(π t / 2 t_max), or "none", which adds ripples.

    Raises:
        ValueError: a lag that is not positive, bins that do not fill the range, or another window.
    """

    max_lag_fs: float
    max_wavenumber_per_cm: float
    bin_width_per_cm: float
    window: Window = "hann"

    unit: ClassVar[str] = "1/cm"

    def __post_init__(self) -> None:
        _ = self.bins
        if not self.max_lag_fs > 0:
            raise ValueError(f"max_lag_fs must be positive, found {self.max_lag_fs}")
        if self.window not in get_args(Window):
            raise ValueError(f"window must be one of {', '.join(get_args(Window))}, found {self.window!r}")

    @property
    def bins(self) -> Bins:
        return Bins.spanning(0.0, self.max_wavenumber_per_cm, self.bin_width_per_cm)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    @abstractmethod
    def _correlation(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica lag"]:
        """The correlation function up to ``max_lag_fs``, on any scale."""

    def _transformed(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica bin"]:
        interval_fs = trajectory.frame_interval_fs
        highest = 1.0 / (2.0 * PER_CM_IN_PER_FS * interval_fs)
        if self.max_wavenumber_per_cm > highest * (1.0 + 1e-6):
            raise ValueError(
                f"max_wavenumber_per_cm = {self.max_wavenumber_per_cm:g} is beyond the {highest:.0f} 1/cm that frames "
                f"every {interval_fs:g} fs resolve: record more often, or lower it"
            )
        correlation = self._correlation(system, trajectory).double()
        lags = lags_fs(trajectory, self.max_lag_fs).to(correlation)
        if len(lags) < 2:
            raise ValueError(f"max_lag_fs = {self.max_lag_fs:g} is shorter than the {interval_fs:g} fs between frames")
        windowed = correlation / correlation[:, :1]
        if self.window == "hann":
            windowed = windowed * torch.cos(0.5 * math.pi * lags / lags[-1]).square()
        windowed[:, 1:] *= 2.0  # negative lags
        cycles = PER_CM_IN_PER_FS * lags[:, None]  # per 1/cm
        centers = self.bin_centers.to(correlation)
        means = torch.cos(2.0 * math.pi * cycles * centers) * torch.sinc(cycles * self.bins.width)
        return (2.0 * PER_CM_IN_PER_FS * interval_fs * (windowed @ means)).to(trajectory.positions)


@dataclass(frozen=True)
class VibrationalDOS(Spectrum):
    """Vibrational density of states, from the mass-weighted velocity autocorrelation, in modes per atom and 1/cm.

    Its integral up to 1/(2c Δt) is 3 (3N modes of N atoms), also for the atoms of one element. Translation and rotation
    are included. Source: Dickey and Paskin, Phys. Rev. 188, 1407 (1969).

    Args:
        element: chemical symbol of the atoms that are followed; None follows all.
        others: see `Spectrum`.
    """

    element: str | None = None

    error_unit: ClassVar[str] = "modes per atom"

    @property
    def name(self) -> str:
        return "vibrational_dos" + ("" if self.element is None else f"_{self.element}")

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica bin"]:
        """Modes per atom and 1/cm in each bin; NaN for a replica with a velocity that is not finite.

        Args:
            system: its elements and masses.
            trajectory: velocities in ASE units.

        Raises:
            ValueError: no velocities, no such atom, a trajectory too short for the lag, or frames too far apart for the
                wavenumbers.
        """
        return MODES_PER_ATOM * self._transformed(system, trajectory)

    def _correlation(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica lag"]:
        vacf = VACF(self.max_lag_fs, mass_weighted=True, normalized=False, element=self.element)
        return vacf(system, trajectory)


@dataclass(frozen=True)
class InfraredSpectrum(Spectrum):
    """Shape of the infrared absorption n(ν̃) α(ν̃) in 1/(1/cm), from the dipole of fixed charges.

    It is the Fourier transform of <Ṁ(0)·Ṁ(t)> with Ṁ = Σ q_i v_i, divided by its integral up to 1/(2c Δt). This equals
    ω² times the transform of <M(0)·M(t)>, the classical limit of the line shape with the harmonic quantum correction
    (Ramírez et al., J. Chem. Phys. 121, 3973 (2004)). Velocities need no unwrapping. The motion of the center of mass,
    to which the dipole of charged systems refers, is subtracted.

    Args:
        charges_e: charge by element, as in (("O", -0.82), ("H", 0.41)), or one number for each atom.
        others: see `Spectrum`.

    Raises:
        ValueError: no charge.
    """

    charges_e: tuple[tuple[str, float], ...] | tuple[float, ...] = ()

    name: ClassVar[str] = "infrared_spectrum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.charges_e:
            raise ValueError("an infrared spectrum needs charges_e, by element or for each atom")

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica bin"]:
        """The spectrum in each bin; NaN for a replica with a velocity that is not finite.

        Args:
            system: its elements and masses.
            trajectory: velocities in ASE units.

        Raises:
            ValueError: no velocities, charges that do not fit the system, a trajectory too short for the lag, or frames
                too far apart for the wavenumbers.
        """
        return self._transformed(system, trajectory)

    def _correlation(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica lag"]:
        velocities = trajectory.velocities
        if velocities is None:
            raise ValueError(f"{self.name} needs velocities, but the trajectory has none: record them")
        n_lags = len(lags_fs(trajectory, self.max_lag_fs))
        if n_lags > trajectory.n_frames:
            raise ValueError(
                f"max_lag_fs = {self.max_lag_fs} needs {n_lags} frames, {trajectory.frame_interval_fs} fs apart, but "
                f"the trajectory has {trajectory.n_frames}"
            )
        charges, masses = self._charges(system).to(velocities), system.masses.to(velocities)
        effective = charges - charges.sum() * masses / masses.sum()  # Σ q (v - v_com)
        return autocorrelation(torch.einsum("i,friq->frq", effective, velocities), n_lags).T

    def _charges(self, system: System) -> Float[Tensor, "atom"]:
        by_element = dict(one for one in self.charges_e if isinstance(one, tuple))
        if not by_element:
            if len(self.charges_e) != system.n_atoms:
                raise ValueError(f"charges_e: found {len(self.charges_e)} charges for {system.n_atoms} atoms")
            return torch.tensor(self.charges_e, dtype=torch.float64)
        symbols = [chemical_symbols[number] for number in system.atomic_numbers.tolist()]
        if missing := sorted(set(symbols) - by_element.keys()):
            raise ValueError(f"charges_e: the system (elements {elements_of(system)}) needs a charge of {missing[0]}")
        return torch.tensor([by_element[symbol] for symbol in symbols], dtype=torch.float64)
