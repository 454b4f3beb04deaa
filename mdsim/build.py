"""From names in a configuration to objects: the only place that knows which class a name stands for."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from mdsim import losses
from mdsim.config import ConfigError
from mdsim.datasets.folder import Dataset, load_dataset
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.nose_hoover import NoseHooverChain
from mdsim.integrators.nve import VelocityVerlet
from mdsim.integrators.paper_euler import PaperEuler
from mdsim.interfaces import BinnedObservable, ForceField, Integrator, StabilityCriterion
from mdsim.models.gemnet import GemNetT
from mdsim.models.nequip import NequIP
from mdsim.models.schnet import SchNet
from mdsim.neighborhoods import NeighborhoodSampler
from mdsim.observables.adf import ADF
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.rdf import RDF
from mdsim.observables.reference import reference_from_file, reference_from_frames, reweight
from mdsim.observables.vacf import VACF
from mdsim.restraint import BondedRestraint
from mdsim.schema import (
    ADFConfig,
    AngleDeviationConfig,
    BondDeviationConfig,
    BondLengthsConfig,
    CriterionConfig,
    DataConfig,
    DiffusivityConfig,
    DynamicalConfig,
    DynamicsConfig,
    GemNetTConfig,
    IntermolecularDistanceConfig,
    LangevinConfig,
    ModelConfig,
    ModelReference,
    NequIPConfig,
    NequIPReference,
    NoseHooverConfig,
    PaperEulerConfig,
    PretrainConfig,
    RDFConfig,
    RDFDeviationConfig,
    RunConfig,
    SchNetConfig,
    SimulateConfig,
    StructuralConfig,
    TrainConfig,
    VACFConfig,
    VelocityVerletConfig,
)
from mdsim.stability import (
    AngleDeviation,
    BondLengthDeviation,
    MinimumIntermolecularDistance,
    RDFDeviation,
    TemperatureExplosion,
)
from mdsim.state import System, Trajectory
from mdsim.training.evaluate import Compared
from mdsim.training.learn import QMData
from mdsim.training.samples import Target
from mdsim.training.stretch import Stretch
from mdsim.typing import Float, Tensor
from mdsim.units import kT_eV

log = logging.getLogger("mdsim")

FEW_FRAMES = 50.0  # a reference carried by fewer is announced as a warning


def device(cpu: bool) -> torch.device:
    """The GPU where there is one, unless the CPU is asked for."""
    return torch.device("cpu" if cpu or not torch.cuda.is_available() else "cuda")


# ---------------------------------------------------------------------------------------------------- force fields


def force_field(config: ModelConfig, species: Sequence[int]) -> ForceField:
    """A new force field with random weights from torch's global generator."""
    match config:
        case SchNetConfig():
            return SchNet(
                hidden_channels=config.hidden_channels,
                num_filters=config.num_filters,
                num_interactions=config.num_interactions,
                num_gaussians=config.num_gaussians,
                cutoff=config.cutoff_A,
                species=tuple(species),
            )
        case NequIPConfig():
            settings = config.model_dump(exclude={"name", "cutoff_A"})
            return NequIP(tuple(species), cutoff=config.cutoff_A, **settings)
        case GemNetTConfig():
            settings = config.model_dump(exclude={"name", "cutoff_A"})
            return GemNetT(species=tuple(species), cutoff=config.cutoff_A, **settings)
    raise ConfigError(f"model.name: {config.name!r} has no force field")


def pretraining_path(root: str | Path, model: str, data: DataConfig, identifier: str = "") -> Path:
    """Folder of one energy/force fit: `<root>/<model>/<name>-<molecule>_<size>_<model>[_<identifier>]`."""
    suffix = f"_{identifier}" if identifier else ""
    return Path(root) / model / f"{data.name}-{data.molecule}_{data.size}_{model}{suffix}"


def variant(model: ModelConfig | ModelReference) -> str:
    """What the name of a fit says besides the architecture, so that several can lie side by side: l_max of NequIP."""
    return f"lmax={model.l_max}" if isinstance(model, NequIPConfig | NequIPReference) else ""


def pretrained_checkpoint(config: RunConfig, size: str | None = None, identifier: str | None = None) -> Path:
    """The QM-pretrained checkpoint that a run starts from, or that of another data size or variant."""
    data = config.data.model_copy(update={"size": size or config.data.size})
    identifier = variant(config.model) if identifier is None else identifier
    folder = pretraining_path(config.model_dir, config.model.name, data, identifier)
    return folder / "checkpoints" / "best_checkpoint.pt"


def evaluated_checkpoint(config: RunConfig, eval_model: str) -> Path:
    """The checkpoint that an `eval_model` names.

    `pre`: the QM-pretrained one; `10k`, `25percent`: that of another data size; `lmax=N`: that of another l_max;
    `post`: the last of StABlE training; `post_cycle[i]`: the end of a cycle; `post_cycle[i]_epoch[j]`: one step in it.
    """
    if eval_model == "pre":
        path = pretrained_checkpoint(config)
    elif eval_model == "post":
        path = config.run_path / "last.pt"
    elif match := re.fullmatch(r"post_cycle(\d+)(?:_epoch(\d+))?", eval_model):
        cycle, epoch = match.groups()
        path = config.run_path / (f"cycle{cycle}_epoch{epoch}.pt" if epoch else f"end_of_cycle{cycle}.pt")
    elif re.fullmatch(r"lmax=\d+", eval_model):
        path = pretrained_checkpoint(config, identifier=eval_model)
    elif re.fullmatch(r"\d+k?|\d+percent", eval_model):
        path = pretrained_checkpoint(config, size=eval_model)
    else:
        raise ConfigError(
            f"eval_model: found {eval_model!r}, expected pre, a data size (10k, 25percent), lmax=N, post, "
            "post_cycle[i] or post_cycle[i]_epoch[j]"
        )
    if not path.exists():
        raise ConfigError(f"eval_model {eval_model!r}: {path} does not exist{_neighbours_of(path)}")
    return path


def _neighbours_of(path: Path) -> str:
    found = sorted(file.name for file in path.parent.glob("*.pt")) if path.parent.is_dir() else []
    return f"; there are {', '.join(found)}" if found else "; train it first"


# -------------------------------------------------------------------------------------------------------- dynamics


def integrator(config: DynamicsConfig) -> Integrator:
    """The equations of motion."""
    chosen, timestep_fs, temperature_K = config.integrator, config.timestep_fs, config.temperature_K
    match chosen:
        case VelocityVerletConfig():
            return VelocityVerlet(timestep_fs)
        case NoseHooverConfig():
            return NoseHooverChain(
                timestep_fs,
                temperature_K,
                relaxation_time_fs=chosen.relaxation_steps * timestep_fs,
                chain_length=chosen.chain_length,
                suzuki_yoshida_order=chosen.suzuki_yoshida_order,
            )
        case LangevinConfig():
            return LangevinBAOAB(timestep_fs, temperature_K, chosen.friction_per_ps)
        case PaperEulerConfig():
            return PaperEuler(timestep_fs, temperature_K, chosen.friction_per_ps)
    raise ConfigError(f"dynamics.integrator.name: {chosen.name!r} has no integrator")


def stretch(config: RunConfig, system: System, dataset: Dataset) -> Stretch:
    """The dynamics of one epoch with the criteria that judge it."""
    moves = integrator(config.dynamics)
    judges = [criterion(chosen, system, dataset, config.reference_run) for chosen in config.stability]
    judges.append(TemperatureExplosion(config.max_temperature_K, moves.degrees_of_freedom(system)))
    dynamics = config.dynamics
    return Stretch(
        system, moves, dynamics.steps_per_epoch, dynamics.dump_every_steps, tuple(judges), fast=dynamics.fast
    )


def prior(config: SimulateConfig, system: System, data: Dataset) -> BondedRestraint | None:
    """What an evaluation adds to the force field."""
    if config.prior is None:
        return None
    temperature_K = data.metadata.temperature_K or config.dynamics.temperature_K
    return BondedRestraint.from_frames(system, data.train.positions, kT_eV(temperature_K), config.prior.margin_A)


def criterion(config: CriterionConfig, system: System, dataset: Dataset, from_run: bool = False) -> StabilityCriterion:
    """What makes a frame unstable; an RDF as reference comes from the data set's whole run if it is asked for."""
    match config:
        case BondDeviationConfig():
            return BondLengthDeviation(dataset.reference_bond_lengths().to(system.masses), config.bond_dev_tol_A)
        case AngleDeviationConfig():
            return AngleDeviation(dataset.reference_angles_deg().to(system.masses), config.angle_dev_tol_deg)
        case IntermolecularDistanceConfig():
            return MinimumIntermolecularDistance(config.tolerance_A)
        case RDFDeviationConfig():
            chosen = RDFConfig(
                name="rdf", max_distance_A=config.max_distance_A, bin_width_A=config.bin_width_A, pair=config.pair
            )
            rdf = observable(chosen, system)
            return RDFDeviation(rdf, reference(rdf, system, dataset, from_run=from_run), config.tolerance)
    raise ConfigError(f"stability.name: {config.name!r} has no criterion")


# ----------------------------------------------------------------------------------------------------- observables


def observable(config: StructuralConfig, system: System) -> BinnedObservable:
    """A structural observable; the RDF is h(r) for open boundaries and g(r) for periodic ones."""
    match config:
        case RDFConfig():
            return RDF(
                config.max_distance_A,
                config.bin_width_A,
                config.pair,
                normalization="pair_density" if system.cell is None else "ideal_gas",
                intermolecular_only=config.intermolecular_only,
            )
        case ADFConfig():
            return ADF(bin_width_deg=config.bin_width_deg)
        case BondLengthsConfig():
            return BondLengthDistribution(config.max_length_A, config.bin_width_A, pair=config.pair)
    raise ConfigError(f"observable.name: {config.name!r} has no observable")


def dynamical_observable(config: DynamicalConfig) -> VACF | Diffusivity:
    """A dynamical observable."""
    match config:
        case VACFConfig():
            return VACF(max_lag_fs=config.max_lag_fs)
        case DiffusivityConfig():
            settings = config.model_dump(exclude={"name"})
            return Diffusivity(**settings)
    raise ConfigError(f"observable.name: {config.name!r} has no observable")


def reference(
    quantity: BinnedObservable,
    system: System,
    dataset: Dataset,
    file: str | None = None,
    temperature_K: float | None = None,
    from_run: bool = False,
) -> Float[Tensor, "bin"]:
    """What a structural observable should be: from a file, the data set's whole run, or the mean over training frames.

    Args:
        quantity: the observable.
        system: what the frames are of.
        dataset: its training frames are used.
        file: two columns, instead of the frames.
        temperature_K: reweight the frames to this temperature.
        from_run: prefer the tables of the whole run, where they hold the observable.
    """
    if file is not None:
        return reference_from_file(Path(file), quantity.bin_centers).to(system.masses)
    if from_run and (tabulated := dataset.reference_run.mean_and_error(quantity)) is not None:
        return tabulated[0].to(system.masses)
    weights = None if temperature_K is None else _weights_at(temperature_K, dataset)
    return reference_from_frames(quantity, system, dataset.train.positions.to(system.masses), weights)[0]


def _weights_at(temperature_K: float, dataset: Dataset) -> Float[Tensor, "frame"]:
    """Weights of the training frames at another temperature; says how many frames carry them."""
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


def _reference_temperature(config: RunConfig) -> float | None:
    return config.dynamics.temperature_K if config.reweight_reference else None


def compared_structural(config: SimulateConfig, system: System, source: Dataset) -> dict[str, Compared]:
    """The structural observables of an evaluation by name, with references from the training frames of ``source``."""
    quantities = [observable(chosen, system) for chosen in config.observables]
    _check_names([quantity.name for quantity in quantities])
    temperature_K, from_run = _reference_temperature(config), config.reference_run
    return {
        q.name: Compared(q, reference(q, system, source, None, temperature_K, from_run), q.bin_centers)
        for q in quantities
    }


def _check_names(names: list[str]) -> None:
    """Results are kept by name: two observables of one name would be one."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"observables: {', '.join(twice)} stands there more than once")


def compared_dynamical(config: SimulateConfig, system: System, data: Dataset) -> dict[str, Compared]:
    """The dynamical observables of an evaluation by name, with references from the contiguous frames or the whole run.

    Raises:
        ConfigError: the evaluation keeps frames at no multiple of the data's frame interval.
        ValueError: the dense window or the contiguous frames are too short for an observable.
    """
    if config.dense_window is None:
        return {}
    quantities = [dynamical_observable(chosen) for chosen in config.dynamical_observables]
    _check_names([quantity.name for quantity in quantities])
    return {quantity.name: _compared_dynamical(quantity, config, system, data) for quantity in quantities}


def _compared_dynamical(
    quantity: VACF | Diffusivity, config: SimulateConfig, system: System, data: Dataset
) -> Compared:
    _check_dense_window(quantity, config, system)
    if config.reference_run and (tabulated := data.reference_run.mean_and_error(quantity)) is not None:
        return Compared(quantity, tabulated[0], torch.zeros(1), standard_error=tabulated[1])
    frames = _contiguous_frames(config, system, data)
    axis = quantity.lags_fs(frames) if isinstance(quantity, VACF) else torch.zeros(1)
    return Compared(quantity, quantity(system, frames)[0].double(), axis)


def _check_dense_window(quantity: VACF | Diffusivity, config: SimulateConfig, system: System) -> None:
    """Find out now, not at the end of a long simulation, whether the window is long enough for the observable."""
    window, dynamics = config.dense_window, config.dynamics
    assert window is not None
    n_frames = window.epochs * dynamics.steps_per_epoch // window.dump_every_steps
    still = torch.zeros(n_frames, 1, system.n_atoms, 3, dtype=system.masses.dtype, device=system.masses.device)
    quantity(system, Trajectory(still, still, None, dynamics.timestep_fs * window.dump_every_steps))
    if isinstance(quantity, Diffusivity):
        quantity.finite_size_correction(system, dynamics.temperature_K)


def _contiguous_frames(config: SimulateConfig, system: System, data: Dataset) -> Trajectory:
    """The contiguous frames of the data set at the frame interval of the dense window."""
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


def dataset(config: DataConfig, size: str | None = None) -> Dataset:
    """The data set of a configuration, or another size of it."""
    return load_dataset(config.path, config.name, config.molecule, size or config.size)


def targets(config: TrainConfig, system: System, data: Dataset) -> list[Target]:
    """The terms of the observable loss."""
    terms = []
    for term in config.training_observables:
        quantity = observable(term.observable, system)
        temperature_K = _reference_temperature(config)
        expected = reference(quantity, system, data, term.reference_file, temperature_K, config.reference_run)
        terms.append(Target(quantity, expected, observable_loss(term.loss, quantity), term.weight))
    return terms


def neighborhood_sampler(config: TrainConfig, system: System, data: Dataset) -> NeighborhoodSampler | None:
    """What draws the samples of the local estimator; None for the global one.

    Raises:
        ConfigError: neighborhoods of more molecules than there are.
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


def qm_data(config: TrainConfig, system: System, data: Dataset, energy_shift_eV: float) -> QMData:
    """The labelled training frames for the QM gradient."""
    frames = data.train
    return QMData(
        frames.positions.to(system.masses),
        (frames.energy - energy_shift_eV).to(system.masses),
        frames.labels.to(system.masses),
        energy_force_loss("mae", config.learning.energy_coefficient, config.learning.force_coefficient),
    )


def energy_force_loss(
    kind: str, energy_weight: float, force_weight: float, energy_per_atom: bool = False
) -> losses.EnergyForceLoss:
    """The loss of the energy/force fit."""
    energy_loss, force_loss = {
        "mae": (losses.mean_absolute_error, losses.mean_absolute_error),
        "mse": (losses.mean_squared_error, losses.mean_squared_error),
        "huber": (losses.huber, losses.huber),
        "l2mae": (losses.mean_absolute_error, losses.l2_mean_absolute_error),
    }[kind]
    return partial(
        losses.energy_force_loss,
        energy_weight=energy_weight,
        force_weight=force_weight,
        energy_loss=energy_loss,
        force_loss=force_loss,
        energy_per_atom=energy_per_atom,
    )


def observable_loss(kind: str, quantity: BinnedObservable) -> losses.Loss:
    """The loss of a mean observable and its reference."""
    spacing = float(quantity.bin_centers[1] - quantity.bin_centers[0])
    by_name: dict[str, losses.Loss] = {
        "mse": losses.mean_squared_error,
        "sse": losses.sum_squared_error,
        "wasserstein": partial(losses.wasserstein_1, spacing=spacing),
        "forward_kl": losses.forward_kl,
        "reverse_kl": losses.reverse_kl,
    }
    return by_name[kind]


def pretraining_run_path(config: PretrainConfig) -> Path:
    """Folder of the fit that a configuration describes."""
    identifier = "_".join(filter(None, [variant(config.model), config.identifier]))
    return pretraining_path(config.run_dir, config.model.name, config.data, identifier)
