"""Findings of a stress test: what one check concluded, with its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["pass", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        check: name of the check.
        level: ``fail`` makes the verdict negative, ``warn`` does not.
        summary: one sentence with the decisive numbers.
        values: all numbers, with the unit in each name, for the JSON file.
    """

    check: str
    level: Level
    summary: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The finding as plain data."""
        return {"check": self.check, "level": self.level, "summary": self.summary, **plain(self.values)}


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
