"""Observables of the potential energy of an evaluation, compared with the labels of reference frames."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from mdsim.assembly.references import MOST_BLOCKS, check_names, weights_at
from mdsim.assembly.state_points import Point, reference_temperature
from mdsim.config.schema import (
    ENERGY_CONFIGS,
    EnergyPerMoleculeConfig,
    EnthalpyOfVaporizationConfig,
    PotentialEnergyConfig,
    SimulateConfig,
)
from mdsim.errors import ConfigError
from mdsim.evaluation.plan import Compared
from mdsim.force_field import ForceField
from mdsim.interfaces import Observable
from mdsim.observables.energies import EnergyDistribution
from mdsim.observables.energies_per_molecule import EnergyPerMolecule, EnthalpyOfVaporization
from mdsim.observables.reference import reference_from_frames
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

log = logging.getLogger("mdsim")


def compared_energy(
    config: SimulateConfig, system: System, point: Point, force_field: ForceField
) -> dict[str, Compared]:
    """The observables of the potential energy by name, compared with the labels of reference frames.

    Total energies are compared if the zero of energy of the force field is determined for the system. If not, its
    energies are shifted so that they have no mean error over these frames.

    Raises:
        ConfigError: labels that are all equal, or an enthalpy of vaporization without a determined zero.
    """
    chosen = [one for one in config.observables if isinstance(one, ENERGY_CONFIGS)]
    if not chosen:
        return {}
    check_names([one.name for one in chosen])
    source = point.reference_data
    frames, temperature_K = source.train, reference_temperature(config, point, source)
    undetermined = force_field.why_undetermined(system)
    if undetermined:
        zero_eV = force_field.fitted_zero_eV(system, frames.positions, frames.energy)
        log.info("potential energies are aligned at their mean over %d labeled frames: %s", len(frames), undetermined)
    else:
        zero_eV = float(force_field.zero_energy_eV(system))
    weights = None if temperature_K is None else weights_at(temperature_K, source)
    labels = frames.energy.double() - zero_eV
    labeled = Trajectory(frames.positions[:, None], None, labels[:, None], frame_interval_fs=1.0)

    def expected(quantity: Observable) -> Float[Tensor, "bin"]:
        n_blocks = min(MOST_BLOCKS, len(frames))
        return reference_from_frames(quantity, system, labeled, weights, n_blocks)[0].to(system.masses)

    found: dict[str, Compared] = {}
    for one in chosen:
        if isinstance(one, PotentialEnergyConfig):
            distribution = _energy_distribution(one, labels, weights, aligned=undetermined is not None)
            found[one.name] = Compared(distribution, expected(distribution), distribution.bin_centers)
        elif isinstance(one, EnergyPerMoleculeConfig):
            quantity = EnergyPerMolecule(zero_eV)
            found[one.name] = Compared(quantity, expected(quantity), torch.zeros(1))
        else:
            found[one.name] = _vaporization(one, zero_eV, undetermined, config.dynamics.temperature_K, expected)
    return found


def _vaporization(
    config: EnthalpyOfVaporizationConfig,
    zero_eV: float,
    undetermined: str | None,
    temperature_K: float,
    expected: Callable[[Observable], Tensor],
) -> Compared:
    if undetermined:
        raise ConfigError(
            f"observables: enthalpy_of_vaporization needs energies with the zero of the labels, but {undetermined}"
        )
    quantity = EnthalpyOfVaporization(zero_eV, config.gas_energy_eV, temperature_K)
    given = config.reference_kJ_per_mol
    return Compared(quantity, expected(quantity) if given is None else torch.tensor([given]), torch.zeros(1))


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
