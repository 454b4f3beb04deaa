"""Paths of data sets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mdsim.errors import DatasetError

MAKE = "make a data set of your frames with `mdsim data convert`"


@dataclass(frozen=True)
class Place:
    """The path of a data set: `<root>/<name>/<molecule>/<size>`."""

    root: str
    name: str
    molecule: str
    size: str

    @property
    def folder(self) -> Path:
        return Path(self.root, self.name, self.molecule, self.size)


def place_of(path: Path) -> Place:
    """Parse the path to one size of a data set.

    Raises:
        DatasetError: the path is not a data set. The message lists data sets below it.
    """
    if not path.exists():
        raise DatasetError(f"{path}: no such folder; {MAKE}")
    if not path.is_dir():
        raise DatasetError(f"{path}: is a file; name the folder of a data set, <root>/<name>/<molecule>/<size>")
    if not (path / "metadata.json").is_file():
        below = sorted(str(found.parent) for found in path.rglob("metadata.json"))
        hint = f"name one of {', '.join(below)}" if below else MAKE
        raise DatasetError(f"{path}: is no data set, as metadata.json is missing; {hint}")
    normal = Path(os.path.normpath(path))
    parts = normal if len(normal.parts) > 2 and ".." not in normal.parts else path.resolve()
    return Place(str(parts.parents[2]), parts.parents[1].name, parts.parents[0].name, parts.name)
