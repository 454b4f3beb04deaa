"""Evaluations at several state points: the results of each, in a folder of its own, and those of all replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdsim.errors import ConfigError
from mdsim.evaluation.files import read_json
from mdsim.evaluation.metrics import departure_times, interval_methods, stable_times
from mdsim.evaluation.results import SUMMARY, Results
from mdsim.evaluation.tables import cell, conditions, is_shown, label, legend
from mdsim.reporting.console import format_table
from mdsim.stability.survival import Lifetimes

POINTS, ALL = "state_points", "all"
COUNTS = ("reasons_unstable", "departed_by")


def summary(eval_model: str, results: Mapping[str, Results]) -> dict[str, Any]:
    """Metrics of each state point by name, and those of all replicas together.

    Stable times, departures and their reasons are pooled. Observables have other references at each state point, and
    are not.
    """
    of_points = {name: one.summaries[0] for name, one in results.items()}
    horizon_ps = min(one.horizon_ps for one in results.values())
    pooled = stable_times([Lifetimes.together([one.lifetimes for one in results.values()])], horizon_ps)
    departures = [one.departures for one in results.values()]
    if all(one is not None for one in departures):
        left = Lifetimes.together([group for one in departures if one is not None for group in one])
        pooled |= departure_times([left], horizon_ps)
    counts = {
        key: dict(sum((Counter(one.get(key, {})) for one in of_points.values()), Counter()).most_common())
        for key in COUNTS
    }
    return {
        "eval_model": eval_model,
        "replicas": sum(one["replicas"] for one in of_points.values()),
        "horizon_ps": horizon_ps,
        **pooled,
        "interval_methods": interval_methods(),
        **counts,
        POINTS: of_points,
    }


def table(summary: Mapping[str, Any]) -> str:
    """Table with one row per quantity, and one column per state point and for all replicas."""
    points: dict[str, dict[str, Any]] = summary[POINTS]
    first, *others = points.values()
    columns = {**points, ALL: {key: value for key, value in summary.items() if key != POINTS}}
    keys = dict.fromkeys(key for one in (first, *others) for key in one if is_shown(key, one))
    rows = [[label(key), *(cell(one, key) if key in one else "" for one in columns.values())] for key in keys]
    lines = [_common_conditions(points.values()), format_table(["", *columns], rows)]
    return "\n".join([*filter(None, lines), legend(first)])


def _common_conditions(points: Iterable[Mapping[str, Any]]) -> str:
    """The conditions of all state points, without temperatures, and without pressures that differ."""
    first, *others = points
    shared = {key: value for key, value in first.items() if key != "temperature_K"}
    if any(one.get("barostat") != first.get("barostat") for one in others):
        shared["barostat"] = {key: value for key, value in first["barostat"].items() if key != "pressure_bar"}
    return conditions(shared)


def names_in(folder: Path) -> list[str]:
    """Names of the state points of an evaluation; none if it has a single one."""
    path = folder / SUMMARY
    return list(read_json(path).get(POINTS, {})) if path.exists() else []


def common(run_dirs: Sequence[Path], evaluations: Sequence[str]) -> list[str | None]:
    """The state points of evaluations that are to be compared; [None] if they have a single one.

    Raises:
        ConfigError: the state points differ.
    """
    found = {
        str(run / "inference" / name): names_in(run / "inference" / name) for run in run_dirs for name in evaluations
    }
    first, *_ = found.values()
    for folder, names in found.items():
        if names != first:
            shown = "; ".join(f"{folder}: {', '.join(names) or 'one'}" for folder, names in found.items())
            raise ConfigError(f"state points differ ({shown}); evaluate again at the same ones")
    return list(first) or [None]
