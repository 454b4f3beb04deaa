"""The breaks of replicas as a summary states them, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mdsim.errors import ConfigError, one_line


@dataclass(frozen=True)
class Break:
    """The break of one replica.

    Attributes:
        replica: its index.
        stable_time_ps: time of its last stable frame.
        reason: name of the criterion, in words.
        departed_by: the coordinate that left the support first; None if that is unknown.
    """

    replica: int
    stable_time_ps: float
    reason: str
    departed_by: str | None


def breaks_of(summary: Mapping[str, Any]) -> list[Break]:
    """The breaks in ``endings`` of a summary. Results of early versions do not state them.

    Raises:
        ConfigError: they are not what an evaluation writes.
    """
    try:
        return [
            Break(
                int(one["replica"]),
                float(one["stable_time_ps"]),
                str(one["broke_by"]).replace("_", " "),
                None if one.get("departed_by") is None else str(one["departed_by"]),
            )
            for one in summary.get("endings") or []
            if "broke_by" in one
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"endings of a summary are damaged ({one_line(repr(error))}); evaluate again") from error
