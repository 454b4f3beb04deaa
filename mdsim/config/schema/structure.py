"""Sections of distributions over atoms and molecules: coordination, order, hydrogen bonds, sizes of molecules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mdsim.config.schema.base import Count, NonNegative, Positive, Section
from mdsim.config.schema.custom import Label


class CoordinationConfig(Section):
    """Distribution of coordination numbers: neighbors of an element around the atoms of another one."""

    name: Literal["coordination"] = Field(description="The observable.")
    pair: tuple[str, str] = Field(description="Elements of the central atoms and of the neighbors, e.g. [O, H].")
    cutoff_A: Positive = Field(description="Distance up to which neighbors count, at most half the cell.")
    switching_width_A: Positive | None = Field(
        None, description="Width over which a neighbor ceases to count, around `cutoff_A`; null: at once."
    )
    max_number: Count = Field(12, description="Upper end of the range. Larger numbers count in the last bin.")
    bin_width: Positive = Field(0.25, description="Bin width with a switching width. Otherwise, bins are integers.")
    intermolecular_only: bool = Field(False, description="Leave out neighbors in the same molecule.")


class TetrahedralOrderConfig(Section):
    """Distribution of the tetrahedral order parameter q of Errington and Debenedetti, of the four nearest atoms."""

    name: Literal["tetrahedral_order"] = Field(description="The observable.")
    element: str = Field("O", description="Element of the atoms and of their neighbors.")
    min_order: Annotated[float, Field(ge=-3, lt=1)] = Field(
        -0.5, description="Lower end of the range up to 1. Lower values count in the first bin."
    )
    bin_width: Positive = Field(0.05, description="Bin width, which must divide the range.")


class HydrogenBondsConfig(Section):
    """Distribution of the number of hydrogen bonds of a molecule, after Luzar and Chandler."""

    name: Literal["hydrogen_bonds"] = Field(description="The observable.")
    max_distance_A: Positive = Field(3.5, description="Longest distance of donor and acceptor, at most half the cell.")
    max_angle_deg: Annotated[float, Field(gt=0, le=180)] = Field(
        30.0, description="Largest angle hydrogen-donor-acceptor."
    )
    elements: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("O",), description="Elements of donors and acceptors."
    )
    max_number: Count = Field(8, description="Upper end of the range. Larger numbers count in the last bin.")


class DensityConfig(Section):
    """Mass density in g/cm³ of a system at constant pressure. It is a single number."""

    name: Literal["density"] = Field(description="The observable.")
    reference_g_per_cm3: Positive | None = Field(
        None, description="Density to compare with, e.g. of an experiment; null: that of the reference data."
    )


class RadiusOfGyrationConfig(Section):
    """Distribution of the mass-weighted radius of gyration of molecules."""

    name: Literal["radius_of_gyration"] = Field(description="The observable.")
    min_radius_A: NonNegative = Field(0.0, description="Lower end of the range. Smaller radii count in the first bin.")
    max_radius_A: Positive = Field(10.0, description="Upper end of the range. Larger radii count in the last bin.")
    bin_width_A: Positive = Field(0.05, description="Bin width, which must divide the range.")


def _are_different(atoms: tuple[int, int]) -> tuple[int, int]:
    if atoms[0] == atoms[1]:
        raise ValueError("the ends of a molecule are two different atoms")
    return atoms


Index = Annotated[int, Field(ge=0)]
Ends = Annotated[tuple[Index, Index], AfterValidator(_are_different)]


class EndToEndConfig(Section):
    """Distributions of end-to-end distances of chain molecules, each with a result `end_to_end_<name>`."""

    name: Literal["end_to_end"] = Field(description="The observable.")
    atoms: Annotated[dict[Label, Ends], Field(min_length=1)] | None = Field(
        None,
        description="Indices (from 0) of the end atoms of a molecule, by a name of your choice, e.g. `{chain: [0, "
        "41]}`; the same atoms of all molecules of its kind are one distribution. null: for each kind of molecule, the "
        "two heavy atoms with most bonds between them.",
    )
    min_distance_A: NonNegative = Field(
        0.0, description="Lower end of the range. Shorter distances count in the first bin."
    )
    max_distance_A: Positive = Field(20.0, description="Upper end of the range. Longer ones count in the last bin.")
    bin_width_A: Positive = Field(0.2, description="Bin width, which must divide the range.")
