"""Observables of a long reference run, tabulated by blocks, with standard errors.

``reference.npz`` in the folder of a data set contains, for blocks of consecutive frames of equal length,

    rdf_bin_width_A   ()             width of the bins of g(r), Å
    rdf_OO, ...       (block, bin)   g(r) of a pair of elements, in alphabetical order, from zero
    msd_lag_fs        ()             spacing of the lags of mean squared displacements, fs
    msd_O, ...        (block, lag)   mean squared displacement of the atoms of an element from lag zero, Å²

The bins are narrow, so that they can be merged to the bins of an observable without interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mdsim.datasets.npz import read_arrays, write_npz
from mdsim.errors import DatasetError
from mdsim.geometry import half_height_A
from mdsim.interfaces import Observable
from mdsim.observables.diffusivity import MSD, Diffusivity
from mdsim.observables.rdf import RDF
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

FRAMES_AT_ONCE = 500


@dataclass(frozen=True)
class ReferenceRun:
    """Tables of one run, in double precision, with one row per block."""

    rdf_bin_width_A: float
    rdf: dict[str, Float[Tensor, "block bin"]]
    msd_lag_fs: float
    msd: dict[str, Float[Tensor, "block lag"]]

    def mean_and_error(self, observable: Observable) -> tuple[Float[Tensor, "bin"], Float[Tensor, "bin"]] | None:
        """Mean of an observable and its standard error from the scatter of the blocks. None if it is not tabulated.

        Raises:
            ValueError: bins or lags that do not match those of the table.
        """
        if isinstance(observable, RDF):
            blocks = self._rdf(observable)
        elif isinstance(observable, Diffusivity):
            blocks = self._diffusivity(observable)
        else:
            blocks = None
        if blocks is None:
            return None
        return blocks.mean(0), blocks.std(0) / math.sqrt(len(blocks))

    def _rdf(self, observable: RDF) -> Float[Tensor, "block bin"] | None:
        """g(r) in wider bins: the mean over the narrow bins, weighted by the volumes of their shells."""
        plain = observable.normalization == "ideal_gas" and not observable.intermolecular_only
        table = None if observable.pair is None else self.rdf.get("".join(sorted(observable.pair)))
        if table is None or not plain or observable.smearing_A is not None:
            return None
        bins, width = observable.bins, self.rdf_bin_width_A
        merged = round(bins.width / width)
        if merged < 1 or abs(merged * width - bins.width) > 1e-6 * width:
            raise ValueError(f"bins of {bins.width:g} Å are not a multiple of the {width:g} Å of the reference run")
        count = bins.count * merged
        if count > table.shape[1]:
            reach = table.shape[1] * width
            raise ValueError(f"max_distance_A = {bins.stop:g} is beyond the {reach:g} Å of the reference run")
        volumes = (torch.arange(count + 1, dtype=torch.float64) ** 3).diff().reshape(bins.count, merged)
        narrow = table[:, :count].reshape(len(table), bins.count, merged)
        return (narrow * volumes).sum(-1) / volumes.sum(-1)

    def _diffusivity(self, observable: Diffusivity) -> Float[Tensor, "block 1"] | None:
        table = None if observable.element is None else self.msd.get(observable.element)
        if table is None or observable.remove_center_of_mass:
            return None
        lags = self.msd_lag_fs * torch.arange(table.shape[1], dtype=torch.float64)
        return observable.from_msd(lags, table)


def tabulate(
    system: System,
    blocks: Iterable[Trajectory],
    pairs: Sequence[tuple[str, str]],
    elements: Sequence[str],
    rdf_bin_width_A: float,
    max_lag_fs: float,
    lag_fs: float,
) -> ReferenceRun:
    """The tables of a periodic run.

    Args:
        system: the system of the frames. Distances are counted up to half the smallest height of its cell.
        blocks: stretches of consecutive frames of one replica, unwrapped, without motion of the center of mass.
        pairs: pairs of elements for g(r).
        elements: elements for mean squared displacements.
        rdf_bin_width_A: bin width of g(r), Å. Use narrow bins.
        max_lag_fs: longest lag, fs.
        lag_fs: spacing of the lags, a multiple of the frame interval, fs.

    Raises:
        ValueError: an open system, or lags that are not multiples of the frame interval.
    """
    if system.cell is None:
        raise ValueError("g(r) needs a periodic system, but the system has no cell")
    bins = math.floor(half_height_A(system.cell) / rdf_bin_width_A + 1e-9)
    rdfs = {"".join(sorted(pair)): RDF(bins * rdf_bin_width_A, rdf_bin_width_A, pair, "ideal_gas") for pair in pairs}
    rows: dict[str, list[Tensor]] = {name: [] for name in (*rdfs, *elements)}
    for block in blocks:
        stride = round(lag_fs / block.frame_interval_fs)
        if stride < 1 or abs(stride * block.frame_interval_fs - lag_fs) > 1e-6 * lag_fs:
            raise ValueError(
                f"lags of {lag_fs:g} fs are not a multiple of the frame interval {block.frame_interval_fs:g} fs"
            )
        for name, rdf in rdfs.items():
            rows[name].append(_mean_over_frames(rdf, system, block))
        for element in elements:
            rows[element].append(MSD(max_lag_fs, element)(system, block)[0, ::stride].double())
    return ReferenceRun(
        rdf_bin_width_A,
        {name: torch.stack(rows[name]) for name in rdfs},
        lag_fs,
        {element: torch.stack(rows[element]) for element in elements},
    )


def _mean_over_frames(rdf: RDF, system: System, block: Trajectory) -> Float[Tensor, "bin"]:
    pieces = (block[start : start + FRAMES_AT_ONCE] for start in range(0, block.n_frames, FRAMES_AT_ONCE))
    return torch.stack([rdf(system, piece)[:, 0].double().sum(0) for piece in pieces]).sum(0) / block.n_frames


def write_reference_run(path: Path, run: ReferenceRun) -> None:
    """Write the tables, in single precision."""
    arrays = {"rdf_bin_width_A": np.array(run.rdf_bin_width_A), "msd_lag_fs": np.array(run.msd_lag_fs)}
    arrays |= {f"rdf_{name}": table.numpy().astype(np.float32) for name, table in run.rdf.items()}
    arrays |= {f"msd_{name}": table.numpy().astype(np.float32) for name, table in run.msd.items()}
    write_npz(path, arrays)


def read_reference_run(path: Path) -> ReferenceRun:
    """Read the tables of a run.

    Raises:
        DatasetError: the file is damaged, or an array is missing, unknown or not finite.
    """
    try:
        arrays = {name: torch.from_numpy(array.astype(np.float64)) for name, array in read_arrays(path).items()}
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable npz file of numbers ({error})") from error
    scalars = ("rdf_bin_width_A", "msd_lag_fs")
    if missing := [name for name in scalars if name not in arrays]:
        raise DatasetError(f"{path}: misses {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}")
    if wrong := [name for name in scalars if arrays[name].numel() != 1 or not 0 < float(arrays[name]) < math.inf]:
        raise DatasetError(f"{path}: {wrong[0]} must be one positive number")
    tables = {name: array for name, array in arrays.items() if name not in scalars}
    for name, array in tables.items():
        if not name.startswith(("rdf_", "msd_")) or array.ndim != 2 or len(array) < 2 or not array.isfinite().all():
            raise DatasetError(f"{path}: {name} is not a finite table of an RDF or MSD with two blocks or more")
    return ReferenceRun(
        float(arrays["rdf_bin_width_A"]),
        {name.removeprefix("rdf_"): array for name, array in tables.items() if name.startswith("rdf_")},
        float(arrays["msd_lag_fs"]),
        {name.removeprefix("msd_"): array for name, array in tables.items() if name.startswith("msd_")},
    )
