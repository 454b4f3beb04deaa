"""The plan of an evaluation, and its observables with their references."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path

import torch

from mdsim.assembly.observables import dynamical_observable, observables
from mdsim.assembly.references import check_names, check_temperature, dynamical_reference
from mdsim.assembly.state_points import Point, reference_at
from mdsim.assembly.trajectories import file_settings
from mdsim.config.schema import METRICS_ONLY, ReferenceFileConfig, SimulateConfig
from mdsim.datasets.folder import Dataset
from mdsim.dynamics.stretch import Stretch
from mdsim.errors import ConfigError
from mdsim.evaluation.plan import Compared, DenseWindow, Plan
from mdsim.force_field import ForceField
from mdsim.interfaces import BinnedObservable, CorrelationFunction, Observable
from mdsim.observables.density import Density
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.reference import reference_from_file
from mdsim.stability.departures import Departures, sustained_frames
from mdsim.stability.support import FEWEST_FRAMES, support_of, with_energies
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

log = logging.getLogger("mdsim")

MOST_ENERGIES = 1000  # reference frames whose energies give the range of energies


def plan(config: SimulateConfig) -> Plan:
    """The length of an evaluation, and what is kept of it."""
    window = config.dense_window
    return Plan(
        config.epochs,
        config.end_when_unstable,
        None if window is None else DenseWindow(window.epochs, window.dump_every_steps),
        config.save_trajectories,
        config.frames_before_break,
        file_settings(config.trajectory),
    )


def departures(
    config: SimulateConfig, system: System, point: Point, stretch: Stretch, force_field: ForceField
) -> Departures | None:
    """What follows the departures of replicas from the support of the reference frames of a state point, if wanted."""
    if config.departures is None:
        return None
    source = point.reference_data
    frames = source.train.positions
    if len(frames) < FEWEST_FRAMES:
        log.warning("departures: %d reference frames have no support; %d are needed", len(frames), FEWEST_FRAMES)
        return None
    support = support_of(system.to("cpu", torch.float64), frames.double()).to(system.masses.device)
    potential, dynamics = stretch.potential_at_constant_volume(force_field), config.dynamics
    some = frames[:: -(-len(frames) // MOST_ENERGIES)].to(system.masses)
    energies = torch.cat([potential(batch)[0] for batch in some.split(dynamics.replicas)])
    temperature_K = source.metadata.temperature_K or dynamics.temperature_K
    freedom = system.internal_degrees_of_freedom
    support = with_energies(support, energies, freedom, temperature_K, dynamics.temperature_K)
    frames_outside = sustained_frames(config.departures.sustained_ps, dynamics.frame_interval_fs)
    return Departures(support, dynamics.replicas, frames_outside)


def compared_structural(config: SimulateConfig, system: System, point: Point) -> dict[str, Compared]:
    """The structural observables of an evaluation by name, with their references at a state point."""
    chosen = [one for one in config.observables if not isinstance(one, METRICS_ONLY)]
    quantities = [quantity for one in chosen for quantity in observables(one, system)]
    if config.dynamics.barostat is not None and not any(isinstance(one, Density) for one in quantities):
        quantities.append(Density(math.nan))  # its mean: the volume of the data is at no known pressure
    check_names([quantity.name for quantity in quantities])
    files = reference_files(config)
    return {
        q.name: Compared(q, reference_at(q, config, system, point, files.get(q.name)), q.bin_centers)
        for q in quantities
    }


def reference_files(config: SimulateConfig) -> dict[str, ReferenceFileConfig]:
    """Files of references by observable.

    Raises:
        ConfigError: an observable has two files.
    """
    check_names([one.observable for one in config.reference_files], "reference_files")
    of_points = [one for point in config.points for one in point.reference_files]
    return {one.observable: one for one in (*config.reference_files, *of_points)}


def check_reference_files(config: SimulateConfig, names: Iterable[str]) -> None:
    """Refuse reference files of observables that are not among the given ones.

    Raises:
        ConfigError: there is such a file.
    """
    if unknown := {one.observable for one in config.reference_files} - set(names):
        known = ", ".join(names) or "none"
        raise ConfigError(f"reference_files: {min(unknown)} is no observable of this evaluation, which has: {known}")


def compared_dynamical(config: SimulateConfig, system: System, data: Dataset) -> dict[str, Compared]:
    """The dynamical observables of an evaluation by name, with references from contiguous frames or the whole run.

    Raises:
        ConfigError: the frame interval of the evaluation is not a multiple of that of the data.
        ValueError: the dense window or the contiguous frames are too short for an observable.
    """
    if config.dense_window is None:
        return {}
    quantities = [dynamical_observable(chosen, system) for chosen in config.dynamical_observables]
    check_names([quantity.name for quantity in quantities])
    known, wanted = data.metadata.temperature_K, config.dynamics.temperature_K
    from_data = {quantity.name for quantity in quantities} - reference_files(config).keys()
    if from_data and config.state_points is not None and known is not None and known != wanted:
        raise ConfigError(
            f"dynamical_observables: the contiguous frames of {data.folder} are at {known:g} K, and dynamics cannot be "
            f"reweighted to {wanted:g} K; give this state point `data` at {wanted:g} K, or list no such observables"
        )
    return {quantity.name: _compared_dynamical(quantity, config, system, data) for quantity in quantities}


def _compared_dynamical(quantity: Observable, config: SimulateConfig, system: System, data: Dataset) -> Compared:
    window = _checked_dense_window(quantity, config, system)
    if (given := reference_files(config).get(quantity.name)) is not None:
        check_temperature(given.reference_file, given.reference_temperature_K, config.dynamics.temperature_K)
        axis = _axis_of(quantity, window)
        if len(axis) < 2:
            raise ConfigError(f"reference_files: {quantity.name} is a single number; its reference is that of the data")
        return Compared(quantity, reference_from_file(Path(given.reference_file), axis), axis)
    values, error, frames = dynamical_reference(
        quantity, system, data, window, "dense_window.dump_every_steps", config.reference_run
    )
    if frames is None:
        return Compared(quantity, values, torch.zeros(1), standard_error=error)
    axis = _axis_of(quantity, frames)
    if values.shape != axis.shape:
        raise ConfigError(f"{quantity.name} gives {len(values)} values per replica for an axis of {len(axis)}")
    return Compared(quantity, values, axis)


def _axis_of(quantity: Observable, frames: Trajectory) -> Float[Tensor, "bin"]:
    """Lags of a correlation function, bins of a spectrum, or zero for a single value."""
    if isinstance(quantity, CorrelationFunction):
        return quantity.lags_fs(frames)
    return quantity.bin_centers if isinstance(quantity, BinnedObservable) else torch.zeros(1)


def _checked_dense_window(quantity: Observable, config: SimulateConfig, system: System) -> Trajectory:
    """Atoms at rest in the dense window, after a check before a long simulation that it suffices for the observable."""
    window, dynamics = config.dense_window, config.dynamics
    assert window is not None
    n_frames = config.dense_epochs * dynamics.steps_per_epoch // window.dump_every_steps
    still = torch.zeros(n_frames, 1, system.n_atoms, 3, dtype=system.masses.dtype, device=system.masses.device)
    at_rest = Trajectory(still, still, None, dynamics.timestep_fs * window.dump_every_steps)
    quantity(system, at_rest)
    if isinstance(quantity, Diffusivity):
        quantity.finite_size_correction(system, dynamics.temperature_K)
    return at_rest
