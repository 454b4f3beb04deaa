"""Structural and dynamical observables, built from a configuration."""

from __future__ import annotations

from mdsim.config.schema import (
    ADFConfig,
    BondLengthsConfig,
    CustomDynamicalConfig,
    CustomObservableConfig,
    DiffusivityConfig,
    DynamicalConfig,
    RDFConfig,
    StructuralConfig,
    VACFConfig,
)
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable, Observable
from mdsim.observables.adf import ADF
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.rdf import RDF
from mdsim.observables.vacf import VACF
from mdsim.plugins import make
from mdsim.state import System


def observable(config: StructuralConfig, system: System) -> BinnedObservable:
    """A structural observable. The RDF is h(r) for open boundaries and g(r) for periodic ones."""
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
        case CustomObservableConfig():
            return make(BinnedObservable, config.factory, config.options, "observable", system=system)
    raise ConfigError(f"observable.name: {config.name!r} has no observable")


def dynamical_observable(config: DynamicalConfig, system: System) -> Observable:
    """A dynamical observable."""
    match config:
        case VACFConfig():
            return VACF(max_lag_fs=config.max_lag_fs)
        case DiffusivityConfig():
            settings = config.model_dump(exclude={"name"})
            return Diffusivity(**settings)
        case CustomDynamicalConfig():
            return make(Observable, config.factory, config.options, "dynamical_observables", system=system)
    raise ConfigError(f"observable.name: {config.name!r} has no observable")
