"""The plan of an evaluation, and its observables with their references."""

from __future__ import annotations

import logging

import torch

from mdsim.assembly.observables import dynamical_observable, observables
from mdsim.assembly.references import MOST_BLOCKS, dynamical_reference, reference, reference_temperature, weights_at
from mdsim.config.schema import PotentialEnergyConfig, SimulateConfig
from mdsim.datasets.folder import Dataset
from mdsim.dynamics.stretch import Stretch
from mdsim.errors import ConfigError
from mdsim.evaluation.plan import Compared, DenseWindow, Plan
from mdsim.force_field import ForceField
from mdsim.interfaces import CorrelationFunction, Observable
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.energies import EnergyDistribution
from mdsim.observables.reference import reference_from_frames
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
    )


def departures(
    config: SimulateConfig, system: System, source: Dataset, stretch: Stretch, force_field: ForceField
) -> Departures | None:
    """What follows the departures of replicas from the support of the training frames of ``source``, if wanted."""
    if config.departures is None:
        return None
    frames = source.train.positions
    if len(frames) < FEWEST_FRAMES:
        log.warning("departures: %d reference frames have no support; %d are needed", len(frames), FEWEST_FRAMES)
        return None
    support = support_of(system.to("cpu", torch.float64), frames.double()).to(system.masses.device)
    potential, dynamics = stretch.potential(force_field), config.dynamics
    some = frames[:: -(-len(frames) // MOST_ENERGIES)].to(system.masses)
    energies = torch.cat([potential(batch)[0] for batch in some.split(dynamics.replicas)])
    temperature_K = source.metadata.temperature_K or dynamics.temperature_K
    freedom = system.internal_degrees_of_freedom
    support = with_energies(support, energies, freedom, temperature_K, dynamics.temperature_K)
    frames_outside = sustained_frames(config.departures.sustained_ps, dynamics.frame_interval_fs)
    return Departures(support, dynamics.replicas, frames_outside)


def compared_structural(config: SimulateConfig, system: System, source: Dataset) -> dict[str, Compared]:
    """The structural observables of an evaluation by name, with references from the training frames of ``source``."""
    chosen = [one for one in config.observables if not isinstance(one, PotentialEnergyConfig)]
    quantities = [quantity for one in chosen for quantity in observables(one, system)]
    _check_names([quantity.name for quantity in quantities])
    temperature_K, from_run = reference_temperature(config), config.reference_run
    return {
        q.name: Compared(q, reference(q, system, source, None, temperature_K, from_run), q.bin_centers)
        for q in quantities
    }


def compared_energy(
    config: SimulateConfig, system: System, source: Dataset, force_field: ForceField
) -> dict[str, Compared]:
    """The distribution of the potential energy, compared with the labels of the training frames of ``source``.

    Total energies are compared if the zero of energy of the force field is determined for the system. If not, its
    energies are shifted so that they have no mean error over these frames.
    """
    chosen = [one for one in config.observables if isinstance(one, PotentialEnergyConfig)]
    if not chosen:
        return {}
    _check_names([one.name for one in chosen])
    frames, temperature_K = source.train, reference_temperature(config)
    undetermined = force_field.why_undetermined(system)
    if undetermined:
        zero_eV = force_field.fitted_zero_eV(system, frames.positions, frames.energy)
        log.info("potential energies are aligned at their mean over %d labeled frames: %s", len(frames), undetermined)
    else:
        zero_eV = float(force_field.zero_energy_eV(system))
    weights = None if temperature_K is None else weights_at(temperature_K, source)
    labels = frames.energy.double() - zero_eV
    quantity = _energy_distribution(chosen[0], labels, weights, aligned=undetermined is not None)
    labeled = Trajectory(frames.positions[:, None], None, labels[:, None], frame_interval_fs=1.0)
    expected = reference_from_frames(quantity, system, labeled, weights, n_blocks=min(MOST_BLOCKS, len(frames)))[0]
    return {quantity.name: Compared(quantity, expected.to(system.masses), quantity.bin_centers)}


def _energy_distribution(
    config: PotentialEnergyConfig, labels: Float[Tensor, "frame"], weights: Float[Tensor, "frame"] | None, aligned: bool
) -> EnergyDistribution:
    """Bins around the mean label, as wide as the spread of the labels requires."""
    share = torch.full_like(labels, 1 / len(labels)) if weights is None else weights.to(labels)
    mean = (share * labels).sum()
    reach = config.standard_deviations * float((share * (labels - mean).square()).sum().sqrt())
    if not reach > 0:
        raise ConfigError("observables: potential_energy needs labels that differ, but those of all frames are equal")
    return EnergyDistribution(float(mean), reach, 2 * reach / config.bins, aligned)


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
    window = _checked_dense_window(quantity, config, system)
    values, error, frames = dynamical_reference(
        quantity, system, data, window, "dense_window.dump_every_steps", config.reference_run
    )
    if frames is None:
        return Compared(quantity, values, torch.zeros(1), standard_error=error)
    axis = quantity.lags_fs(frames) if isinstance(quantity, CorrelationFunction) else torch.zeros(1)
    if values.shape != axis.shape:
        raise ConfigError(f"{quantity.name} gives {len(values)} values per replica for {len(axis)} lags (lags_fs)")
    return Compared(quantity, values, axis)


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
