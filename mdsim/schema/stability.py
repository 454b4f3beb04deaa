"""When a replica counts as broken."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.schema.base import Positive, Section


class BondDeviationConfig(Section):
    """Unstable when a bond differs from its mean length in the training data by more than the tolerance."""

    name: Literal["bond_length_deviation"]
    bond_dev_tol_A: Positive = 0.25


class AngleDeviationConfig(Section):
    """Unstable when an angle between bonds differs from its mean in the training data by more than the tolerance."""

    name: Literal["angle_deviation"]
    angle_dev_tol_deg: Positive = 45.0


class IntermolecularDistanceConfig(Section):
    """Unstable when atoms of different molecules come closer than this."""

    name: Literal["minimum_intermolecular_distance"]
    tolerance_A: Positive = 1.2


class RDFDeviationConfig(Section):
    """Unstable when the RDF of a stretch differs from the reference by more than this mean absolute error."""

    name: Literal["rdf_mae"]
    tolerance: Positive = 3.0
    max_distance_A: Positive = 6.0
    bin_width_A: Positive = 0.012
    pair: tuple[str, str] | None = Field(None, description="Element pair; all pairs when absent.")


CriterionConfig = Annotated[
    BondDeviationConfig | AngleDeviationConfig | IntermolecularDistanceConfig | RDFDeviationConfig,
    Field(discriminator="name"),
]
