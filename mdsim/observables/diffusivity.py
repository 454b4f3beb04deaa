"""Mean squared displacement and self-diffusivity, with the finite-size correction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import center_of_mass
from mdsim.observables.tuples import atoms_of
from mdsim.observables.vacf import autocorrelation, lags_fs
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor
from mdsim.units import ANGSTROM2_PER_FS_IN_1E9_M2_PER_S, PASCAL, kT_eV

MADELUNG_CUBIC = 2.837297  # of a cubic lattice of point forces; Yeh and Hummer 2004


@dataclass(frozen=True)
class MSD:
    """Mean squared displacement over all time origins, averaged over atoms.

    Uses the Fourier transform, as in Calandrini et al., Collection SFN 12, 201 (2011). The positions must be unwrapped.

    Args:
        max_lag_fs: longest lag.
        element: chemical symbol of the atoms that are followed; None follows all.
        remove_center_of_mass: subtract the motion of the center of mass of the whole system.

    Raises:
        ValueError: a negative lag.
    """

    max_lag_fs: float
    element: str | None = None
    remove_center_of_mass: bool = False

    unit: ClassVar[str] = "Å²"

    def __post_init__(self) -> None:
        if not self.max_lag_fs >= 0:
            raise ValueError(f"max_lag_fs must not be negative, found {self.max_lag_fs}")

    @property
    def name(self) -> str:
        return "msd" if self.element is None else f"msd_{self.element}"

    def lags_fs(self, trajectory: Trajectory) -> Float[Tensor, "lag"]:
        """The lags in fs, from 0 to ``max_lag_fs`` in steps of the frame interval."""
        return lags_fs(trajectory, self.max_lag_fs)

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica lag"]:
        """Mean squared displacement in Å² at each lag; NaN for a replica with a coordinate that is not finite.

        Args:
            system: its elements and masses.
            trajectory: unwrapped positions in Å.

        Raises:
            ValueError: no atom of the element, or a trajectory not longer than the lag.
        """
        n_lags = len(self.lags_fs(trajectory))
        if n_lags > trajectory.n_frames:
            raise ValueError(
                f"a lag of {self.max_lag_fs} fs needs {n_lags} frames, {trajectory.frame_interval_fs} fs apart, "
                f"but the trajectory has {trajectory.n_frames}"
            )
        positions = _without_strain(trajectory)
        if self.remove_center_of_mass:
            positions = positions - center_of_mass(positions, system.masses)
        if self.element is not None:
            positions = positions[:, :, atoms_of(system, self.element)]
        displacement = positions - positions.mean(0)  # about the mean, to minimize cancellation in sums of squares
        squares = _sums_of_squares(displacement.flatten(2), n_lags)
        msd = (squares - 2.0 * autocorrelation(displacement.flatten(2), n_lags)) / positions.shape[2]
        return msd.clamp_min(0.0).T.to(trajectory.positions.dtype)


def _without_strain(trajectory: Trajectory) -> Float[Tensor, "frame replica atom 3"]:
    """Positions (Å, float64) without the motion that atoms share with a moving cell.

    Displacements between frames are those in units of the cell, in the cell of the later frame. The volume's
    fluctuations would otherwise move atoms far from the origin, without any diffusion (von Bülow, Bullerjahn, Hummer,
    J. Chem. Phys. 153, 021101 (2020)).
    """
    positions = trajectory.positions.double()
    if trajectory.cell is None:
        return positions
    cells = trajectory.cell.double()
    fractional = positions @ torch.linalg.inv_ex(cells).inverse
    steps = fractional.diff(dim=0) @ cells[1:]
    return positions[:1] + torch.cat([torch.zeros_like(positions[:1]), steps]).cumsum(0)


def _sums_of_squares(series: Float[Tensor, "frame row column"], n_lags: int) -> Float[Tensor, "lag row"]:
    """Mean over all time origins of |x(t)|² + |x(t + lag)|², from cumulative sums."""
    cumulative = series.square().sum(-1).cumsum(0)
    cumulative = torch.cat([torch.zeros_like(cumulative[:1]), cumulative])
    lag = torch.arange(n_lags, device=series.device)
    origins = len(series) - lag
    return (cumulative[origins] + cumulative[-1] - cumulative[lag]) / origins[:, None]


@dataclass(frozen=True)
class Diffusivity:
    """Self-diffusivity in 1e-9 m²/s: a sixth of the slope of the mean squared displacement (Einstein relation).

    The slope is that of a least-squares line over the fit window. The value is that of the simulated box. Add
    `finite_size_correction` for an infinite system.

    Args:
        fit_start_fs: shortest lag of the fit, beyond the ballistic regime.
        fit_end_fs: longest lag of the fit, well below the length of the trajectory.
        element: chemical symbol of the atoms that are followed; None follows all.
        remove_center_of_mass: subtract the motion of the center of mass of the whole system.
        viscosity_mPa_s: viscosity of the liquid, for the correction. None: no correction.

    Raises:
        ValueError: an empty fit window.
    """

    fit_start_fs: float
    fit_end_fs: float
    element: str | None = None
    remove_center_of_mass: bool = False
    viscosity_mPa_s: float | None = None

    unit: ClassVar[str] = "1e-9 m²/s"

    def __post_init__(self) -> None:
        if not 0 <= self.fit_start_fs < self.fit_end_fs:
            raise ValueError(f"the fit window {self.fit_start_fs} to {self.fit_end_fs} fs is empty or negative")

    @property
    def name(self) -> str:
        return "diffusivity" if self.element is None else f"diffusivity_{self.element}"

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "replica 1"]:
        """Diffusivity of each replica in 1e-9 m²/s; NaN for a replica with a coordinate that is not finite.

        Args:
            system: its elements and masses.
            trajectory: unwrapped positions in Å.

        Raises:
            ValueError: fewer than two lags in the fit window, or a trajectory that does not reach its end.
        """
        msd = MSD(self.fit_end_fs, self.element, self.remove_center_of_mass)
        return self.from_msd(msd.lags_fs(trajectory), msd(system, trajectory))

    def from_msd(self, lags_fs: Float[Tensor, "lag"], msd: Float[Tensor, "row lag"]) -> Float[Tensor, "row 1"]:
        """Diffusivity in 1e-9 m²/s from a mean squared displacement (Å²) at evenly spaced lags.

        Raises:
            ValueError: fewer than two lags in the fit window, or lags that do not reach its end.
        """
        spacing = float(lags_fs[1] - lags_fs[0]) if len(lags_fs) > 1 else math.inf
        tolerance = 1e-6 * self.fit_end_fs
        fitted = (lags_fs >= self.fit_start_fs - tolerance) & (lags_fs <= self.fit_end_fs + tolerance)
        if fitted.sum() < 2:
            raise ValueError(
                f"the fit window {self.fit_start_fs} to {self.fit_end_fs} fs holds {int(fitted.sum())} lags of frames "
                f"{spacing:g} fs apart, but a slope needs two: widen it or record more often"
            )
        if lags_fs[-1] + spacing <= self.fit_end_fs - tolerance:
            raise ValueError(
                f"the fit window ends at {self.fit_end_fs:g} fs, but the lags at {float(lags_fs[-1]):g} fs"
            )
        centered = (lags_fs[fitted] - lags_fs[fitted].mean()).to(msd)
        slope = msd[:, fitted.to(msd.device)] @ centered / centered.square().sum()
        return ANGSTROM2_PER_FS_IN_1E9_M2_PER_S * slope[:, None] / 6.0

    def finite_size_correction(self, system: System, temperature_K: float) -> float | None:
        """`yeh_hummer_correction` for the cell of the system, in 1e-9 m²/s; None without a cell or a viscosity.

        Raises:
            ValueError: the cell is not a cube. The correction is implemented for cubes only.
        """
        if system.cell is None or self.viscosity_mPa_s is None:
            return None
        lengths = torch.linalg.vector_norm(system.cell.double(), dim=1)
        cosines = system.cell.double() @ system.cell.double().T / torch.outer(lengths, lengths)
        if (lengths / lengths.mean() - 1).abs().max() > 1e-5 or (cosines - torch.eye(3).to(cosines)).abs().max() > 1e-5:
            raise ValueError(
                f"the Yeh-Hummer correction is that of a cube, but the cell is {system.cell.tolist()}: "
                "set the viscosity to null to skip it"
            )
        return yeh_hummer_correction(temperature_K, self.viscosity_mPa_s, float(lengths.mean()))


def yeh_hummer_correction(temperature_K: float, viscosity_mPa_s: float, box_length_A: float) -> float:
    """Correction from the diffusivity in a cubic periodic box to that of an infinite system.

    Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004): ξ k_B T / (6 π η L) with ξ = 2.837297.

    Args:
        temperature_K: temperature.
        viscosity_mPa_s: shear viscosity of the simulated liquid, which hardly depends on the box size.
        box_length_A: edge of the box.

    Returns:
        The correction in 1e-9 m²/s.

    Raises:
        ValueError: an argument that is not positive.
    """
    if not min(temperature_K, viscosity_mPa_s, box_length_A) > 0:
        raise ValueError(
            "temperature, viscosity and box length must be positive, found "
            f"{temperature_K} K, {viscosity_mPa_s} mPa s, {box_length_A} Å"
        )
    viscosity = viscosity_mPa_s * 1e-3 * PASCAL * 1e15  # eV fs/Å³
    correction = MADELUNG_CUBIC * kT_eV(temperature_K) / (6.0 * math.pi * viscosity * box_length_A)  # Å²/fs
    return ANGSTROM2_PER_FS_IN_1E9_M2_PER_S * correction
