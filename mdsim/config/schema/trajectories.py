"""The `trajectory` section: the format of trajectory files, and the replicas that a training writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.config.schema.base import Section


class TrajectoryConfig(Section):
    """The format of trajectory files."""

    format: Literal["gsd", "extxyz", "xtc", "dcd", "h5md"] = Field(
        "gsd",
        description="Format of all trajectory files, see [](runs.md#trajectory-files). xtc, dcd and h5md need the "
        "extra `trajectories`.",
    )
    xtc_precision_per_nm: Annotated[float, Field(ge=1, le=10000)] = Field(
        1000.0, description="Steps of a coordinate per nm in XTC files. 1000 rounds to 0.01 Å."
    )


class TrainTrajectoryConfig(TrajectoryConfig):
    """The format of trajectory files, and the replicas that a training writes."""

    replicas: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Replicas whose stable frames of the exploring epochs are written."
    )
