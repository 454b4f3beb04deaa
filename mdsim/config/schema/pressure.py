"""Sections of the pressure and the bulk modulus, which are metrics and no training targets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mdsim.config.schema.base import Section


class PressureConfig(Section):
    """Mean pressure of a periodic system in bar, from kinetic energy and virial. It is a single number."""

    name: Literal["pressure"] = Field(description="The observable.")
    reference_bar: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Pressure to compare with; null: from the stress labels of the reference frames where they have "
        "them, else none.",
    )


class BulkModulusConfig(Section):
    """Isothermal bulk modulus in GPa, by the fluctuations of the volume at constant pressure. It has no reference."""

    name: Literal["bulk_modulus"] = Field(description="The observable.")


#: Sections of observables that are made with the dynamics of an evaluation.
PRESSURE_CONFIGS = (PressureConfig, BulkModulusConfig)
