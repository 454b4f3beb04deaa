"""Figures of one evaluation, and the comparison of two kinds of evaluation, from the files of their runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdsim.evaluation.averages import mean_and_error
from mdsim.evaluation.metrics import (
    SEED,
    departure_times,
    energy_offset,
    followed_ps,
    observable_errors,
    stable_times,
    value_interval,
)
from mdsim.evaluation.results import Results, check_comparable, read_results
from mdsim.evaluation.tables import cell, conditions, is_shown, label, legend
from mdsim.observables.dihedrals import EMPTY, free_energy_eV
from mdsim.reporting.console import format_interval, format_table
from mdsim.reporting.figures import Panel, observable_figure, panels_figure, survival_figure, training_figure
from mdsim.reporting.scalars import read_scalars
from mdsim.stability.intervals import Interval
from mdsim.stability.stable_times import restricted_mean_ratio_over_groups, survival_band
from mdsim.stability.survival import Lifetimes, kaplan_meier

log = logging.getLogger("mdsim")

CONDITIONS = ("thermostat", "timestep_fs")  # on which rates of breaks depend
AXES = {
    "rdf": ("r (Å)", "h(r) (1/Å)"),
    "adf": ("angle (deg)", "density (1/deg)"),
    "vacf": ("lag (fs)", "VACF / VACF(0)"),
    "bond_length_distribution": ("bond length (Å)", "density (1/Å)"),
    "potential_energy": ("energy relative to the mean label (eV)", "density (1/eV)"),
}
DIHEDRAL, DISTANCES = "dihedral_", "distances_"  # prefixes of results that share a figure
ELEMENT, FOUR_ATOMS = re.compile(r"[A-Z][a-z]?"), re.compile(r"([A-Z][a-z]?\d+_){3}[A-Z][a-z]?\d+")


def draw_training(run_dir: Path) -> None:
    """Draw all scalars of a training run as `training.png` in its folder."""
    scalars = read_scalars(run_dir)
    if scalars:
        training_figure(run_dir / "training.png", scalars, xlabel="step" if "train/loss" in scalars else "epoch")


def draw(folder: Path, results: dict[str, Results]) -> None:
    """Draw survival curves, and every observable with its reference, as PNG files in ``folder``.

    All dihedrals are in one figure, as free energies, and so are all distances by elements.
    """
    survival_figure(
        folder / "survival.png",
        {name: _survival(r, r.lifetimes) for name, r in results.items()},
        {name: _survival(r, Lifetimes.together(r.departures)) for name, r in results.items() if r.departures},
        title="\n".join(dict.fromkeys(conditions(summary) for r in results.values() for summary in r.summaries)),
    )
    first = next(iter(results.values()))
    temperature_K, periodic = first.summaries[0]["temperature_K"], first.summaries[0].get("periodic", False)
    dihedrals: dict[str, Panel] = {}
    distances: dict[str, Panel] = {}
    for name, (_, axis, reference) in first.observables.items():
        curves = {key: mean for key, r in results.items() if (mean := _mean_and_error(r, name)) is not None}
        if len(axis) < 2 or not curves:
            continue
        if name.startswith(DIHEDRAL):
            dihedrals[_title(name, DIHEDRAL)] = _free_energy_panel(axis, reference, curves, temperature_K)
        elif name.startswith(DISTANCES):
            bounds = {key: (mean, mean - 2 * error, mean + 2 * error) for key, (mean, error) in curves.items()}
            distances[_title(name, DISTANCES)] = Panel(axis, reference, bounds)
        else:
            observable_figure(folder / f"{name}.png", axis, reference, curves, *axis_labels(name, periodic))
    if dihedrals:
        floor = f"bins with less than {EMPTY:g} of the density of free rotation"
        labels = ("dihedral angle (deg)", "free energy, $-kT$ ln $p$ (meV)", floor)
        panels_figure(folder / "dihedrals.png", dihedrals, *labels, ticks=(-180.0, -90.0, 0.0, 90.0, 180.0))
    if distances:
        panels_figure(folder / "distances.png", distances, *AXES["rdf"], share_y=False)


def _title(name: str, kind: str) -> str:
    """Title of a panel: the part of the name after the kind, with C4_N6_C8_C14 as C4-N6-C8-C14 and OH as O-H."""
    own = name.removeprefix(kind)
    if kind == DISTANCES:
        pair, _, among = own.partition("_")
        return " ".join(["-".join(ELEMENT.findall(pair)), among.replace("_", " ")]).strip()
    return own.replace("_", "-" if FOUR_ATOMS.fullmatch(own) else " ")


def _free_energy_panel(
    axis: np.ndarray, reference: np.ndarray, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], temperature_K: float
) -> Panel:
    """Free energies in meV from the lowest one of the reference. Bounds are those of the densities."""
    highest = 1000 * free_energy_eV(torch.zeros(1), temperature_K).item()

    def profile(density: np.ndarray) -> np.ndarray:
        return 1000 * free_energy_eV(torch.from_numpy(density), temperature_K).numpy()

    lowest = profile(reference).min()
    bounds = {
        key: (
            _without_plateaus(profile(mean), highest) - lowest,
            profile(mean + 2 * error) - lowest,
            profile(mean - 2 * error) - lowest,
        )
        for key, (mean, error) in curves.items()
    }
    return Panel(axis, _without_plateaus(profile(reference), highest) - lowest, bounds, highest - lowest)


def _without_plateaus(profile: np.ndarray, highest: float) -> np.ndarray:
    """A periodic profile in which empty bins between empty bins are left out, NaN."""
    empty = profile > highest - 1e-3
    return np.where(empty & np.roll(empty, 1) & np.roll(empty, -1), np.nan, profile)


def axis_labels(name: str, periodic: bool) -> tuple[str, str]:
    """Axis labels of an observable's figure: its kind, and the element pair if it has one."""
    kind = next((known for known in AXES if name.startswith(known)), "")
    xlabel, ylabel = AXES.get(kind, ("", name))
    if kind == "rdf" and periodic:
        ylabel = "g(r)"
    own = name.removeprefix(kind).strip("_").replace("_", " ")
    return xlabel, f"{ylabel}, {own}" if kind and own else ylabel


def _survival(results: Results, lifetimes: Lifetimes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kaplan-Meier curve from time zero to the end, with 95 % bounds."""
    curve = kaplan_meier(lifetimes)
    end = max(summary["horizon_ps"] for summary in results.summaries)
    times = np.concatenate([[0.0], curve.times, [end]])
    survival = np.concatenate([[1.0], curve.survival, curve.survival[-1:] if len(curve.survival) else [1.0]])
    return times, survival, *survival_band(lifetimes, times, rng=np.random.default_rng(SEED))


def _mean_and_error(results: Results, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    values = results.observables[name][0]
    known = np.isfinite(values).all(-1) & (results.weights_of(name) > 0)
    if not known.any():
        return None
    return mean_and_error(values[known], results.weights_of(name)[known])


def compare(run_dirs: Sequence[Path], before: str, after: str) -> str:
    """The table that compares two evaluations, before and after. Figures are saved in the first run folder.

    Args:
        run_dirs: run folders, each with both evaluations. Several seeds are averaged.
        before, after: names of the evaluations.
    """
    results = {name: read_results(*(run / "inference" / name for run in run_dirs)) for name in (before, after)}
    check_comparable(results)
    _warn_of_other_conditions(results)
    folder = run_dirs[0] / "inference"
    draw(folder, {f"before ({before})": results[before], f"after ({after})": results[after]})
    summaries = [_pooled(results[name]) for name in (before, after)]
    table = format_table(["", before, after, "change"], _rows(summaries, results[before], results[after]))
    caption = conditions(results[before].summaries[0])
    return f"{caption}\n{table}\n{legend(summaries[0], len(run_dirs))}"


def _warn_of_other_conditions(results: Mapping[str, Results]) -> None:
    """Warn of thermostats and time steps that differ, because rates of breaks depend on them."""
    for key in CONDITIONS:
        stated = {name: [summary[key] for summary in r.summaries if summary.get(key)] for name, r in results.items()}
        every = [value for values in stated.values() for value in values]
        if any(value != every[0] for value in every):
            text = "; ".join(f"{name}: {conditions(r.summaries[0])}" for name, r in results.items())
            log.warning("%s differs: stable times are not comparable (%s)", key, text)


def _rows(summaries: Sequence[dict[str, Any]], before: Results, after: Results) -> list[list[str]]:
    """The rows of the table of two evaluations, given their metrics."""
    rows = []
    for key in max(summaries, key=len) | summaries[0] | summaries[1]:  # one may lack departures
        if any(is_shown(key, summary) for summary in summaries):
            change = _change(key, summaries, before, after)
            rows.append([label(key), *(cell(summary, key) for summary in summaries), change])
    return rows


def _pooled(results: Results) -> dict[str, Any]:
    """The metrics of all replicas pooled. Energy and force errors are averaged over runs."""
    pooled: dict[str, Any] = dict(stable_times(results.groups, results.horizon_ps))
    if results.departures is not None:
        pooled |= departure_times(results.departures, results.horizon_ps)
    for name, (values, axis, reference) in results.observables.items():
        pooled |= observable_errors(name, axis, reference, values, results.weights_of(name))
        if name.startswith("diffusivity"):
            pooled |= value_interval(name, values[:, 0])
        if name == "potential_energy":
            pooled |= energy_offset(axis, reference, values, results.weights_of(name))
    for key in results.summaries[0]:
        if key.startswith(("energy_mae_meV", "force_mae")):
            errors = [summary[key] for summary in results.summaries]
            pooled[key] = None if None in errors else float(np.mean(errors))
    return pooled


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
