"""Reference values of observables: means over frames, tabulated files, and reweighting to another temperature."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from mdsim.interfaces import Observable
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor
from mdsim.units import kT_eV

COMMENT_MARKS = ("#", "@")


def reference_from_frames(
    observable: Observable,
    system: System,
    frames: Float[Tensor, "frame atom 3"] | Trajectory,
    weights: Float[Tensor, "frame"] | Float[Tensor, "frame replica"] | None = None,
    n_blocks: int = 10,
) -> tuple[Float[Tensor, "bin"], Float[Tensor, "bin"]]:
    """Mean of a structural observable over frames, and its standard error from block averages.

    Each replica is cut into ``n_blocks`` stretches of consecutive frames. The error is right when a stretch is longer
    than the correlation time (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989)). For frames in random order, any
    number of blocks is suitable.

    Args:
        observable: a structural observable.
        system: the system of the frames.
        frames: positions in Å of one replica, or a trajectory.
        weights: weights of the frames on any scale, for example from `reweight`. None: equal weights.
        n_blocks: blocks per replica.

    Returns:
        Mean and standard error in each bin, in the unit of the observable.

    Raises:
        ValueError: too few frames, unusable weights, a dynamical observable, or values that are not finite.
    """
    if isinstance(frames, Tensor):
        frames = Trajectory(frames[:, None], None, None, frame_interval_fs=1.0)
    count = n_blocks * frames.n_replicas
    if frames.n_frames < n_blocks or n_blocks < 1 or count < 2:
        raise ValueError(f"{n_blocks} blocks need as many frames and two blocks in all, found {frames.n_frames} frames")
    share = _normalized_weights(frames, weights)
    edges = [block * frames.n_frames // n_blocks for block in range(n_blocks + 1)]
    sums, shares = [], []
    for start, stop in pairwise(edges):
        values = _finite_values(observable, system, frames[start:stop], start)
        sums.append((share[start:stop, :, None] * values).sum(0))
        shares.append(share[start:stop].sum(0))
    block_sums, block_shares = torch.cat(sums), torch.cat(shares)
    mean = block_sums.sum(0)
    # Error of a ratio of sums: for equal weights the usual standard deviation of the block means over √blocks.
    residuals = block_sums - block_shares[:, None] * mean
    return mean, (residuals.square().sum(0) * count / (count - 1)).sqrt()


def _normalized_weights(frames: Trajectory, weights: Tensor | None) -> Float[Tensor, "frame replica"]:
    shape = (frames.n_frames, frames.n_replicas)
    if weights is None:
        return frames.positions.new_full(shape, 1.0 / (shape[0] * shape[1]))
    if weights.numel() != shape[0] * shape[1] or not (weights >= 0).all() or not 0 < weights.sum() < torch.inf:
        raise ValueError(
            f"weights must be finite, not negative, not all zero and one for each of {shape[0]} frames of {shape[1]} "
            f"replicas; found shape {tuple(weights.shape)} with sum {float(weights.sum())}"
        )
    return (weights / weights.sum()).reshape(shape).to(frames.positions)


def _finite_values(observable: Observable, system: System, frames: Trajectory, start: int) -> Tensor:
    values = observable(system, frames)
    if values.ndim != 3:
        raise ValueError(
            f"{observable.name} is a dynamical observable, with no value for a single frame: "
            "call it on the reference trajectory instead"
        )
    bad = (~values.isfinite()).any(-1).nonzero()
    if len(bad):
        frame, replica = bad[0].tolist()
        raise ValueError(f"{observable.name} is not finite in frame {start + frame} of replica {replica}: leave it out")
    return values


def reference_from_file(path: str | Path, bin_centers: Float[Tensor, "bin"]) -> Float[Tensor, "bin"]:
    """A tabulated function, interpolated linearly to bin centers.

    Args:
        path: text or CSV file of two columns, increasing in the first and in the unit of the bin centers. Columns are
            separated by commas, semicolons or blanks. Lines that begin with # or @ and lines above the first number
            are skipped.
        bin_centers: points at which to interpolate.

    Returns:
        The values at the bin centers, in the unit of the file.

    Raises:
        ValueError: a line that is not two finite numbers, a first column that does not increase, fewer than two rows,
            or bin centers outside the table; the message names the file and the line.
    """
    abscissa, ordinate = _read_table(Path(path))
    lowest, highest = float(bin_centers.min()), float(bin_centers.max())
    if lowest < abscissa[0] or highest > abscissa[-1]:
        raise ValueError(
            f"{path} covers {abscissa[0]:g} to {abscissa[-1]:g}, but bin centers reach from {lowest:g} to "
            f"{highest:g}: choose bins within the table"
        )
    values = np.interp(bin_centers.detach().cpu().double().numpy(), abscissa, ordinate)
    return torch.from_numpy(values).to(bin_centers)


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith(COMMENT_MARKS):
            continue
        words = text.replace(",", " ").replace(";", " ").split()
        if not rows and not _is_number(words[0] if words else ""):
            continue  # a header
        if len(words) != 2 or not all(map(_is_number, words)):
            raise ValueError(f"{path}, line {number}: expected two finite numbers, found {text!r}")
        rows.append((float(words[0]), float(words[1])))
        if len(rows) > 1 and rows[-1][0] <= rows[-2][0]:
            raise ValueError(f"{path}, line {number}: the first column must increase, found {text!r}")
    if len(rows) < 2:
        raise ValueError(f"{path}: expected at least two rows of two numbers, found {len(rows)}")
    abscissa, ordinate = np.array(rows).T
    return abscissa, ordinate


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def reweight(
    energies_eV: Float[Tensor, "*batch"], from_temperature_K: float, to_temperature_K: float
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, ""]]:
    """Weights that turn canonical samples at one temperature into averages at another.

    w ∝ exp(-(β' - β) U). The effective sample size is Kish's, (Σw)²/Σw². If it is far below the number of samples, a
    few samples dominate the average and it is not reliable.

    Args:
        energies_eV: potential energy of each sample.
        from_temperature_K: temperature of the samples.
        to_temperature_K: temperature of the averages.

    Returns:
        Weights that sum to 1, in the shape of the energies and in float64, and the effective sample size.

    Raises:
        ValueError: temperatures that are not positive, or energies that are not finite.
    """
    if not min(from_temperature_K, to_temperature_K) > 0:
        raise ValueError(f"temperatures must be positive, found {from_temperature_K} and {to_temperature_K} K")
    if energies_eV.numel() == 0 or not energies_eV.isfinite().all():
        bad = int((~energies_eV.isfinite()).sum())
        raise ValueError(f"reweighting needs finite energies, found {bad} of {energies_eV.numel()} not finite")
    exponents = -(1.0 / kT_eV(to_temperature_K) - 1.0 / kT_eV(from_temperature_K)) * energies_eV.double()
    weights = torch.softmax(exponents.reshape(-1), dim=0).reshape(energies_eV.shape)
    return weights, 1.0 / weights.square().sum()
