"""Structural and dynamical observables, built from a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from mdsim.config.schema import (
    ADFConfig,
    BondLengthsConfig,
    CustomDynamicalConfig,
    CustomObservableConfig,
    DiffusivityConfig,
    DihedralsConfig,
    DistancesConfig,
    DynamicalConfig,
    RDFConfig,
    TargetObservableConfig,
    VACFConfig,
)
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable, Observable
from mdsim.observables.adf import ADF
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.dihedrals import DihedralDistribution
from mdsim.observables.distances import DistanceDistribution, pairs_of_elements
from mdsim.observables.rdf import RDF
from mdsim.observables.rotatable import copies, rotatable_dihedrals
from mdsim.observables.vacf import VACF
from mdsim.plugins import make
from mdsim.state import System


def observables(config: TargetObservableConfig, system: System) -> list[BinnedObservable]:
    """The structural observables of a section: one, or one for each dihedral or pair of elements."""
    match config:
        case DihedralsConfig():
            return list(_dihedrals(config, system))
        case DistancesConfig(pair=None):
            pairs = pairs_of_elements(system, config.among)
            if not pairs:
                raise ConfigError(f"observable.among: the system has no pairs of atoms {config.among!r}")
            return [_distances(config, pair) for pair in pairs]
        case DistancesConfig():
            return [_distances(config, config.pair)]
    return [observable(config, system)]


def _dihedrals(config: DihedralsConfig, system: System) -> Iterator[DihedralDistribution]:
    named = rotatable_dihedrals(system)
    if config.atoms is not None:
        named = {name: copies(system, atoms) for name, atoms in config.atoms.items()}
    if not named:
        raise ConfigError("observable.dihedrals: the system has no rotatable bond; name the `atoms` of a dihedral")
    if config.pooled:
        named = {"pooled": tuple(one for same in named.values() for one in same)}
    for name, atoms in named.items():
        yield DihedralDistribution(atoms, config.bin_width_deg, name)


def _distances(config: DistancesConfig, pair: tuple[str, str] | None) -> DistanceDistribution:
    return DistanceDistribution(config.max_distance_A, config.bin_width_A, pair, config.among)


def observable(config: TargetObservableConfig, system: System) -> BinnedObservable:
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
