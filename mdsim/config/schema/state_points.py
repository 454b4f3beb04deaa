"""The `state_points` section: several temperatures in one training or evaluation."""

from __future__ import annotations

from pydantic import Field

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
    """One temperature, with its references and the structures that its replicas start from."""

    temperature_K: Positive = Field(
        description="Temperature of the thermostat, of the initial velocities, and of the Boltzmann estimator."
    )
    data: DataConfig | None = Field(
        None,
        description="Data at this temperature, of the same system: initial positions and references. Its labels are "
        "not learned; those of the main `data` are. null: the main `data`.",
    )
    reference_size: FolderName | None = Field(
        None,
        description="Size of the data set that gives the references; null: the main `reference_size`, or, with `data` "
        "here, its size.",
    )
    reference_files: tuple[ReferenceFileConfig, ...] = Field(
        (), description="References at this temperature from files, in place of the data, for some observables."
    )
    weight: Positive = Field(
        1.0, description="Factor on the gradients and losses of this state point in the sum over state points."
    )
