"""What the learning phase needs: targets, labelled frames, and the samples of the local estimator."""

from __future__ import annotations

from mdsim.assembly.losses import energy_force_loss, observable_loss
from mdsim.assembly.observables import observable
from mdsim.assembly.references import reference, reference_temperature
from mdsim.config.schema import TrainConfig
from mdsim.datasets.folder import Dataset
from mdsim.errors import ConfigError
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.samples import Target
from mdsim.state import System
from mdsim.training.learn import QMData


def targets(config: TrainConfig, system: System, data: Dataset) -> list[Target]:
    """The terms of the observable loss."""
    terms = []
    for term in config.training_observables:
        quantity = observable(term.observable, system)
        temperature_K = reference_temperature(config)
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
