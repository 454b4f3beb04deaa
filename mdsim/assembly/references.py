"""References: values of observables, and structures, from files, reference runs or frames of the data set."""

from __future__ import annotations

import logging
from pathlib import Path

from mdsim.datasets.folder import Dataset
from mdsim.datasets.structures import read_structures, read_structures_in_cells
from mdsim.errors import ConfigError
from mdsim.geometry import volume
from mdsim.interfaces import BinnedObservable, CorrelationFunction, Observable
from mdsim.observables.densities import check_normalization
from mdsim.observables.reference import reference_from_file, reference_from_frames, reweight
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

log = logging.getLogger("mdsim")

SAME_VOLUME_A3 = 1e-3  # a smaller standard deviation is rounding in the file
FEW_FRAMES = 50.0  # a smaller effective sample size of a reference gives a warning

MOST_BLOCKS = 10  # of the error, which small sets do not allow

SAME_TEMPERATURE_K = 2.0  # largest difference between a measurement and the dynamics that is compared with it


def reference(
    quantity: BinnedObservable,
    system: System,
    dataset: Dataset,
    file: str | None = None,
    temperature_K: float | None = None,
    from_run: bool = False,
) -> Float[Tensor, "bin"]:
    """Reference of a structural observable: from a file, the data set's whole run, or the mean over training frames.

    An observable that knows its reference (`Density`) comes with it.

    Args:
        quantity: the observable.
        system: the system of the frames.
        dataset: provides the training frames.
        file: file of two columns to read instead.
        temperature_K: reweight the frames to this temperature.
        from_run: prefer the tables of the whole run, if they contain the observable.
    """
    if (known := getattr(quantity, "reference", None)) is not None:
        return known.to(system.masses)
    if file is not None:
        return measured(quantity, file).to(system.masses)
    if from_run and (tabulated := dataset.reference_run.mean_and_error(quantity)) is not None:
        return tabulated[0].to(system.masses)
    weights = None if temperature_K is None else weights_at(temperature_K, dataset)
    frames = dataset.train.positions.to(system.masses)
    return reference_from_frames(quantity, system, frames, weights, n_blocks=min(MOST_BLOCKS, len(frames)))[0]


def measured(quantity: BinnedObservable, file: str) -> Float[Tensor, "bin"]:
    """Reference of a structural observable from a file of two columns.

    Raises:
        ConfigError: the file is not normalized like the observable.
        ValueError: the file is damaged, or does not cover the bins.
    """
    values = reference_from_file(Path(file), quantity.bin_centers)
    try:
        check_normalization(quantity, values)
    except ValueError as error:
        raise ConfigError(f"reference_file: {file}: {error}") from error
    return values


def check_temperature(file: str, stated_K: float | None, wanted_K: float) -> None:
    """Refuse a file whose stated temperature is not that of the dynamics."""
    if stated_K is not None and abs(stated_K - wanted_K) > SAME_TEMPERATURE_K:
        raise ConfigError(
            f"reference_temperature_K: {file} is at {stated_K:g} K, and the dynamics at {wanted_K:g} K; simulate at "
            "the temperature of the file, or take a file of this temperature"
        )


def dynamical_reference(
    quantity: Observable,
    system: System,
    dataset: Dataset,
    window: Trajectory,
    key: str,
    from_run: bool = False,
    file: str | None = None,
) -> tuple[Float[Tensor, "bin"], Float[Tensor, "bin"] | None, Trajectory | None]:
    """Reference of a dynamical observable, its standard error and frames with its lags, where it has them.

    Args:
        quantity: the observable.
        system: the system of the frames.
        dataset: provides the contiguous frames.
        window: has the interval and the number of the frames that will be compared.
        key: of the configuration that sets the interval, for errors.
        from_run: prefer the tables of the whole run, if they contain the observable.
        file: file of two columns, lag in fs and value, to read instead.

    Raises:
        ConfigError: frames that do not fit, or a file for an observable without lags.
    """
    if from_run and file is None and (tabulated := dataset.reference_run.mean_and_error(quantity)) is not None:
        return *tabulated, None
    if file is not None:
        if not isinstance(quantity, CorrelationFunction):
            raise ConfigError(f"reference_file: {quantity.name} is a single number: set reference_value instead")
        return reference_from_file(Path(file), quantity.lags_fs(window)).to(system.masses), None, None
    frames = _contiguous_frames(system, dataset, window.frame_interval_fs, key)
    return quantity(system, frames)[0].double(), None, frames


def _contiguous_frames(system: System, dataset: Dataset, interval_fs: float, key: str) -> Trajectory:
    """The contiguous frames of a data set at a time interval that the given key sets.

    Raises:
        ConfigError: the interval is not a multiple of that of the data.
    """
    frames = dataset.contiguous_trajectory().to(system.masses.device, system.masses.dtype)
    stride = round(interval_fs / frames.frame_interval_fs)
    if stride < 1 or abs(stride * frames.frame_interval_fs - interval_fs) > 1e-6:
        raise ConfigError(
            f"{key}: frames every {interval_fs:g} fs cannot be compared with the contiguous frames of the data set, "
            f"which are {frames.frame_interval_fs:g} fs apart; choose a multiple"
        )
    return frames[::stride]


def reference_structures(
    system: System, dataset: Dataset, file: str | None = None, temperature_K: float | None = None
) -> tuple[Float[Tensor, "structure atom 3"], Float[Tensor, "structure"] | None]:
    """Structures (Å) of the reference ensemble and the weight of each (None: equal), from a file or training frames.

    Args:
        system: the system of the structures.
        dataset: provides the training frames.
        file: structures or a trajectory to read instead.
        temperature_K: reweight the training frames to this temperature.
    """
    if file is not None:
        return read_structures(Path(file), system), None
    weights = None if temperature_K is None else weights_at(temperature_K, dataset).to(system.masses)
    return dataset.train.positions.to(system.masses), weights


def structures_at_constant_pressure(
    system: System, file: str | None
) -> tuple[Float[Tensor, "structure atom 3"], Float[Tensor, "structure 3 3"]]:
    """Positions and cells (Å) of reference structures whose volume fluctuates, from a trajectory file.

    Raises:
        ConfigError: there is no file, or all of its structures have one volume.
    """
    found = None if file is None else read_structures_in_cells(Path(file), system)
    if found is None or float(volume(found[1].double()).std(correction=0)) < SAME_VOLUME_A3:
        raise ConfigError(
            f"terms.contrast: {file or 'the reference structures'} have one volume, and the simulated structures that "
            "of the barostat, so that the contrast of their energies is no gradient; give a `reference_file` of a "
            "simulation at this pressure, or remove the term or the barostat"
        )
    return found


def weights_at(temperature_K: float, dataset: Dataset) -> Float[Tensor, "frame"]:
    """Weights of the training frames at another temperature. The effective sample size is logged."""
    known = dataset.metadata.temperature_K
    if known is None:
        raise ConfigError(f"reweight_reference: {dataset.folder / 'metadata.json'} states no temperature")
    weights, effective = reweight(dataset.train.energy, known, temperature_K)
    log.log(
        logging.INFO if float(effective) >= FEW_FRAMES else logging.WARNING,
        "reference reweighted from %g to %g K: effective sample size %.1f of %d frames",
        *(known, temperature_K, float(effective), len(weights)),
    )
    return weights


def check_names(names: list[str], key: str = "observables") -> None:
    """Refuse duplicate names, because results are stored by name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{key}: {', '.join(twice)} is listed more than once")
