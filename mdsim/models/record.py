"""The record of a model: what the package needs to know of it before its module is imported.

Configurations are checked with records, so nothing here needs torch: force fields have no type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mdsim.plugins import resolve


@dataclass(frozen=True)
class Setting:
    """A hyperparameter that a configuration may set, under the name that it has in the model's class.

    Args:
        default: says also what may stand there: true or false, a whole number, a number, or text.
        description: for the manual.
        at_least: smallest value.
        at_most: largest value.
        choices: all that a text may be.
    """

    default: bool | int | float | str
    description: str
    at_least: int | float | None = None
    at_most: int | float | None = None
    choices: tuple[str, ...] = ()


def count(default: int, description: str) -> Setting:
    """A whole number, one or more."""
    return Setting(default, description, at_least=1)


@dataclass(frozen=True)
class Variant:
    """The setting by which several fits to the same data are told apart in names of folders.

    Args:
        setting: its name.
        label: what stands in the name of a folder, with ``{}`` for the value.
        description: of the same setting in a run that starts from such a fit, for the manual.
    """

    setting: str
    label: str
    description: str


@dataclass(frozen=True)
class Published:
    """A format of checkpoints from outside this package that holds the model.

    Args:
        recognizes: whether the content of a file has this format.
        reader: ``module:function`` that takes the content and the path, and returns the force field.
    """

    recognizes: Callable[[dict[str, Any]], bool]
    reader: str


@dataclass(frozen=True)
class Chosen:
    """A value and why it is this one."""

    value: Any
    why: str = ""


@dataclass(frozen=True)
class StartingPoint:
    """The part of the configurations for a new data set that depends on the model.

    Args:
        fit: keys of `optim`: optimizer, loss and their numbers.
        warmup_steps: of the fit.
        most_frames_per_batch: of the fit, however small the system is.
        frames_per_gradient: structures per backward pass in StABlE training, for molecules up to a tetrapeptide.
        pairs_per_second: pairs within the cutoff that one CPU core evaluates in training, all included, rounded.
        has_loops: the extra `fast` makes dynamics on a CPU quicker.
        sizes: settings of the model that are written down on every machine.
        sizes_on_cpu: instead of these, on a CPU.
        sizes_of_liquid_on_cpu: instead of these, for a liquid on a CPU.
        cutoff_of_liquid_on_cpu_A: shorter than that of the paper, where that costs too much.
    """

    fit: Mapping[str, Chosen]
    warmup_steps: int
    most_frames_per_batch: int
    frames_per_gradient: int
    pairs_per_second: int
    has_loops: bool = False
    sizes: Mapping[str, Chosen] = field(default_factory=dict)
    sizes_on_cpu: Mapping[str, Chosen] = field(default_factory=dict)
    sizes_of_liquid_on_cpu: Mapping[str, Chosen] = field(default_factory=dict)
    cutoff_of_liquid_on_cpu_A: float | None = None


@dataclass(frozen=True)
class ModelRecord:
    """A model of this package.

    Args:
        name: in configurations, checkpoints and folders.
        title: in prose.
        description: of its section in the manual.
        factory: ``module:Class``, where the class is defined; imported when the model is used.
        settings: keyword arguments of the class besides ``species`` and ``cutoff``, which every model has.
        start: what `init` suggests.
        cutoff_A: unless a configuration says otherwise.
        variant: what tells several fits to the same data apart.
        published: a format from outside this package.
    """

    name: str
    title: str
    description: str
    factory: str
    settings: Mapping[str, Setting]
    start: StartingPoint
    cutoff_A: float = 5.0
    variant: Variant | None = None
    published: Published | None = None

    @property
    def class_name(self) -> str:
        """The name of the class."""
        return self.factory.partition(":")[2]

    @property
    def model(self) -> Callable[..., Any]:
        """The class, a `ForceField`, which is imported now if it was not before.

        Raises:
            ConfigError: a package that the model needs is not installed.
        """
        return resolve(self.factory, f"model {self.name!r}")

    def build(self, species: Sequence[int], **hyperparameters: Any) -> Any:
        """A `ForceField` with random weights from torch's global generator.

        Args:
            species: atomic numbers that the model is trained for.
            hyperparameters: ``cutoff`` (Å) and any of the settings.
        """
        return self.model(species=tuple(species), **hyperparameters)

    def read_published(self, payload: dict[str, Any], path: Any) -> Any:
        """The `ForceField` in a file from outside this package, whose content `published` recognizes."""
        if self.published is None:
            raise ValueError(f"{self.name} has no published format")
        return resolve(self.published.reader, f"model {self.name!r}")(payload, path)
