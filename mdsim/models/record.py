"""The record of a model: the facts that the package needs before the model's module is imported.

Configurations are checked against records. Nothing here imports torch, so force fields have no static type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mdsim.plugins import resolve


@dataclass(frozen=True)
class Setting:
    """A hyperparameter that a configuration may set, under its name in the model's class.

    Args:
        default: default value. Its type (bool, int, float or str) is the type of the setting.
        description: text for the manual.
        at_least: smallest value.
        at_most: largest value.
        choices: all allowed values of a text.
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
    """The setting that distinguishes several fits to the same data in folder names.

    Args:
        setting: its name.
        label: part of the folder name, with ``{}`` for the value.
        description: text for the manual, for this setting in a run that starts from such a fit.
    """

    setting: str
    label: str
    description: str


@dataclass(frozen=True)
class Published:
    """A published checkpoint format that holds the model.

    Args:
        recognizes: whether the content of a file has this format.
        reader: ``module:function`` that takes the content and the path, and returns the force field.
    """

    recognizes: Callable[[dict[str, Any]], bool]
    reader: str


@dataclass(frozen=True)
class Foreign:
    """The files of another package that hold the model.

    Args:
        reader: ``module:function`` that takes the path and the options, and returns the force field.
        files: the files that it reads, in prose.
        package: distribution that provides the model.
        module: its name in imports.
        options: keyword arguments of the reader.
        unpickles: reading a file runs code that the file names, so that users must allow it.
        writer: ``module:function`` that takes the force field and the path, and writes a file of the package.
        suffix: of the files that it writes.
        locator: ``module:function`` from the name of weights that come with the package to their path, or None.
    """

    reader: str
    files: str
    package: str
    module: str
    writer: str
    suffix: str
    options: Mapping[str, Setting] = field(default_factory=dict)
    unpickles: bool = True
    locator: str | None = None

    def comes_with_the_package(self, path: Path) -> bool:
        """Whether a file is part of the installed package, which is trusted."""
        spec = find_spec(self.module)
        return spec is not None and spec.origin is not None and Path(spec.origin).parent in path.resolve().parents


@dataclass(frozen=True)
class Chosen:
    """A value and the reason for it."""

    value: Any
    why: str = ""


@dataclass(frozen=True)
class StartingPoint:
    """The model-dependent part of the configurations suggested for a new data set.

    Args:
        fit: keys of `optim`: optimizer, loss and their numbers.
        warmup_steps: warm-up steps of the fit.
        most_frames_per_batch: largest batch of the fit, for small systems.
        frames_per_gradient: structures per backward pass in StABlE training, for molecules up to a tetrapeptide.
        pairs_per_second: pairs within the cutoff that one CPU core evaluates per second of training, overhead included.
        learning_rate: that of StABlE training, if the recipe's is too small for weights of this kind.
        has_loops: whether the extra `fast` makes dynamics on a CPU faster.
        sizes: settings of the model that are written out on every machine.
        sizes_on_cpu: settings that replace these on a CPU.
        sizes_of_liquid_on_cpu: settings that replace these for a liquid on a CPU.
        cutoff_of_liquid_on_cpu_A: cutoff for a liquid on a CPU, if that of the paper costs too much.
    """

    fit: Mapping[str, Chosen]
    warmup_steps: int
    most_frames_per_batch: int
    frames_per_gradient: int
    pairs_per_second: int
    learning_rate: Chosen | None = None
    has_loops: bool = False
    sizes: Mapping[str, Chosen] = field(default_factory=dict)
    sizes_on_cpu: Mapping[str, Chosen] = field(default_factory=dict)
    sizes_of_liquid_on_cpu: Mapping[str, Chosen] = field(default_factory=dict)
    cutoff_of_liquid_on_cpu_A: float | None = None


@dataclass(frozen=True)
class ModelRecord:
    """A model of this package.

    Args:
        name: name in configurations, checkpoints and folders.
        title: name in prose.
        description: text of its section in the manual.
        factory: ``module:Class``, where the class is defined; imported when the model is used.
        settings: keyword arguments of the class besides ``species`` and ``cutoff``, which every model has.
        start: values that `init` suggests.
        cutoff_A: default cutoff, Å.
        variant: the setting that distinguishes several fits to the same data.
        published: a published checkpoint format.
        foreign: files of another package that hold such a model.
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
    foreign: Foreign | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the model is that of another package, so that it starts from a file and has no settings."""
        return self.foreign is not None and not self.settings

    @property
    def class_name(self) -> str:
        """The name of the class."""
        return self.factory.partition(":")[2]

    @property
    def model(self) -> Callable[..., Any]:
        """The class, a `ForceField`, imported on first use.

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

    def located(self, name: str) -> Path:
        """The path of a file, or of weights of that name that come with the model's package."""
        path = Path(name)
        if self.foreign is None or self.foreign.locator is None or path.exists():
            return path
        found = resolve(self.foreign.locator, f"model {self.name!r}")(name)
        return path if found is None else found

    def read_foreign(self, path: Path, options: Mapping[str, Any]) -> Any:
        """The `ForceField` in a file of the model's package.

        Raises:
            ConfigError: the package is not installed, or cannot read the file.
        """
        if self.foreign is None:
            raise ValueError(f"{self.name} has no files of another package")
        return resolve(self.foreign.reader, f"model {self.name!r}")(path, **options)

    def read_published(self, payload: dict[str, Any], path: Any) -> Any:
        """The `ForceField` in a published checkpoint whose content `published` recognizes."""
        if self.published is None:
            raise ValueError(f"{self.name} has no published format")
        return resolve(self.published.reader, f"model {self.name!r}")(payload, path)
