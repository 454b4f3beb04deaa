"""What is measured: structural observables for training and evaluation, dynamical ones for evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.schema.base import NonNegative, Positive, Section


class RDFConfig(Section):
    """Radial distribution function: h(r) of a molecule, g(r) of a periodic system."""

    name: Literal["rdf"]
    max_distance_A: Positive = 10.0
    bin_width_A: Positive = 0.02
    pair: tuple[str, str] | None = Field(None, description="Element pair, e.g. [O, H]; all pairs when absent.")
    intermolecular_only: bool = Field(False, description="Leave out the pairs within a molecule.")


class ADFConfig(Section):
    """Distribution of the angles between bonds."""

    name: Literal["adf"]
    bin_width_deg: Positive = 2.0


class BondLengthsConfig(Section):
    """Distribution of bond lengths, of all bonds or those of one element pair."""

    name: Literal["bond_lengths"]
    max_length_A: Positive = 3.0
    bin_width_A: Positive = 0.02
    pair: tuple[str, str] | None = None


class VACFConfig(Section):
    """Velocity autocorrelation function, normalized to one at lag zero."""

    name: Literal["vacf"]
    max_lag_fs: Positive = 200.0


WATER_VISCOSITY_MPA_S = 0.854  # of real water at 300 K and 0.1 MPa (IAPWS R12-08)


class DiffusivityConfig(Section):
    """Self-diffusion coefficient by the Einstein relation."""

    name: Literal["diffusivity"]
    element: str | None = None
    viscosity_mPa_s: Positive | None = Field(
        WATER_VISCOSITY_MPA_S,
        description="Shear viscosity of the liquid, for the correction of the box size (Yeh and Hummer) that is "
        "reported beside the value; null: no correction.",
    )
    fit_start_fs: NonNegative = 1000.0
    fit_end_fs: Positive = 10000.0


StructuralConfig = Annotated[RDFConfig | ADFConfig | BondLengthsConfig, Field(discriminator="name")]
DynamicalConfig = Annotated[VACFConfig | DiffusivityConfig, Field(discriminator="name")]
