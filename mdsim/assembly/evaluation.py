"""The plan of an evaluation, and its observables with their references."""

from __future__ import annotations

import torch

from mdsim.assembly.observables import dynamical_observable, observable
from mdsim.assembly.references import reference, reference_temperature
from mdsim.config.schema import SimulateConfig
from mdsim.datasets.folder import Dataset
from mdsim.errors import ConfigError
from mdsim.evaluation.evaluate import Compared, DenseWindow, Plan
from mdsim.interfaces import CorrelationFunction, Observable
from mdsim.observables.diffusivity import Diffusivity
from mdsim.state import System, Trajectory


def plan(config: SimulateConfig) -> Plan:
    """The length of an evaluation, and what is kept of it."""
    window = config.dense_window
    return Plan(
        config.epochs,
        config.end_when_unstable,
        None if window is None else DenseWindow(window.epochs, window.dump_every_steps),
        config.save_trajectories,
        config.frames_before_break,
    )


def compared_structural(config: SimulateConfig, system: System, source: Dataset) -> dict[str, Compared]:
    """The structural observables of an evaluation by name, with references from the training frames of ``source``."""
    quantities = [observable(chosen, system) for chosen in config.observables]
    _check_names([quantity.name for quantity in quantities])
    temperature_K, from_run = reference_temperature(config), config.reference_run
    return {
        q.name: Compared(q, reference(q, system, source, None, temperature_K, from_run), q.bin_centers)
        for q in quantities
    }


def _check_names(names: list[str]) -> None:
    """Refuse duplicate names, because results are stored by name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"observables: {', '.join(twice)} is listed more than once")


def compared_dynamical(config: SimulateConfig, system: System, data: Dataset) -> dict[str, Compared]:
    """The dynamical observables of an evaluation by name, with references from contiguous frames or the whole run.

    Raises:
        ConfigError: the frame interval of the evaluation is not a multiple of that of the data.
        ValueError: the dense window or the contiguous frames are too short for an observable.
    """
    if config.dense_window is None:
        return {}
    quantities = [dynamical_observable(chosen, system) for chosen in config.dynamical_observables]
    _check_names([quantity.name for quantity in quantities])
    return {quantity.name: _compared_dynamical(quantity, config, system, data) for quantity in quantities}


def _compared_dynamical(quantity: Observable, config: SimulateConfig, system: System, data: Dataset) -> Compared:
    _check_dense_window(quantity, config, system)
    if config.reference_run and (tabulated := data.reference_run.mean_and_error(quantity)) is not None:
        return Compared(quantity, tabulated[0], torch.zeros(1), standard_error=tabulated[1])
    frames = _contiguous_frames(config, system, data)
    values = quantity(system, frames)[0].double()
    axis = quantity.lags_fs(frames) if isinstance(quantity, CorrelationFunction) else torch.zeros(1)
    if values.shape != axis.shape:
        raise ConfigError(f"{quantity.name} gives {len(values)} values per replica for {len(axis)} lags (lags_fs)")
    return Compared(quantity, values, axis)


def _check_dense_window(quantity: Observable, config: SimulateConfig, system: System) -> None:
    """Check before a long simulation that the window is long enough for the observable."""
    window, dynamics = config.dense_window, config.dynamics
    assert window is not None
    n_frames = config.dense_epochs * dynamics.steps_per_epoch // window.dump_every_steps
    still = torch.zeros(n_frames, 1, system.n_atoms, 3, dtype=system.masses.dtype, device=system.masses.device)
    quantity(system, Trajectory(still, still, None, dynamics.timestep_fs * window.dump_every_steps))
    if isinstance(quantity, Diffusivity):
        quantity.finite_size_correction(system, dynamics.temperature_K)


def _contiguous_frames(config: SimulateConfig, system: System, data: Dataset) -> Trajectory:
    """The contiguous frames of the data set, at the frame interval of the dense window."""
    window, dynamics = config.dense_window, config.dynamics
    assert window is not None
    interval_fs = dynamics.timestep_fs * window.dump_every_steps
    frames = data.contiguous_trajectory().to(system.masses.device, system.masses.dtype)
    stride = round(interval_fs / frames.frame_interval_fs)
    if stride < 1 or abs(stride * frames.frame_interval_fs - interval_fs) > 1e-6:
        raise ConfigError(
            f"dense_window.dump_every_steps: frames every {interval_fs:g} fs cannot be compared with the contiguous "
            f"frames of the data set, which are {frames.frame_interval_fs:g} fs apart; choose a multiple"
        )
    return frames[::stride]
