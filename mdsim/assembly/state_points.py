"""State points of a run: the temperature of each, and the data sets of its initial positions and its references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mdsim.assembly.data import dataset
from mdsim.assembly.references import check_temperature, reference
from mdsim.config.schema import DataConfig, ReferenceFileConfig, RunConfig, StatePointConfig, TargetConfig
from mdsim.datasets.folder import Dataset
from mdsim.dynamics.state_points import StatePoint, label
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable
from mdsim.state import System
from mdsim.typing import Float, Tensor


@dataclass(frozen=True, eq=False)
class Point:
    """A state point of a configuration, with its data sets: of initial positions, and of references."""

    config: StatePointConfig
    data: Dataset
    reference_data: Dataset

    def file_of(self, observable: str) -> ReferenceFileConfig | None:
        """The file of the reference of an observable at this state point, if there is one."""
        return {one.observable: one for one in self.config.reference_files}.get(observable)


def state_points(config: RunConfig, main: Dataset) -> list[Point]:
    """The state points of a configuration, whose main data set is given.

    Raises:
        ConfigError: the data of a state point are of another system.
        DatasetError: there is no such data set.
    """
    found = []
    for number, point in enumerate(config.points):
        section, size = reference_of(config, point)
        data = main if point.data is None else dataset(section)
        if data.metadata.atomic_numbers != main.metadata.atomic_numbers:
            raise ConfigError(f"state_points.{number}.data: {data.folder} is of another system than {main.folder}")
        found.append(Point(point, data, data if size in (None, section.size) else dataset(section, size)))
    return found


def reference_of(config: RunConfig, point: StatePointConfig) -> tuple[DataConfig, str | None]:
    """The data section of a state point, and the size that gives its references."""
    if point.data is not None:
        return point.data, point.reference_size
    return config.data, point.reference_size or config.reference_size


def reference_temperature(config: RunConfig, point: Point, source: Dataset) -> float | None:
    """The temperature in K to which references are reweighted. None: that of the data.

    Raises:
        ConfigError: there are several state points, and the references of this one are at another temperature.
    """
    wanted, known = point.config.temperature_K, source.metadata.temperature_K
    if config.reweight_reference:
        return wanted
    if config.state_points is not None and known is not None and known != wanted:
        raise ConfigError(
            f"state_points: the references at {wanted:g} K come from {source.folder}, which is at {known:g} K; give "
            f"this state point `data` at {wanted:g} K, or set reweight_reference to true"
        )
    return None


def reference_at(
    quantity: BinnedObservable,
    config: RunConfig,
    system: System,
    point: Point,
    given: ReferenceFileConfig | TargetConfig | None = None,
) -> Float[Tensor, "bin"]:
    """The reference of a structural observable at a state point: from a file, or from its data.

    Raises:
        ConfigError: a file of another temperature or normalization, or data of another temperature.
    """
    given, source = point.file_of(quantity.name) or given, point.reference_data
    if given is None or given.reference_file is None:
        known = reference_temperature(config, point, source)
        return reference(quantity, system, source, None, known, config.reference_run)
    check_temperature(given.reference_file, given.reference_temperature_K, point.config.temperature_K)
    return reference(quantity, system, source, given.reference_file)


def starts(points: Sequence[Point], structures: Callable[[Point], Float[Tensor, "frame atom 3"]]) -> list[StatePoint]:
    """The state points with the structures that their replicas begin from."""
    return [StatePoint(point.config.temperature_K, structures(point)) for point in points]


def shown(config: RunConfig) -> str:
    """The temperatures of a run, in words."""
    return " and ".join(label(point.temperature_K).replace("K", " K") for point in config.points)
