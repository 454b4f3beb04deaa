"""Observables of trajectories.

Structural observables give one row per frame and replica, ``[frame replica bin]``. Dynamical observables give one row
per replica, ``[replica lag]``. ``unit`` is the unit of ``bin_centers`` if an observable has bins, and otherwise that of
its values. Non-finite coordinates give NaN in the affected frames or replicas only.
"""

from mdsim.observables.adf import ADF
from mdsim.observables.bonds import BondLengthDistribution, BondLengths, max_bond_deviation
from mdsim.observables.bulk_modulus import BulkModulus, bulk_modulus_GPa
from mdsim.observables.chain_ends import chain_ends
from mdsim.observables.chains import EndToEndDistance, RadiusOfGyration
from mdsim.observables.contacts import MinimumDistance
from mdsim.observables.coordination import CoordinationNumber
from mdsim.observables.debye_scattering import DebyeStructureFactor
from mdsim.observables.density import Density
from mdsim.observables.diffusivity import MSD, Diffusivity, yeh_hummer_correction
from mdsim.observables.dihedrals import DihedralDistribution, free_energy_eV
from mdsim.observables.direct_structure_factor import DirectStructureFactor
from mdsim.observables.distances import DistanceDistribution
from mdsim.observables.energies import EnergyDistribution
from mdsim.observables.energies_per_molecule import EnergyPerMolecule, EnthalpyOfVaporization
from mdsim.observables.hydrogen_bonds import HydrogenBonds
from mdsim.observables.pressure import Pressure
from mdsim.observables.rdf import RDF
from mdsim.observables.reference import reference_from_file, reference_from_frames, reweight
from mdsim.observables.rotatable import rotatable_dihedrals
from mdsim.observables.spectra import InfraredSpectrum, VibrationalDOS
from mdsim.observables.structure_factor import FourierStructureFactor
from mdsim.observables.tetrahedral import TetrahedralOrder
from mdsim.observables.vacf import VACF

__all__ = [
    "ADF",
    "BondLengthDistribution",
    "BondLengths",
    "BulkModulus",
    "CoordinationNumber",
    "DebyeStructureFactor",
    "Diffusivity",
    "DihedralDistribution",
    "DirectStructureFactor",
    "DistanceDistribution",
    "EndToEndDistance",
    "EnergyDistribution",
    "EnergyPerMolecule",
    "EnthalpyOfVaporization",
    "FourierStructureFactor",
    "HydrogenBonds",
    "InfraredSpectrum",
    "MSD",
    "MinimumDistance",
    "RDF",
    "Density",
    "Pressure",
    "RadiusOfGyration",
    "TetrahedralOrder",
    "VACF",
    "VibrationalDOS",
    "bulk_modulus_GPa",
    "chain_ends",
    "free_energy_eV",
    "max_bond_deviation",
    "reference_from_file",
    "reference_from_frames",
    "reweight",
    "rotatable_dihedrals",
    "yeh_hummer_correction",
]
