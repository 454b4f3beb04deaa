"""The formats of trajectory files. Their libraries are imported when a format is first used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mdsim.errors import ConfigError
from mdsim.reporting.trajectories.frames import Header, ReplicaFrames, Stored

EXTRA = "trajectories"


@runtime_checkable
class Writer(Protocol):
    """Writes one replica into one file, made from a path and a `Header`."""

    def append(self, frames: ReplicaFrames) -> None:
        """Append frames of the replica, each with its own cell."""
        ...

    def close(self) -> None:
        """Complete the file."""
        ...


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: in configurations; also the suffix of files.
        module: with the writer and the function `read`.
        writer: name of the class.
        packages: of the extra `trajectories` that it needs.
        has_topology: whether a PDB file belongs to each file.
    """

    name: str
    module: str
    writer: str
    packages: tuple[str, ...] = ()
    has_topology: bool = False

    @property
    def suffix(self) -> str:
        return f".{self.name}"

    def check_available(self) -> None:
        """Raise `ConfigError` if a package is missing."""
        if missing := [package for package in self.packages if find_spec(package) is None]:
            raise ConfigError(
                f"trajectory.format: {self.name} needs {' and '.join(missing)}, not installed here: "
                f"pip install 'mdsim[{EXTRA}]', or choose gsd or extxyz"
            )

    def open(self, path: Path, header: Header) -> Writer:
        """A writer of a new file."""
        return getattr(self._imported(), self.writer)(path, header)

    def read(self, path: Path) -> Stored:
        """The content of a file."""
        return self._imported().read(path)

    def _imported(self) -> Any:
        self.check_available()
        return importlib.import_module(f"mdsim.reporting.trajectories.{self.module}")


FORMATS = {
    one.name: one
    for one in (
        Format("gsd", "gsd_files", "GsdWriter"),
        Format("extxyz", "extxyz", "ExtxyzWriter"),
        Format("xtc", "xtc", "XtcWriter", ("MDAnalysis",), has_topology=True),
        Format("dcd", "dcd", "DcdWriter", ("MDAnalysis",), has_topology=True),
        Format("h5md", "h5md", "H5mdWriter", ("h5py", "MDAnalysis"), has_topology=True),
    )
}


def format_of(path: Path) -> Format:
    """The format of a file, by its suffix.

    Raises:
        ConfigError: there is no such format.
    """
    name = path.suffix.removeprefix(".")
    if name not in FORMATS:
        raise ConfigError(
            f"{path}: {path.suffix or 'no suffix'} is no format of trajectories; use {', '.join(FORMATS)}"
        )
    return FORMATS[name]
