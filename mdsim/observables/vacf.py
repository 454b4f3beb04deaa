"""Velocity autocorrelation function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len

from mdsim.observables.tuples import atoms_of
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

VALUES_PER_CHUNK = 2**22  # of the time series that are transformed at a time


@dataclass(frozen=True)
class VACF:
    """Velocity autocorrelation over all time origins, averaged over atoms and Cartesian components.

    Args:
        max_lag_fs: longest lag.
        window: split the trajectory into consecutive windows of this many frames, correlate within each, and average
            over them. Frames after the last whole window are left out. None: the trajectory is one window.
        mass_weighted: weight each atom by its mass. At equilibrium, lag 0 is then k_B T in eV.
        normalized: divide by the value at lag 0.
        element: chemical symbol of the atoms that are followed; None follows all.

    Raises:
        ValueError: a negative lag or an empty window.
    """

    max_lag_fs: float
    window: int | None = None
    mass_weighted: bool = False
    normalized: bool = True
    element: str | None = None

    @property
    def name(self) -> str:
        return "vacf" if self.element is None else f"vacf_{self.element}"

    def __post_init__(self) -> None:
        if not self.max_lag_fs >= 0:
            raise ValueError(f"max_lag_fs must not be negative, found {self.max_lag_fs}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be a number of frames of at least 1, or None; found {self.window}")

    @property
    def unit(self) -> str:
        if self.normalized:
            return "1"
        return "eV" if self.mass_weighted else "eV/amu"

    def lags_fs(self, trajectory: Trajectory) -> Float[Tensor, "lag"]:
        """The lags in fs, from 0 to ``max_lag_fs`` in steps of the frame interval."""
        return lags_fs(trajectory, self.max_lag_fs)

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica lag"]:
        """The autocorrelation of each replica; NaN for a replica with a velocity that is not finite.

        Args:
            system: its masses are the weights.
            trajectory: velocities in ASE units.

        Returns:
            Without unit if normalized; else in eV/amu, the square of the ASE velocity unit, or in eV if mass-weighted.

        Raises:
            ValueError: no velocities, no atom of the element, a trajectory shorter than the window, or a window not
                longer than the lag.
        """
        velocities = trajectory.velocities
        if velocities is None:
            raise ValueError("VACF needs velocities, but the trajectory has none: record them in the simulation")
        window = trajectory.n_frames if self.window is None else self.window
        n_windows = trajectory.n_frames // window if window else 0
        if n_windows == 0:
            raise ValueError(f"VACF needs a window of {window} frames, but the trajectory has {trajectory.n_frames}")
        n_lags = len(self.lags_fs(trajectory))
        if n_lags > window:
            raise ValueError(
                f"max_lag_fs = {self.max_lag_fs} needs windows of {n_lags} frames, {trajectory.frame_interval_fs} fs "
                f"apart, but they have {window}"
            )
        if self.mass_weighted:
            velocities = velocities * system.masses.to(velocities).sqrt()[:, None]
        if self.element is not None:
            velocities = velocities[:, :, atoms_of(system, self.element)]
        windows = velocities[: n_windows * window].unflatten(0, (n_windows, window)).transpose(0, 1).flatten(3)
        correlation = autocorrelation(windows.flatten(1, 2), n_lags) / windows.shape[-1]
        correlation = correlation.unflatten(1, (n_windows, -1)).mean(1)
        if self.normalized:
            correlation = correlation / correlation[:1]
        return correlation.T.to(velocities.dtype)


def lags_fs(trajectory: Trajectory, max_lag_fs: float) -> Float[Tensor, "lag"]:
    """Multiples of the frame interval from 0 to ``max_lag_fs``, in fs."""
    whole = int(max_lag_fs / trajectory.frame_interval_fs + 1e-6)  # so that 0.3 fs is 3 intervals of 0.1 fs
    return trajectory.frame_interval_fs * torch.arange(whole + 1, dtype=torch.float64)


def autocorrelation(series: Float[Tensor, "frame row column"], n_lags: int) -> Float[Tensor, "lag row"]:
    """Mean over all time origins of x(t) x(t + lag), summed over the columns of each row, in float64.

    The zero-padded Fourier transform costs O(frame log frame) for all lags together (Wiener-Khinchin). Spectra are
    summed before the inverse transform, which is linear.
    """
    n_frames, n_rows, _ = series.shape
    length = next_fast_len(n_frames + n_lags, real=True)
    columns_per_chunk = max(1, VALUES_PER_CHUNK // (length * n_rows))
    spectra = [
        torch.view_as_real(torch.fft.rfft(columns.double(), n=length, dim=0)).square().sum((-2, -1))
        for columns in series.split(columns_per_chunk, dim=-1)
    ]
    sums = torch.fft.irfft(torch.stack(spectra).sum(0), n=length, dim=0)[:n_lags]
    origins = n_frames - torch.arange(n_lags, device=series.device)
    return sums / origins[:, None]
