"""State points of a run: the conditions of each, and the data sets of its initial positions and its references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from mdsim.assembly.data import dataset
from mdsim.assembly.references import check_temperature, reference
from mdsim.config.schema import DataConfig, ReferenceFileConfig, RunConfig, StatePointConfig, TargetConfig
from mdsim.datasets.folder import Dataset
from mdsim.datasets.npz import Frames
from mdsim.dynamics.state_points import Conditions, StatePoint
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable
from mdsim.state import System
from mdsim.typing import Float, Tensor

SAME_CELL_A = 1e-3  # largest difference of the lattice vectors of data sets in one cell


@dataclass(frozen=True, eq=False)
class Point:
    """A state point of a configuration, with its data sets: of initial positions, and of references."""

    config: StatePointConfig
    data: Dataset
    reference_data: Dataset

    @property
    def conditions(self) -> Conditions:
        """Temperature and pressure."""
        return Conditions(self.config.temperature_K, self.config.pressure_bar)

    def file_of(self, observable: str) -> ReferenceFileConfig | None:
        """The file of the reference of an observable at this state point, if there is one."""
        return {one.observable: one for one in self.config.reference_files}.get(observable)


def state_points(config: RunConfig, main: Dataset) -> list[Point]:
    """The state points of a configuration, whose main data set is given.

    Raises:
        ConfigError: the data of a state point are of another system, or in another cell at constant volume.
        DatasetError: there is no such data set.
    """
    found = []
    for number, point in enumerate(config.points):
        section, size = reference_of(config, point)
        data = main if point.data is None else dataset(section)
        if data.metadata.atomic_numbers != main.metadata.atomic_numbers:
            raise ConfigError(f"state_points.{number}.data: {data.folder} is of another system than {main.folder}")
        references = data if size in (None, section.size) else dataset(section, size)
        if config.dynamics.barostat is None and point.data is not None:
            _check_cell(f"state_points.{number}.data", (data, references), main)
        found.append(Point(point, data, references))
    return found


def _check_cell(key: str, own: Sequence[Dataset], main: Dataset) -> None:
    """Refuse data in another cell than the main data."""
    for data in own:
        if not _are_the_same_cell(data.train.cell, main.train.cell):
            raise ConfigError(
                f"{key}: the cell of {data.folder} is not that of {main.folder}, in which all replicas are simulated "
                "at constant volume; add a dynamics.barostat, or give data in this cell"
            )


def _are_the_same_cell(one: Float[Tensor, "3 3"] | None, other: Float[Tensor, "3 3"] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(((one - other).abs() < SAME_CELL_A).all())


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
    """The reference of a structural observable at a state point: from a file, or from its data in their own cell.

    Raises:
        ConfigError: a file of another temperature or normalization, data of another temperature, or data that are also
            those of a state point at another pressure.
    """
    given, source = point.file_of(quantity.name) or given, point.reference_data
    system = in_cell_of(source.train, system)
    if given is None or given.reference_file is None:
        _check_pressures(config, point)
        known = reference_temperature(config, point, source)
        return reference(quantity, system, source, None, known, config.reference_run)
    check_temperature(given.reference_file, given.reference_temperature_K, point.config.temperature_K)
    return reference(quantity, system, source, given.reference_file)


def _check_pressures(config: RunConfig, point: Point) -> None:
    """Data have one cell, and cannot be reweighted to another pressure."""
    own, section = point.config.pressure_bar, reference_of(config, point.config)
    for other in config.points:
        if other.pressure_bar != own and reference_of(config, other) == section:
            raise ConfigError(
                f"state_points: the references at {own:g} and at {other.pressure_bar:g} bar both come from "
                f"{point.reference_data.folder}, whose frames have one volume; give one of them `data` or "
                "`reference_files`"
            )


def starts(points: Sequence[Point], system: System, frames: Callable[[Point], Frames]) -> list[StatePoint]:
    """The state points with the structures that their replicas begin from, and their cell if it is not the system's."""
    found = []
    for point in points:
        some = frames(point)
        own = in_cell_of(some, system).cell
        differs = own is not None and system.cell is not None and not torch.equal(own, system.cell)
        found.append(StatePoint(point.conditions, some.positions, own if differs else None))
    return found


def in_cell_of(frames: Frames, system: System) -> System:
    """The system in the cell of some frames."""
    return system if frames.cell is None else replace(system, cell=frames.cell.to(system.masses))


def shown(config: RunConfig) -> str:
    """The conditions of a run, in words."""
    return "; ".join(point.shown for point in config.points)
