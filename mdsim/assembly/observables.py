"""Structural and dynamical observables, built from a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from mdsim.config.schema import (
    ADFConfig,
    BondLengthsConfig,
    CoordinationConfig,
    CustomDynamicalConfig,
    CustomObservableConfig,
    DensityConfig,
    DiffusivityConfig,
    DihedralsConfig,
    DistancesConfig,
    DynamicalConfig,
    EndToEndConfig,
    HydrogenBondsConfig,
    InfraredSpectrumConfig,
    RadiusOfGyrationConfig,
    RDFConfig,
    Section,
    StructureFactorConfig,
    TargetObservableConfig,
    TetrahedralOrderConfig,
    VACFConfig,
    VibrationalDOSConfig,
)
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable, Observable
from mdsim.observables.adf import ADF
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.observables.chain_ends import chain_ends
from mdsim.observables.chains import EndToEndDistance, RadiusOfGyration
from mdsim.observables.coordination import CoordinationNumber
from mdsim.observables.debye_scattering import DebyeStructureFactor
from mdsim.observables.density import Density
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.dihedrals import DihedralDistribution
from mdsim.observables.direct_structure_factor import DirectStructureFactor
from mdsim.observables.distances import DistanceDistribution, pairs_of_elements
from mdsim.observables.hydrogen_bonds import HydrogenBonds
from mdsim.observables.rdf import RDF
from mdsim.observables.rotatable import copies, rotatable_dihedrals
from mdsim.observables.spectra import InfraredSpectrum, VibrationalDOS
from mdsim.observables.structure_factor import FourierStructureFactor, StructureFactor
from mdsim.observables.tetrahedral import TetrahedralOrder
from mdsim.observables.vacf import VACF
from mdsim.plugins import make
from mdsim.state import System

#: Observables whose arguments are the keys of their sections.
OF_SECTIONS: dict[type[Section], Callable[..., BinnedObservable]] = {
    CoordinationConfig: CoordinationNumber,
    TetrahedralOrderConfig: TetrahedralOrder,
    HydrogenBondsConfig: HydrogenBonds,
    RadiusOfGyrationConfig: RadiusOfGyration,
    DensityConfig: Density,
}


def observables(config: TargetObservableConfig, system: System) -> list[BinnedObservable]:
    """The structural observables of a section: one, or one for each dihedral, pair of elements or kind of chain."""
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
        case StructureFactorConfig(weighting="partial", pair=None):
            return [_structure_factor(config, pair, system) for pair in pairs_of_elements(system)]
        case StructureFactorConfig():
            return [_structure_factor(config, config.pair, system)]
        case EndToEndConfig():
            return list(_end_to_end(config, system))
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


def _structure_factor(config: StructureFactorConfig, pair: tuple[str, str] | None, system: System) -> StructureFactor:
    """The sum over wave vectors or the transform of g(r) for periodic systems, the Debye formula for open ones."""
    weighting = "number" if config.weighting == "partial" else config.weighting
    isotopes = tuple(config.isotopes.items())
    common = (config.max_q_per_A, config.bin_width_per_A, pair, weighting, config.min_q_per_A, isotopes)
    if system.cell is None:
        return DebyeStructureFactor(*common)
    if config.method == "direct":
        return DirectStructureFactor(*common, config.most_vectors_per_bin)
    return FourierStructureFactor(*common, config.max_distance_A, config.distance_bin_width_A, config.lorch_window)


def _end_to_end(config: EndToEndConfig, system: System) -> Iterator[EndToEndDistance]:
    named = chain_ends(system)
    if config.atoms is not None:
        named = {name: copies(system, ends) for name, ends in config.atoms.items()}
    if not named:
        raise ConfigError(
            "observable.end_to_end: no molecule has two bonded heavy atoms; name the `atoms` at the ends of one"
        )
    for name, ends in named.items():
        yield EndToEndDistance(ends, config.max_distance_A, config.bin_width_A, name, config.min_distance_A)


def observable(config: TargetObservableConfig, system: System) -> BinnedObservable:
    """A structural observable. The RDF is h(r) for open boundaries and g(r) for periodic ones."""
    if (made := OF_SECTIONS.get(type(config))) is not None:
        return made(**config.model_dump(exclude={"name"}))
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
            return VACF(max_lag_fs=config.max_lag_fs, element=config.element)
        case VibrationalDOSConfig():
            return VibrationalDOS(**config.model_dump(exclude={"name"}))
        case InfraredSpectrumConfig():
            settings = config.model_dump(exclude={"name", "charges_e", "charges_file"})
            return InfraredSpectrum(**settings, charges_e=_charges(config))
        case DiffusivityConfig():
            settings = config.model_dump(exclude={"name"})
            return Diffusivity(**settings)
        case CustomDynamicalConfig():
            return make(Observable, config.factory, config.options, "dynamical_observables", system=system)
    raise ConfigError(f"observable.name: {config.name!r} has no observable")


def _charges(config: InfraredSpectrumConfig) -> tuple[tuple[str, float], ...] | tuple[float, ...]:
    """Charges by element, or those of a file with one number for each atom."""
    if config.charges_file is None:
        return tuple((config.charges_e or {}).items())
    try:
        charges = tuple(float(word) for word in Path(config.charges_file).read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise ConfigError(f"charges_file: {config.charges_file} is no file of numbers ({error})") from error
    if not charges or not all(map(math.isfinite, charges)):
        raise ConfigError(f"charges_file: {config.charges_file} is empty, or a charge is not finite")
    return charges
