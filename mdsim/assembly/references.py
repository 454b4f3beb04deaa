"""References: values of structural observables, and structures, from files, reference runs or training frames."""

from __future__ import annotations

import logging
from pathlib import Path

from mdsim.datasets.folder import Dataset
from mdsim.datasets.structures import read_structures
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable
from mdsim.observables.reference import reference_from_file, reference_from_frames, reweight
from mdsim.state import System
from mdsim.typing import Float, Tensor

log = logging.getLogger("mdsim")

FEW_FRAMES = 50.0  # a smaller effective sample size of a reference gives a warning

MOST_BLOCKS = 10  # of the error, which small sets do not allow


def reference(
    quantity: BinnedObservable,
    system: System,
    dataset: Dataset,
    file: str | None = None,
    temperature_K: float | None = None,
    from_run: bool = False,
) -> Float[Tensor, "bin"]:
    """Reference of a structural observable: from a file, the data set's whole run, or the mean over training frames.

    Args:
        quantity: the observable.
        system: the system of the frames.
        dataset: provides the training frames.
        file: file of two columns to read instead.
        temperature_K: reweight the frames to this temperature.
        from_run: prefer the tables of the whole run, if they contain the observable.
    """
    if file is not None:
        return reference_from_file(Path(file), quantity.bin_centers).to(system.masses)
    if from_run and (tabulated := dataset.reference_run.mean_and_error(quantity)) is not None:
        return tabulated[0].to(system.masses)
    weights = None if temperature_K is None else weights_at(temperature_K, dataset)
    frames = dataset.train.positions.to(system.masses)
    return reference_from_frames(quantity, system, frames, weights, n_blocks=min(MOST_BLOCKS, len(frames)))[0]


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
