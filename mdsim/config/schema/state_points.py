"""The `state_points` section: several temperatures and pressures in one training or evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, model_serializer

from mdsim.config.schema.base import FolderName, Positive, Section
from mdsim.config.schema.data import DataConfig


class ReferenceFileConfig(Section):
    """A reference from a file in place of the data, for example from an experiment."""

    observable: str = Field(description="Name of the observable in the results, e.g. `structure_factor_xray`.")
    reference_file: str = Field(description="File of two columns: the axis of the observable, increasing, and values.")
    reference_temperature_K: Positive | None = Field(
        None, description="Temperature of the file. Dynamics at another temperature is refused; null: unknown."
    )


class StatePointConfig(Section):
    """One temperature and pressure, with references and the structures that its replicas start from."""

    temperature_K: Positive = Field(
        description="Temperature of the thermostat, of the initial velocities, and of the Boltzmann estimator."
    )
    pressure_bar: float | None = Field(
        None, allow_inf_nan=False, description="Pressure, with a `dynamics.barostat`. null: that of the barostat."
    )
    data: DataConfig | None = Field(
        None,
        description="Data at this state point, of the same system: initial positions and references. Its labels are "
        "not learned; those of the main `data` are. null: the main `data`.",
    )
    reference_size: FolderName | None = Field(
        None,
        description="Size of the data set that gives the references; null: the main `reference_size`, or, with `data` "
        "here, its size.",
    )
    reference_files: tuple[ReferenceFileConfig, ...] = Field(
        (), description="References at this state point from files, in place of the data, for some observables."
    )
    weight: Positive = Field(
        1.0, description="Factor on the gradients and losses of this state point in the sum over state points."
    )

    @property
    def shown(self) -> str:
        """The conditions in words."""
        kelvin = f"{self.temperature_K:g} K"
        return kelvin if self.pressure_bar is None else f"{kelvin} and {self.pressure_bar:g} bar"

    @model_serializer(mode="wrap")
    def _without_an_absent_pressure(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """A state point without a pressure is stored as by releases that had none, whose runs go on."""
        stated = serialize(self)
        return stated if self.pressure_bar is not None else {k: v for k, v in stated.items() if k != "pressure_bar"}
