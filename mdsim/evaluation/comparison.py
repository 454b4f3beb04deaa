"""Comparison of evaluations: their metrics side by side, and the change between two of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mdsim.evaluation.measures import KEY, error_units
from mdsim.evaluation.metrics import (
    SEED,
    departure_times,
    followed_ps,
    stable_times,
)
from mdsim.evaluation.observable_metrics import bulk_modulus, energy_offset, observable_errors, value_interval
from mdsim.evaluation.results import Results
from mdsim.evaluation.tables import cell, conditions, is_shown, label
from mdsim.observables.bulk_modulus import BulkModulus
from mdsim.reporting.console import format_interval
from mdsim.stability.intervals import Interval
from mdsim.stability.stable_times import restricted_mean_ratio_over_groups
from mdsim.stability.survival import Lifetimes

log = logging.getLogger("mdsim")

CONDITIONS = ("thermostat", "barostat", "timestep_fs")  # on which rates of breaks depend
ALWAYS_STATED = ("barostat",)  # where it is absent, the volume is constant; old results do not state the others


def warn_of_other_conditions(results: Mapping[str, Results]) -> None:
    """Warn of thermostats, barostats and time steps that differ, because rates of breaks depend on them."""
    for key in CONDITIONS:
        stated = {
            name: [summary.get(key) for summary in r.summaries if summary.get(key) or key in ALWAYS_STATED]
            for name, r in results.items()
        }
        every = [value for values in stated.values() for value in values]
        if any(value != every[0] for value in every):
            text = "; ".join(f"{name}: {conditions(r.summaries[0])}" for name, r in results.items())
            log.warning("%s differs: stable times are not comparable (%s)", key, text)


def rows(results: Sequence[Results]) -> dict[str, list[str]]:
    """The rows of a table of metrics by key: label, a cell for each evaluation, and for two of them the change."""
    summaries = [pooled(one) for one in results]
    keys = dict.fromkeys(key for summary in sorted(summaries, key=len, reverse=True) for key in summary)
    found = {}
    for key in keys:  # one may lack departures
        if any(is_shown(key, summary) for summary in summaries):
            change = [_change(key, summaries, results[0], results[1])] if len(results) == 2 else []
            units = error_units(summaries[0])
            found[key] = [label(key, units), *(cell(summary, key) for summary in summaries), *change]
    return found


def pooled(results: Results) -> dict[str, Any]:
    """The metrics of all replicas together. Energy and force errors are averaged over runs."""
    together: dict[str, Any] = dict(stable_times(results.groups, results.horizon_ps))
    together[KEY] = results.summaries[0].get(KEY)
    if results.departures is not None:
        together |= departure_times(results.departures, results.horizon_ps)
    for name, (values, axis, reference) in results.observables.items():
        together |= observable_errors(name, axis, reference, values, results.weights_of(name), results.measure_of(name))
        if name.startswith("diffusivity"):
            together |= value_interval(name, values[:, 0])
        if name == BulkModulus.name:
            together |= bulk_modulus(values, results.weights_of(name), results.summaries[0]["temperature_K"])
        if name == "potential_energy":
            together |= energy_offset(axis, reference, values, results.weights_of(name))
    for key in results.summaries[0]:
        if key.startswith(("energy_mae_meV", "force_mae")):
            errors = [summary[key] for summary in results.summaries]
            together[key] = None if None in errors else float(np.mean(errors))
    return together


def _change(key: str, summaries: Sequence[dict[str, Any]], before: Results, after: Results) -> str:
    if key in ("stable_time_mean_ps", "departure_time_mean_ps"):
        ratio = stable_time_ratio(before, after) if key.startswith("stable") else departure_time_ratio(before, after)
        return "-" if ratio is None else "× " + format_interval(ratio.estimate, ratio.low, ratio.high)
    if key.startswith(("energy_mae", "force_mae")):
        old, new = (summary[key] for summary in summaries)
        return "-" if None in (old, new) or old == 0 else f"{100 * (new / old - 1):+.1f} %"
    return ""


def stable_time_ratio(before: Results, after: Results) -> Interval | None:
    """Ratio of mean stable times, paired by replica, up to the time at which both survivals are known."""
    return _ratio(before.groups, after.groups, min(before.horizon_ps, after.horizon_ps))


def departure_time_ratio(before: Results, after: Results) -> Interval | None:
    """The same ratio of mean times within the support. None if one of them was not measured."""
    if before.departures is None or after.departures is None:
        return None
    return _ratio(before.departures, after.departures, min(before.horizon_ps, after.horizon_ps))


def _ratio(before: Sequence[Lifetimes], after: Sequence[Lifetimes], horizon_ps: float) -> Interval | None:
    horizon = min(horizon_ps, *(followed_ps(group) for group in (*before, *after)))
    if horizon == 0 or Lifetimes.together(before).times.max() == 0:
        return None
    return restricted_mean_ratio_over_groups(before, after, horizon, rng=np.random.default_rng(SEED))
