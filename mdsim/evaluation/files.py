"""JSON files of results, written atomically and read with clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mdsim.errors import ConfigError, one_line


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON atomically. Numbers that JSON does not support are an error."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Failure raises a clear error."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = one_line(getattr(error, "strerror", None) or error)
        raise ConfigError(f"{path}: cannot be read ({why}); run the evaluation first") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: is damaged (a {type(values).__name__}); evaluate again")
    return values
