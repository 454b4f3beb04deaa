"""Stability-aware Boltzmann estimator (StABlE) training of machine-learned force fields."""

# ruff: noqa: I001 - re-exported names, `A as A`, would otherwise each be on a separate line
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:  # for editors and type checkers; at run time each name is imported on first use
    from mdsim.calculator import ForceFieldCalculator as ForceFieldCalculator
    from mdsim.datasets.folder import Dataset as Dataset, load_dataset as load_dataset
    from mdsim.datasets.mixed import MixedFrames as MixedFrames
    from mdsim.datasets.mixed_folder import (
        MixedDataset as MixedDataset,
        load_mixed_dataset as load_mixed_dataset,
    )
    from mdsim.datasets.npz import Frames as Frames
    from mdsim.errors import (
        CheckpointError as CheckpointError,
        ConfigError as ConfigError,
        DatasetError as DatasetError,
        UnknownSpeciesError as UnknownSpeciesError,
        UserError as UserError,
    )
    from mdsim.estimator.boltzmann import (
        boltzmann_gradient as boltzmann_gradient,
        effective_sample_size as effective_sample_size,
        reweighted_mean as reweighted_mean,
    )
    from mdsim.dynamics.stretch import Stretch as Stretch, initial_conditions as initial_conditions
    from mdsim.estimator.loss_term import LossTerm as LossTerm, TermGradient as TermGradient
    from mdsim.estimator.sample_energies import structure_energies as structure_energies
    from mdsim.estimator.samples import Samples as Samples, Sampling as Sampling
    from mdsim.evaluation.results import Results as Results, read_results as read_results
    from mdsim.force_field import ForceField as ForceField
    from mdsim.integrators.cell_rescaling import StochasticCellRescaling as StochasticCellRescaling
    from mdsim.integrators.langevin import LangevinBAOAB as LangevinBAOAB
    from mdsim.integrators.mtk import MartynaTobiasKlein as MartynaTobiasKlein
    from mdsim.integrators.nose_hoover import NoseHooverChain as NoseHooverChain
    from mdsim.integrators.nve import VelocityVerlet as VelocityVerlet
    from mdsim.losses import (
        energy_force_loss as energy_force_loss,
        forward_kl as forward_kl,
        mean_squared_error as mean_squared_error,
        reverse_kl as reverse_kl,
    )
    from mdsim.models.gemnet.model import GemNetT as GemNetT
    from mdsim.models.loading import load_force_field as load_force_field
    from mdsim.models.nequip.model import NequIP as NequIP
    from mdsim.models.repelled import add_repulsion as add_repulsion
    from mdsim.models.saving import save_force_field as save_force_field
    from mdsim.models.schnet.model import SchNet as SchNet
    from mdsim.observables.adf import ADF as ADF
    from mdsim.observables.bonds import BondLengthDistribution as BondLengthDistribution
    from mdsim.observables.chain_ends import chain_ends as chain_ends
    from mdsim.observables.chains import EndToEndDistance as EndToEndDistance, RadiusOfGyration as RadiusOfGyration
    from mdsim.observables.bulk_modulus import BulkModulus as BulkModulus, bulk_modulus_GPa as bulk_modulus_GPa
    from mdsim.observables.density import Density as Density
    from mdsim.observables.contacts import MinimumDistance as MinimumDistance
    from mdsim.observables.coordination import CoordinationNumber as CoordinationNumber
    from mdsim.observables.debye_scattering import DebyeStructureFactor as DebyeStructureFactor
    from mdsim.observables.diffusivity import MSD as MSD, Diffusivity as Diffusivity
    from mdsim.observables.dihedrals import (
        DihedralDistribution as DihedralDistribution,
        free_energy_eV as free_energy_eV,
    )
    from mdsim.observables.direct_structure_factor import DirectStructureFactor as DirectStructureFactor
    from mdsim.observables.distances import DistanceDistribution as DistanceDistribution
    from mdsim.observables.energies import EnergyDistribution as EnergyDistribution
    from mdsim.observables.energies_per_molecule import (
        EnergyPerMolecule as EnergyPerMolecule,
        EnthalpyOfVaporization as EnthalpyOfVaporization,
    )
    from mdsim.observables.hydrogen_bonds import HydrogenBonds as HydrogenBonds
    from mdsim.observables.pressure import Pressure as Pressure
    from mdsim.observables.rdf import RDF as RDF
    from mdsim.observables.reference import reference_from_frames as reference_from_frames
    from mdsim.observables.rotatable import rotatable_dihedrals as rotatable_dihedrals
    from mdsim.observables.spectra import InfraredSpectrum as InfraredSpectrum, VibrationalDOS as VibrationalDOS
    from mdsim.observables.structure_factor import FourierStructureFactor as FourierStructureFactor
    from mdsim.observables.tetrahedral import TetrahedralOrder as TetrahedralOrder
    from mdsim.observables.vacf import VACF as VACF
    from mdsim.replicas import Simulation as Simulation, simulate as simulate
    from mdsim.reporting.scalars import ScalarWriter as ScalarWriter
    from mdsim.repulsion.windows import zbl_from_frames as zbl_from_frames
    from mdsim.repulsion.zbl import ZBL as ZBL
    from mdsim.stability.criteria import (
        AngleDeviation as AngleDeviation,
        BondLengthDeviation as BondLengthDeviation,
        DensityDeviation as DensityDeviation,
        MinimumIntermolecularDistance as MinimumIntermolecularDistance,
        RDFDeviation as RDFDeviation,
        TemperatureExplosion as TemperatureExplosion,
    )
    from mdsim.stability.stable_times import (
        restricted_mean_interval as restricted_mean_interval,
        restricted_mean_ratio as restricted_mean_ratio,
    )
    from mdsim.stability.survival import (
        Lifetimes as Lifetimes,
        kaplan_meier as kaplan_meier,
        median_survival as median_survival,
        restricted_mean as restricted_mean,
    )
    from mdsim.state import MDState as MDState, System as System, Trajectory as Trajectory
    from mdsim.stress import energy_forces_stress as energy_forces_stress
    from mdsim.training.explore import ExploreSettings as ExploreSettings
    from mdsim.training.joint_gradient import WeightedTerm as WeightedTerm
    from mdsim.training.learn import LearnSettings as LearnSettings
    from mdsim.training.schedule import OptimizerSettings as OptimizerSettings, UnstableFraction as UnstableFraction
    from mdsim.training.stable import (
        Limits as Limits,
        StableSettings as StableSettings,
        StableTraining as StableTraining,
    )
    from mdsim.training.steps import StepSettings as StepSettings
    from mdsim.training.terms import (
        EnergyForceTerm as EnergyForceTerm,
        LabeledFrames as LabeledFrames,
        ObservableTerm as ObservableTerm,
        Target as Target,
    )
    from mdsim.units import kT_eV as kT_eV

#: The public names, by the module that defines them.
_HOMES = {
    "calculator": ("ForceFieldCalculator",),
    "datasets.folder": ("Dataset", "load_dataset"),
    "datasets.mixed": ("MixedFrames",),
    "datasets.mixed_folder": ("MixedDataset", "load_mixed_dataset"),
    "datasets.npz": ("Frames",),
    "dynamics.stretch": ("Stretch", "initial_conditions"),
    "errors": ("CheckpointError", "ConfigError", "DatasetError", "UnknownSpeciesError", "UserError"),
    "estimator.boltzmann": ("boltzmann_gradient", "effective_sample_size", "reweighted_mean"),
    "estimator.loss_term": ("LossTerm", "TermGradient"),
    "estimator.sample_energies": ("structure_energies",),
    "estimator.samples": ("Samples", "Sampling"),
    "evaluation.results": ("Results", "read_results"),
    "force_field": ("ForceField",),
    "integrators.cell_rescaling": ("StochasticCellRescaling",),
    "integrators.langevin": ("LangevinBAOAB",),
    "integrators.mtk": ("MartynaTobiasKlein",),
    "integrators.nose_hoover": ("NoseHooverChain",),
    "integrators.nve": ("VelocityVerlet",),
    "losses": ("energy_force_loss", "forward_kl", "mean_squared_error", "reverse_kl"),
    "models.gemnet.model": ("GemNetT",),
    "models.loading": ("load_force_field",),
    "models.nequip.model": ("NequIP",),
    "models.repelled": ("add_repulsion",),
    "models.saving": ("save_force_field",),
    "models.schnet.model": ("SchNet",),
    "observables.adf": ("ADF",),
    "observables.bonds": ("BondLengthDistribution",),
    "observables.chain_ends": ("chain_ends",),
    "observables.chains": ("EndToEndDistance", "RadiusOfGyration"),
    "observables.bulk_modulus": ("BulkModulus", "bulk_modulus_GPa"),
    "observables.density": ("Density",),
    "observables.contacts": ("MinimumDistance",),
    "observables.coordination": ("CoordinationNumber",),
    "observables.debye_scattering": ("DebyeStructureFactor",),
    "observables.diffusivity": ("MSD", "Diffusivity"),
    "observables.dihedrals": ("DihedralDistribution", "free_energy_eV"),
    "observables.direct_structure_factor": ("DirectStructureFactor",),
    "observables.distances": ("DistanceDistribution",),
    "observables.energies": ("EnergyDistribution",),
    "observables.energies_per_molecule": ("EnergyPerMolecule", "EnthalpyOfVaporization"),
    "observables.hydrogen_bonds": ("HydrogenBonds",),
    "observables.pressure": ("Pressure",),
    "observables.rdf": ("RDF",),
    "observables.reference": ("reference_from_frames",),
    "observables.rotatable": ("rotatable_dihedrals",),
    "observables.spectra": ("InfraredSpectrum", "VibrationalDOS"),
    "observables.structure_factor": ("FourierStructureFactor",),
    "observables.tetrahedral": ("TetrahedralOrder",),
    "observables.vacf": ("VACF",),
    "replicas": ("Simulation", "simulate"),
    "reporting.scalars": ("ScalarWriter",),
    "repulsion.windows": ("zbl_from_frames",),
    "repulsion.zbl": ("ZBL",),
    "stability.criteria": (
        "AngleDeviation",
        "BondLengthDeviation",
        "DensityDeviation",
        "MinimumIntermolecularDistance",
        "RDFDeviation",
        "TemperatureExplosion",
    ),
    "stability.stable_times": ("restricted_mean_interval", "restricted_mean_ratio"),
    "stability.survival": (
        "Lifetimes",
        "kaplan_meier",
        "median_survival",
        "restricted_mean",
    ),
    "state": ("MDState", "System", "Trajectory"),
    "stress": ("energy_forces_stress",),
    "training.explore": ("ExploreSettings",),
    "training.joint_gradient": ("WeightedTerm",),
    "training.learn": ("LearnSettings",),
    "training.schedule": ("OptimizerSettings", "UnstableFraction"),
    "training.stable": ("Limits", "StableSettings", "StableTraining"),
    "training.steps": ("StepSettings",),
    "training.terms": ("EnergyForceTerm", "LabeledFrames", "ObservableTerm", "Target"),
    "units": ("kT_eV",),
}
_HOME_OF = {name: f"mdsim.{home}" for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that `import mdsim` itself is fast."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mdsim' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
