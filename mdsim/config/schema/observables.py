"""Observable sections: structural observables for training and evaluation, dynamical ones for evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mdsim.config.schema.base import NonNegative, Positive, Section
from mdsim.config.schema.custom import CustomDynamicalConfig, CustomObservableConfig, Label
from mdsim.config.schema.energies import (
    ENERGY_CONFIGS,
    EnergyPerMoleculeConfig,
    EnthalpyOfVaporizationConfig,
    PotentialEnergyConfig,
)
from mdsim.config.schema.pressure import PRESSURE_CONFIGS, BulkModulusConfig, PressureConfig
from mdsim.config.schema.scattering import StructureFactorConfig
from mdsim.config.schema.spectra import InfraredSpectrumConfig, VibrationalDOSConfig
from mdsim.config.schema.structure import (
    CoordinationConfig,
    DensityConfig,
    EndToEndConfig,
    HydrogenBondsConfig,
    Index,
    RadiusOfGyrationConfig,
    TetrahedralOrderConfig,
)


class RDFConfig(Section):
    """Radial distribution function: h(r) of a molecule, g(r) of a periodic system."""

    name: Literal["rdf"] = Field(description="The observable.")
    max_distance_A: Positive = Field(
        10.0, description="Upper end of the range, at most half the cell of a periodic system."
    )
    bin_width_A: Positive = Field(0.02, description="Bin width, which must divide the range.")
    pair: tuple[str, str] | None = Field(None, description="Element pair, e.g. [O, H]; all pairs when absent.")
    intermolecular_only: bool = Field(False, description="Leave out the pairs within a molecule.")


class ADFConfig(Section):
    """Distribution of the angles between bonds."""

    name: Literal["adf"] = Field(description="The observable.")
    bin_width_deg: Positive = Field(2.0, description="Bin width, which must divide 180 degrees.")


class BondLengthsConfig(Section):
    """Distribution of bond lengths, of all bonds or those of one element pair."""

    name: Literal["bond_lengths"] = Field(description="The observable.")
    max_length_A: Positive = Field(
        3.0, description="Upper end of the range, which starts at zero. Longer bonds are not counted."
    )
    bin_width_A: Positive = Field(0.02, description="Bin width, which must divide the range.")
    pair: tuple[str, str] | None = Field(None, description="Element pair, e.g. [O, H]; all bonds when absent.")


def _is_dihedral(atoms: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(atoms)) != len(atoms):
        raise ValueError("a dihedral has four different atoms")
    return atoms


Dihedral = Annotated[tuple[Index, Index, Index, Index], AfterValidator(_is_dihedral)]


class DihedralsConfig(Section):
    """Distributions of dihedral angles, each with a result `dihedral_<name>`. Figures show their free energies."""

    name: Literal["dihedrals"] = Field(description="The observable.")
    atoms: Annotated[dict[Label, Dihedral], Field(min_length=1)] | None = Field(
        None,
        description="Indices (from 0) of the four atoms of each dihedral, by a name of your choice, e.g. `{phi_1: [5, "
        "6, 8, 11]}`; null: one for each rotatable bond, named after its atoms. A rotatable bond is in no ring, and "
        "each of its ends has another neighbor than the hydrogens of a methyl or amino group. The same dihedral of all "
        "molecules of a kind is one distribution.",
    )
    pooled: bool = Field(False, description="One distribution of all these dihedrals, `dihedral_pooled`.")
    bin_width_deg: Positive = Field(10.0, description="Bin width, which must divide 360 degrees.")


class DistancesConfig(Section):
    """Distributions of distances by elements, as densities h(r), of molecules and periodic systems alike."""

    name: Literal["distances"] = Field(description="The observable.")
    max_distance_A: Positive = Field(
        10.0, description="Upper end of the range, at most half the cell of a periodic system."
    )
    bin_width_A: Positive = Field(0.05, description="Bin width, which must divide the range.")
    pair: tuple[str, str] | None = Field(
        None, description="Element pair, e.g. [C, O]; one distribution for each pair of elements when absent."
    )
    among: Literal["all", "within_molecules", "between_molecules"] = Field(
        "all", description="The pairs of atoms that are counted."
    )


class VACFConfig(Section):
    """Velocity autocorrelation function, normalized to one at lag zero."""

    name: Literal["vacf"] = Field(description="The observable.")
    max_lag_fs: Positive = Field(
        200.0, description="Longest lag. It must fit into the dense window and the contiguous frames."
    )
    element: str | None = Field(None, description="Element of the atoms that are followed; all atoms when absent.")


WATER_VISCOSITY_MPA_S = 0.854  # of real water at 300 K and 0.1 MPa (IAPWS R12-08)


class DiffusivityConfig(Section):
    """Self-diffusion coefficient by the Einstein relation."""

    name: Literal["diffusivity"] = Field(description="The observable.")
    element: str | None = Field(None, description="Element of the atoms that are followed; all atoms when absent.")
    viscosity_mPa_s: Positive | None = Field(
        WATER_VISCOSITY_MPA_S,
        description="Shear viscosity of the liquid, for the finite-size correction (Yeh and Hummer), which is "
        "reported in addition to the value; null: no correction.",
    )
    fit_start_fs: NonNegative = Field(
        1000.0, description="Start of the fit, where the mean squared displacement becomes linear."
    )
    fit_end_fs: Positive = Field(10000.0, description="End of the fit, which must fit into the dense window.")


_Target = (
    RDFConfig
    | ADFConfig
    | BondLengthsConfig
    | DihedralsConfig
    | DistancesConfig
    | StructureFactorConfig
    | CoordinationConfig
    | TetrahedralOrderConfig
    | HydrogenBondsConfig
    | RadiusOfGyrationConfig
    | DensityConfig
    | EndToEndConfig
    | CustomObservableConfig
)
_Energy = PotentialEnergyConfig | EnergyPerMoleculeConfig | EnthalpyOfVaporizationConfig
_Pressure = PressureConfig | BulkModulusConfig

#: Observables that an evaluation makes with its force field or its dynamics.
METRICS_ONLY = (*ENERGY_CONFIGS, *PRESSURE_CONFIGS)

#: Observables that may be training targets, because they do not depend on the parameters of the force field.
TargetObservableConfig = Annotated[_Target, Field(discriminator="name")]
StructuralConfig = Annotated[_Target | _Energy | _Pressure, Field(discriminator="name")]
DynamicalConfig = Annotated[
    VACFConfig | VibrationalDOSConfig | InfraredSpectrumConfig | DiffusivityConfig | CustomDynamicalConfig,
    Field(discriminator="name"),
]
