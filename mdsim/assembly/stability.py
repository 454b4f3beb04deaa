"""Stability criteria built from a configuration."""

from __future__ import annotations

from mdsim.assembly.observables import observable
from mdsim.assembly.references import reference
from mdsim.config.schema import (
    AngleDeviationConfig,
    BondDeviationConfig,
    CriterionConfig,
    CustomCriterionConfig,
    DensityDeviationConfig,
    IntermolecularDistanceConfig,
    RDFConfig,
    RDFDeviationConfig,
)
from mdsim.datasets.folder import Dataset
from mdsim.errors import ConfigError
from mdsim.interfaces import StabilityCriterion
from mdsim.observables.density import density_g_per_cm3
from mdsim.plugins import make
from mdsim.stability.criteria import (
    AngleDeviation,
    BondLengthDeviation,
    DensityDeviation,
    MinimumIntermolecularDistance,
    RDFDeviation,
)
from mdsim.state import System


def criterion(config: CriterionConfig, system: System, dataset: Dataset, from_run: bool = False) -> StabilityCriterion:
    """A stability criterion. With ``from_run``, the reference RDF is that of the data set's whole run."""
    match config:
        case BondDeviationConfig():
            return BondLengthDeviation(dataset.reference_bond_lengths().to(system.masses), config.bond_dev_tol_A)
        case AngleDeviationConfig():
            return AngleDeviation(dataset.reference_angles_deg().to(system.masses), config.angle_dev_tol_deg)
        case IntermolecularDistanceConfig():
            return MinimumIntermolecularDistance(config.tolerance_A)
        case DensityDeviationConfig():
            if system.cell is None:
                raise ConfigError("stability.density_deviation: the system is open and has no density; remove it")
            known = config.reference_g_per_cm3 or float(density_g_per_cm3(system, system.cell))
            return DensityDeviation(known, config.density_dev_tol_g_per_cm3)
        case RDFDeviationConfig():
            chosen = RDFConfig(
                name="rdf", max_distance_A=config.max_distance_A, bin_width_A=config.bin_width_A, pair=config.pair
            )
            rdf = observable(chosen, system)
            return RDFDeviation(rdf, reference(rdf, system, dataset, from_run=from_run), config.tolerance)
        case CustomCriterionConfig():
            return make(StabilityCriterion, config.factory, config.options, "stability", system=system, dataset=dataset)
    raise ConfigError(f"stability.name: {config.name!r} has no criterion")
