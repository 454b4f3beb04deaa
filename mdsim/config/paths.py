"""Folders and files that a configuration reads, found from any working directory.

Relative paths are relative to the working directory. What does not exist there is taken from the nearest folder at or
above the configuration file that has it, so that the configurations of a checkout find its data and checkpoints.
Folders that a run writes to are never moved.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from mdsim.config.schema import Section

log = logging.getLogger("mdsim")

#: Keys of what is read: the whole key, or its last part anywhere in the configuration.
READ = ("data.path", "model.checkpoint", "model_dir", "stable_dir")
READ_ANYWHERE = ("reference_file", "charges_file")
OF_STATE_POINTS = re.compile(r"state_points\.\d+\.")  # whose `data` are read as the main ones are

SectionT = TypeVar("SectionT", bound=Section)


def located(config: SectionT, file: Path, overrides: Sequence[str] = (), also: Sequence[str] = ()) -> SectionT:
    """The configuration with the paths of what it reads, each fallback noted in the log.

    Args:
        config: as loaded.
        file: the configuration file.
        overrides: `key=value` strings of the command line. Their paths are those of the working directory.
        also: further keys of what is read.
    """
    typed = {override.partition("=")[0].lstrip("-").rpartition(".")[2] for override in overrides}
    keys = {key for key in (*READ, *also) if key.rpartition(".")[2] not in typed}
    return _located(config, file, keys, [name for name in READ_ANYWHERE if name not in typed], "")


def _located(section: SectionT, file: Path, keys: set[str], anywhere: Sequence[str], prefix: str) -> SectionT:
    changes: dict[str, Any] = {}
    for name in type(section).model_fields:
        value, key = getattr(section, name), f"{prefix}{name}"
        if isinstance(value, Section):
            changes[name] = _located(value, file, keys, anywhere, f"{key}.")
        elif isinstance(value, tuple):
            changes[name] = tuple(
                _located(item, file, keys, anywhere, f"{key}.{i}.") if isinstance(item, Section) else item
                for i, item in enumerate(value)
            )
        elif isinstance(value, str) and (OF_STATE_POINTS.sub("", key) in keys or name in anywhere):
            changes[name] = _existing(value, file, key)
    return section.model_copy(update={name: new for name, new in changes.items() if new != getattr(section, name)})


def _existing(path: str, file: Path, key: str) -> str:
    """The path, or the nearest existing one in the folders above the configuration file."""
    if not path or Path(path).is_absolute() or Path(path).exists():
        return path
    for folder in file.resolve().parents:
        if (folder / path).exists():
            log.info("%s: %s is not in the working directory; taking %s", key, path, folder / path)
            return str(folder / path)
    return path
