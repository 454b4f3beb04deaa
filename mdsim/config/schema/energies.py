"""Sections of energies, which depend on the parameters of the force field and are no training targets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.config.schema.base import Positive, Section


class PotentialEnergyConfig(Section):
    """Distribution of the potential energy, compared with the labels of the reference frames.

    It depends on the parameters of the force field and is no training target.
    """

    name: Literal["potential_energy"] = Field(description="The observable.")
    standard_deviations: Positive = Field(
        6.0,
        description="Range on both sides of the mean label, in standard deviations of the labels. Energies beyond it "
        "count in the first or last bin.",
    )
    bins: Annotated[int, Field(ge=2)] = Field(60, description="Number of bins.")


class EnergyPerMoleculeConfig(Section):
    """Mean potential energy per molecule in kJ/mol, compared with the labels of the reference frames."""

    name: Literal["energy_per_molecule"] = Field(description="The observable.")


class EnthalpyOfVaporizationConfig(Section):
    """Enthalpy of vaporization in kJ/mol, U_gas - U_liquid / N + k_B T, of a liquid of one kind of molecules."""

    name: Literal["enthalpy_of_vaporization"] = Field(description="The observable.")
    gas_energy_eV: float = Field(
        description="Mean potential energy of one molecule in the gas at this temperature, with the zero of the labels."
    )
    reference_kJ_per_mol: float | None = Field(
        None, description="Reference, e.g. of an experiment; null: from the labels of the reference frames."
    )


#: Sections of observables that depend on the parameters of the force field.
ENERGY_CONFIGS = (PotentialEnergyConfig, EnergyPerMoleculeConfig, EnthalpyOfVaporizationConfig)
