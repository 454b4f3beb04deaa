"""Loss terms, sampling and settings of StABlE training, built from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from mdsim.assembly.dynamics import integrator
from mdsim.assembly.losses import dynamical_loss, energy_force_loss, mixed_loss, observable_loss
from mdsim.assembly.observables import dynamical_observable, observables
from mdsim.assembly.references import dynamical_reference, reference_structures, structures_at_constant_pressure
from mdsim.assembly.state_points import Point, reference_at, reference_temperature
from mdsim.config.schema import (
    ContrastTermConfig,
    CustomTermConfig,
    DensityConfig,
    DynamicsTermConfig,
    EnergiesForcesTermConfig,
    LearningConfig,
    ObservablesTermConfig,
    OptimizationConfig,
    TermConfig,
    TrainConfig,
)
from mdsim.config.schema.terms import BoundedTerm
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.errors import ConfigError
from mdsim.estimator.loss_term import LossTerm
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.samples import Sampling
from mdsim.estimator.windows import WindowSettings
from mdsim.force_field import ForceField
from mdsim.memory import PiecesAtOnce
from mdsim.plugins import make
from mdsim.state import System, Trajectory
from mdsim.training.explore import ExploreSettings
from mdsim.training.joint_gradient import WeightedTerm
from mdsim.training.learn import LearnSettings
from mdsim.training.mixed_labels import MixedLabels
from mdsim.training.schedule import OptimizerSettings, UnstableFraction
from mdsim.training.stable import Limits, StableSettings
from mdsim.training.steps import StepSettings
from mdsim.training.terms import (
    ContrastTerm,
    DynamicsTerm,
    EnergyForceTerm,
    LabeledFrames,
    MixedEnergyForceTerm,
    ObservableTerm,
    StatePointsTerm,
    Target,
    TermAt,
)
from mdsim.typing import Float, Tensor
from mdsim.units import kT_eV


@dataclass(frozen=True)
class SeveralLabeled:
    """Labeled frames of several compositions, and their energies (eV) relative to the zero of a force field."""

    frames: MixedLabels
    energy: Float[Tensor, "frame"]

    @classmethod
    def of(cls, data: Dataset | MixedDataset, force_field: ForceField) -> SeveralLabeled | None:
        """The training frames of a mixed set; None if it has one composition."""
        if not isinstance(data, MixedDataset):
            return None
        like = next(force_field.parameters())
        frames = MixedLabels.of(data.train, like, find_bonds=force_field.repulsion is not None)
        return cls(frames, frames.relative_energy(force_field))


def weighted_terms(
    config: TrainConfig,
    system: System,
    data: Dataset,
    points: Sequence[Point],
    zero_energy_eV: float,
    several: SeveralLabeled | None = None,
) -> list[WeightedTerm]:
    """The loss terms with their weights. Terms that use samples are sums over the state points.

    Args:
        config: configuration of the training.
        system: the system of all replicas.
        data: provides the labeled frames.
        points: the state points, which provide the references.
        zero_energy_eV: total energy at which the energy of the force field is zero.
        several: the labeled frames of all compositions of a mixed set, in place of those of ``data``.
    """
    weighted = []
    for chosen in config.terms:
        term = _at_all(points, partial(loss_term, chosen, config, system, data, zero_energy_eV, several))
        if isinstance(chosen, BoundedTerm):
            weighted.append(WeightedTerm(term, chosen.weight, chosen.min_ratio, chosen.max_ratio))
        else:
            weighted.append(WeightedTerm(term, chosen.weight, max_increase=chosen.max_increase))
    return weighted


def _at_all(points: Sequence[Point], made: Callable[[Point], LossTerm]) -> LossTerm:
    """A term at the only state point, or the sum over several of them."""
    first = made(points[0])
    if len(points) == 1 or not first.uses_samples:
        return first
    terms = [first, *map(made, points[1:])]
    parts = [TermAt(p.conditions, term, p.config.weight) for p, term in zip(points, terms, strict=True)]
    return StatePointsTerm(_with_shared_observables(parts))


def _with_shared_observables(parts: Sequence[TermAt]) -> list[TermAt]:
    """Terms at several state points whose observables are the same objects, so that samples have them once."""
    first, shared = parts[0].term, list(parts)
    for number, part in enumerate(parts):
        if isinstance(part.term, ObservableTerm) and isinstance(first, ObservableTerm):
            pairs = zip(part.term.targets, first.targets, strict=True)
            same = [replace(own, observable=one.observable) for own, one in pairs]
            shared[number] = replace(part, term=replace(part.term, targets=same))
    return shared


def loss_term(
    chosen: TermConfig,
    config: TrainConfig,
    system: System,
    data: Dataset,
    zero_energy_eV: float,
    several: SeveralLabeled | None,
    point: Point,
) -> LossTerm:
    """One loss term at a state point. Other arguments as in `weighted_terms`."""
    match chosen:
        case ObservablesTermConfig():
            return ObservableTerm(targets(chosen, config, system, point), config.estimator.paper_estimator)
        case ContrastTermConfig():
            _one_file(chosen.reference_file, config)
            return contrast_term(chosen, config, system, data, point)
        case DynamicsTermConfig():
            if len(config.points) > 1:
                raise ConfigError("terms.dynamics: its windows have one temperature; give a single state point")
            return dynamics_term(chosen, config, system, point.reference_data)
        case EnergiesForcesTermConfig():
            at_once = PiecesAtOnce(config.estimator.minibatch_size, "labeled frames of a minibatch")
            weights = chosen.energy_coefficient, chosen.force_coefficient
            if several is not None:
                of_several = mixed_loss(chosen.loss, *weights, chosen.stress_coefficient)
                return MixedEnergyForceTerm(several.frames, several.energy, of_several, chosen.batch_size, at_once)
            if chosen.stress_coefficient:
                raise ConfigError(
                    "terms.energies_forces.stress_coefficient: the data set has one composition; set it to 0"
                )
            loss = energy_force_loss(chosen.loss, *weights)
            labels = LabeledFrames.of(data.train, system, zero_energy_eV)
            return EnergyForceTerm(system, labels, loss, chosen.batch_size, at_once)
        case CustomTermConfig():
            given = {"system": system, "dataset": data, "reference_dataset": point.reference_data}
            if len(config.points) > 1:
                given |= {key: value for key, value in asdict(point.conditions).items() if value is not None}
            return make(LossTerm, chosen.factory, chosen.options, "terms", **given)
    raise ConfigError(f"terms.name: {chosen.name!r} has no loss term")


def contrast_term(
    chosen: ContrastTermConfig, config: TrainConfig, system: System, data: Dataset, point: Point
) -> ContrastTerm:
    """The relative entropy with the reference structures of a state point, in their own cells with a barostat."""
    cells = None
    if config.dynamics.barostat is None:
        source = point.data if chosen.reference == "labeled_frames" else point.reference_data
        known = None if chosen.reference_file is not None else reference_temperature(config, point, source)
        positions, weights = reference_structures(system, source, chosen.reference_file, known)
    else:
        weights = None
        positions, cells = structures_at_constant_pressure(system, chosen.reference_file)
    only_after_break, sampler = chosen.simulated == "after_break", neighborhood_sampler(config, system, data)
    drawn = chosen.structures_per_gradient
    return ContrastTerm(system, positions, weights, drawn, only_after_break, sampler, cells)


def _one_file(reference_file: str | None, config: TrainConfig) -> None:
    """A file has the reference of one temperature."""
    if reference_file is not None and len(config.points) > 1:
        raise ConfigError(
            f"reference_file: {reference_file} is the reference of one temperature, and there are {len(config.points)} "
            "state points; name it in `reference_files` (observables) or in `data` (structures) of its state point"
        )


def targets(chosen: ObservablesTermConfig, config: TrainConfig, system: System, point: Point) -> list[Target]:
    """Observables with their references at a state point, from its data set or a file."""
    made = []
    for target in chosen.targets:
        quantities = observables(target.observable, system)
        if isinstance(target.observable, DensityConfig) and config.dynamics.barostat is None:
            raise ConfigError("terms.observables: the density is constant without a dynamics.barostat; add one")
        if target.reference_file is not None and len(quantities) > 1:
            names = ", ".join(quantity.name for quantity in quantities)
            raise ConfigError(
                f"reference_file: {target.reference_file} has one distribution, and the targets are {names}"
            )
        _one_file(target.reference_file, config)
        for quantity in quantities:
            if getattr(quantity, "reference", None) is not None and len(config.points) > 1:
                raise ConfigError(
                    f"terms.observables: the reference of {quantity.name} is that of one state point, and there are "
                    f"{len(config.points)}; leave it out, and give each of them `data`"
                )
            expected = reference_at(quantity, config, system, point, target)
            made.append(Target(quantity, expected, observable_loss(target.loss, quantity), target.weight))
    return made


def dynamics_term(chosen: DynamicsTermConfig, config: TrainConfig, system: System, data: Dataset) -> DynamicsTerm:
    """The term of dynamical observables, whose windows are centered at the structures of a data set.

    Raises:
        ConfigError: an integrator without an adjoint, or a reference that does not fit.
        ValueError: a window that is too short for an observable.
    """
    dynamics = config.dynamics
    still = torch.zeros(chosen.steps // chosen.dump_every_steps + 1, 1, system.n_atoms, 3).to(system.masses)
    window = Trajectory(still, still, None, dynamics.timestep_fs * chosen.dump_every_steps)
    made = []
    for target in chosen.targets:
        quantity = dynamical_observable(target.observable, system)
        expected = quantity(system, window)[0]
        if target.reference_value is None:
            given = (window, "terms.dynamics.dump_every_steps", config.reference_run, target.reference_file)
            expected = dynamical_reference(quantity, system, data, *given)[0].to(expected)
        elif expected.numel() == 1:
            expected = torch.full_like(expected, target.reference_value)
        else:
            raise ConfigError(
                f"terms.dynamics.reference_value: {quantity.name} has {len(expected)} values; give a file"
            )
        made.append(Target(quantity, expected, dynamical_loss(target.loss), target.weight))
    settings = WindowSettings(
        chosen.steps,
        chosen.dump_every_steps,
        chosen.points_every_steps,
        chosen.max_window_ratio,
        dynamics.fast,
        dynamics.fast_tolerance,
    )
    structures = reference_structures(system, data)[0]
    at_once = PiecesAtOnce(config.estimator.minibatch_size, "structures of a minibatch")
    moves, temperature_K = integrator(dynamics), dynamics.temperature_K
    try:
        return DynamicsTerm(system, moves, structures, temperature_K, made, chosen.windows, settings, at_once)
    except ValueError as error:
        raise ConfigError(f"terms.dynamics: {error}") from error


def sampling(config: TrainConfig, system: System, data: Dataset) -> Sampling:
    """The selection of samples from the frames of a rerun."""
    estimator = config.estimator
    noun, fixed = "structures of a minibatch", estimator.paper_estimator  # its result depends on the minibatches
    return Sampling(
        kT_eV(config.dynamics.temperature_K),
        PiecesAtOnce(estimator.minibatch_size, noun, limited=not fixed),
        estimator.frames_after_break,
        estimator.only_unstable,
        neighborhood_sampler(config, system, data),
    )


def neighborhood_sampler(config: TrainConfig, system: System, data: Dataset) -> NeighborhoodSampler | None:
    """The sampler of the local estimator, or None for the global one.

    Raises:
        ConfigError: neighborhoods have more molecules than the system.
    """
    local = config.estimator.local
    if local is None:
        return None
    if local.n_molecules > system.n_molecules:
        raise ConfigError(
            f"estimator.local.n_molecules: found {local.n_molecules}, but the system has {system.n_molecules} molecules"
        )
    return NeighborhoodSampler(
        data.reference_bond_lengths().to(system.masses),
        local.n_molecules,
        local.per_frame,
        local.n_strata,
        local.max_per_stratum,
        weighted=not local.paper_unweighted,
    )


def stable_settings(config: TrainConfig, terms: list[WeightedTerm]) -> StableSettings:
    """Settings of the training. Plateaus are detected in the loss of the first term that uses samples, if any."""
    learning, estimator = config.learning, config.estimator
    monitored = next((w.term for w in terms if w.term.uses_samples), terms[0].term)
    return StableSettings(
        Limits(config.epochs, config.max_cycles, config.max_force_evaluations),
        ExploreSettings(
            config.start_learning_at,
            config.max_explore_epochs,
            config.reset_probability,
            config.restart_probability,
            config.learn_while_exploring,
            config.exploration == "persistent",
        ),
        LearnSettings(
            learning.reruns,
            UnstableFraction(config.stop_learning_at, config.stop_window, config.stop_confidence),
            f"learn/{monitored.name}_loss",
            learning.learning_rate_decay,
            learning.max_times_reduce_lr,
            learning.max_epochs_per_cycle,
        ),
        StepSettings(
            learning.steps_per_rerun,
            learning.min_effective_fraction,
            learning.clip_norm,
            estimator.signal_every,
            learning.randomize_steps,
            learning.replay_reruns,
        ),
        optimizer_settings(learning),
        learning.average_decay,
    )


def optimizer_settings(config: LearningConfig | OptimizationConfig) -> OptimizerSettings:
    """Optimizer settings of pretraining or StABlE training. Keys missing from a section keep their defaults."""
    known = OptimizerSettings.__dataclass_fields__.keys() & type(config).model_fields.keys()
    return OptimizerSettings(**{key: getattr(config, key) for key in known})
