"""The `stability` sections: criteria for unstable replicas."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.config.schema.base import Positive, Section
from mdsim.config.schema.custom import CustomCriterionConfig


class BondDeviationConfig(Section):
    """Unstable when a bond differs from its mean length in the training data by more than the tolerance."""

    name: Literal["bond_length_deviation"] = Field(description="The criterion.")
    bond_dev_tol_A: Positive = Field(
        0.25,
        description="Largest deviation of a stable molecule. The paper uses 0.25 in training and 0.5 in evaluation.",
    )


class AngleDeviationConfig(Section):
    """Unstable when an angle between bonds differs from its mean in the training data by more than the tolerance."""

    name: Literal["angle_deviation"] = Field(description="The criterion.")
    angle_dev_tol_deg: Positive = Field(
        45.0, description="Largest deviation of a stable molecule, well above those in the data."
    )


class IntermolecularDistanceConfig(Section):
    """Unstable when atoms of different molecules come closer than this."""

    name: Literal["minimum_intermolecular_distance"] = Field(description="The criterion.")
    tolerance_A: Positive = Field(1.2, description="Smallest distance in a stable liquid.")


class DensityDeviationConfig(Section):
    """Unstable when the density of a replica differs from its reference by more than the tolerance."""

    name: Literal["density_deviation"] = Field(description="The criterion.")
    density_dev_tol_g_per_cm3: Positive = Field(
        0.2, description="Largest deviation, far above the fluctuations of a cell of this size."
    )
    reference_g_per_cm3: Positive | None = Field(None, description="Reference density; null: that of the data.")


class RDFDeviationConfig(Section):
    """Unstable when the RDF of a stretch differs from the reference by more than this mean absolute error."""

    name: Literal["rdf_mae"] = Field(description="The criterion.")
    tolerance: Positive = Field(
        3.0, description="Largest deviation of a stable stretch: range times mean absolute difference over bins, in Å."
    )
    max_distance_A: Positive = Field(6.0, description="Range of the RDF.")
    bin_width_A: Positive = Field(0.012, description="Bin width, which must divide the range.")
    pair: tuple[str, str] | None = Field(None, description="Element pair; all pairs when absent.")


CriterionConfig = Annotated[
    BondDeviationConfig
    | AngleDeviationConfig
    | IntermolecularDistanceConfig
    | DensityDeviationConfig
    | RDFDeviationConfig
    | CustomCriterionConfig,
    Field(discriminator="name"),
]
