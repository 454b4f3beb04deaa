"""Metrics of an evaluation, written as `final_metrics.json`, `.npy` files and tables. Keys include units.

Stable times are right-censored at the end of the run. The mean is the restricted mean up to the horizon, the median is
Kaplan-Meier's. The error of an observable is that of the average over all stable frames of all replicas, with a
jackknife interval over replicas. `*_replica_mean` and `*_replica_std` are the mean and standard deviation of the errors
of single replicas. `interval_methods` names the method of each 95 % interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdsim.evaluation.evaluate import Evaluation
from mdsim.evaluation.measures import KEY, Measure
from mdsim.evaluation.observable_metrics import (
    bulk_modulus,
    diffusivity_values,
    energy_offset,
    observable_errors,
    or_none,
    unvisited_share,
)
from mdsim.evaluation.plan import Compared
from mdsim.geometry import volume
from mdsim.observables.bulk_modulus import BulkModulus
from mdsim.observables.diffusivity import Diffusivity
from mdsim.observables.energies import EnergyDistribution
from mdsim.stability.intervals import Interval, poisson_rate_interval, wilson_interval
from mdsim.stability.stable_times import GROUPS_METHOD, METHOD, restricted_mean_over_groups
from mdsim.stability.survival import Lifetimes, median_survival
from mdsim.state import System

SEED = 0  # fixed, so that intervals depend only on the results
JACKKNIFE = "jackknife over replicas, Student's t"
DETERMINED, ALIGNED = "determined", "aligned at the mean over the reference frames"  # the zero of potential energies


def final_metrics(
    evaluation: Evaluation,
    errors: dict[str, float],
    eval_model: str,
    temperature_K: float,
    thermostat: Mapping[str, Any] | None = None,
    barostat: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All results of one evaluation.

    Args:
        evaluation: a finished evaluation.
        errors: energy and force errors on the test frames.
        eval_model: name of the evaluated force field.
        temperature_K: temperature of the thermostat.
        thermostat: name and settings of the integrator.
        barostat: name and settings of the barostat, if there is one.
    """
    broken, system = evaluation.broken.numpy(), evaluation.stretch.system
    results: dict[str, Any] = {
        "eval_model": eval_model,
        "temperature_K": temperature_K,
        "thermostat": None if thermostat is None else dict(thermostat),
        **({} if barostat is None else {"barostat": dict(barostat)}),
        "timestep_fs": evaluation.stretch.integrator.timestep_fs,
        "replicas": len(broken),
        "horizon_ps": evaluation.horizon_ps,
        "periodic": system.cell is not None,
        **stable_times([lifetimes(evaluation)], evaluation.horizon_ps),
        **_departures(evaluation),
        KEY: {name: measure.stated() for name, measure in measures(evaluation).items()},
        "interval_methods": interval_methods(),
        "reasons_unstable": dict(Counter(reason for reason in evaluation.reasons if reason != "stable")),
        "endings": endings(evaluation),
    }
    weights = evaluation.stable_frames.double().numpy()
    means, measure_of = evaluation.structural_means(), measures(evaluation)
    for name, compared in evaluation.structural.items():
        axis, reference = _axis_and_reference(compared)
        results |= observable_errors(name, axis, reference, means[name].numpy(), weights, measure_of[name])
        if measure_of[name].is_density:
            results |= unvisited_share(name, reference, means[name].numpy(), weights)
        if isinstance(compared.observable, EnergyDistribution):
            results[f"{name}_zero"] = ALIGNED if compared.observable.aligned else DETERMINED
            results |= energy_offset(axis, reference, means[name].numpy(), weights)
        if isinstance(compared.observable, BulkModulus):
            results |= bulk_modulus(means[name].numpy(), weights, temperature_K)
    for name, values in evaluation.dynamical_values().items():
        present = np.isfinite(values.numpy()).all(-1)
        compared = evaluation.dynamical[name]
        axis_and_reference = _axis_and_reference(compared)
        weights = present.astype(float)
        results |= observable_errors(name, *axis_and_reference, values.numpy(), weights, measure_of[name])
        if isinstance(compared.observable, Diffusivity):
            correction = compared.observable.finite_size_correction(_in_mean_volume(evaluation), temperature_K)
            results |= diffusivity_values(name, compared, values[:, 0].numpy(), correction)
    return results | {key: or_none(value) for key, value in errors.items()}


def measures(evaluation: Evaluation) -> dict[str, Measure]:
    """The measure of each observable by name."""
    return {
        name: Measure.of(compared.observable, structural, compared.has_reference)
        for found, structural in ((evaluation.structural, True), (evaluation.dynamical, False))
        for name, compared in found.items()
    }


def _in_mean_volume(evaluation: Evaluation) -> System:
    """The system, with its cell scaled to the mean volume in the dense window where cells move."""
    system = evaluation.stretch.system
    moving = [frames.cell.double() for frames in evaluation.dense if frames.cell is not None]
    if system.cell is None or not moving:
        return system
    volumes = volume(torch.cat(moving))
    change = float(volumes[volumes.isfinite()].mean()) / float(volume(system.cell.double()))
    return replace(system, cell=system.cell * change ** (1 / 3))


def lifetimes(evaluation: Evaluation) -> Lifetimes:
    """Stable time of each replica in ps, and whether it broke then."""
    return Lifetimes(evaluation.stable_ps.numpy(), evaluation.broken.numpy())


def departures(evaluation: Evaluation) -> Lifetimes | None:
    """Time in ps at which each replica left the support, and whether it did. None if this was not measured."""
    times = evaluation.departure_ps
    if times is None or evaluation.departures is None:
        return None
    return Lifetimes(times.numpy(), evaluation.departures.departed.numpy())


def _departures(evaluation: Evaluation) -> dict[str, Any]:
    """Times to the departure from the support, and the coordinates that left first."""
    times = departures(evaluation)
    if times is None or evaluation.departures is None:
        return {}
    first = Counter(name for name in _departed_by(evaluation) if name is not None)
    found = departure_times([times], evaluation.horizon_ps)
    return {**found, "departed_by": dict(first.most_common())}


def _departed_by(evaluation: Evaluation) -> list[str | None]:
    """The coordinate by which each replica departed, or the reason of its break if all were in their ranges."""
    assert evaluation.departures is not None
    found = zip(evaluation.departures.coordinates, evaluation.departures.departed, evaluation.reasons, strict=True)
    return [(name or reason) if departed else None for name, departed, reason in found]


def endings(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What happened to each replica that broke or left the support."""
    broken, stable_ps = evaluation.broken.tolist(), evaluation.stable_ps.tolist()
    found = []
    departed_ps = None if evaluation.departure_ps is None else evaluation.departure_ps.tolist()
    departed_by = [None] * len(broken) if departed_ps is None else _departed_by(evaluation)
    for replica, (reason, name) in enumerate(zip(evaluation.reasons, departed_by, strict=True)):
        ending: dict[str, Any] = {"replica": replica}
        if broken[replica]:
            ending |= {"broke_by": reason, "stable_time_ps": stable_ps[replica]}
        if departed_ps is not None and name is not None:
            ending |= {"departed_by": name, "departure_time_ps": departed_ps[replica]}
        if len(ending) > 1:
            found.append(ending)
    return found


def stable_times(groups: Sequence[Lifetimes], horizon_ps: float) -> dict[str, float | None]:
    """Restricted mean, median, fraction stable to the end and rate of breaks, with 95 % intervals. See `_times`."""
    return _times(groups, horizon_ps, "stable_time", "fraction_stable_to_end", "break_rate_per_ns")


def departure_times(groups: Sequence[Lifetimes], horizon_ps: float) -> dict[str, float | None]:
    """The same numbers of the times to the departure from the support."""
    return _times(groups, horizon_ps, "departure_time", "fraction_never_departed", "departure_rate_per_ns")


def _times(
    groups: Sequence[Lifetimes], horizon_ps: float, time: str, fraction: str, rate: str
) -> dict[str, float | None]:
    """Restricted mean, median, fraction without an event, and events per time followed, with 95 % intervals.

    If an evaluation ended early because nearly all replicas had broken, the mean extends to the last simulated time.

    Args:
        groups: the replicas of one run, or of several.
        horizon_ps: planned length of the simulation.
        time, fraction, rate: names of the results.
    """
    times = Lifetimes.together(groups)
    end = min(horizon_ps, *(followed_ps(group) for group in groups))
    mean = Interval(0.0, 0.0, 0.0)  # all broke before the first frame
    if times.times.max() > 0:
        mean = restricted_mean_over_groups(groups, end, rng=np.random.default_rng(SEED))
    without = wilson_interval(int((~times.broken).sum()), len(times.broken))
    exposure_ns = float(times.times.sum()) / 1000
    events = poisson_rate_interval(int(times.broken.sum()), exposure_ns) if exposure_ns > 0 else None
    return {
        **_interval(f"{time}_mean_ps", mean),
        f"{time}_std_ps": float(times.times.std()),
        f"{time}_median_ps": median_survival(times),
        **_interval(fraction, without),
        **_interval(rate, events),
    }


def _interval(key: str, interval: Interval | None) -> dict[str, float | None]:
    """An estimate and its bounds by key. All are None if there is no estimate."""
    if interval is None:
        return dict.fromkeys((key, f"{key}_low", f"{key}_high"))
    return {key: interval.estimate, f"{key}_low": interval.low, f"{key}_high": interval.high}


def followed_ps(times: Lifetimes) -> float:
    """Time up to which the survival of a group is known."""
    return float("inf") if times.broken.all() else float(times.times.max())


def interval_methods(n_groups: int = 1) -> dict[str, str]:
    """The methods of all 95 % intervals."""
    return {
        "stable_time_mean_ps": METHOD if n_groups == 1 else GROUPS_METHOD,
        "departure_time_mean_ps": METHOD if n_groups == 1 else GROUPS_METHOD,
        "fraction_stable_to_end": "Wilson",
        "fraction_never_departed": "Wilson",
        "rates": "exact Poisson (Garwood)",
        "observables": JACKKNIFE,
        "diffusivity": "Student's t over replicas",
    }


def _axis_and_reference(compared: Compared) -> tuple[np.ndarray, np.ndarray]:
    return compared.axis.double().cpu().numpy(), compared.reference.double().cpu().numpy()


def save_arrays(out_dir: Path, evaluation: Evaluation) -> list[str]:
    """Write the per-replica results, axes and references as `.npy` files, and return their names."""
    arrays: dict[str, np.ndarray] = {
        "stable_time_ps": evaluation.stable_ps.numpy(),
        "broken": evaluation.broken.numpy(),
        "stable_frames": evaluation.stable_frames.numpy(),
    }
    if (left := departures(evaluation)) is not None:
        arrays |= {"departure_time_ps": left.times, "departed": left.broken}
    values = {**evaluation.structural_means(), **evaluation.dynamical_values()}
    for name, compared in {**evaluation.structural, **evaluation.dynamical}.items():
        if name in values:
            arrays[name] = values[name].numpy()
            arrays[f"{name}_axis"], arrays[f"{name}_reference"] = _axis_and_reference(compared)
    for name, array in arrays.items():
        temporary = out_dir / f"{name}.tmp.npy"
        np.save(temporary, array)
        temporary.replace(out_dir / f"{name}.npy")
    return [f"{name}.npy" for name in arrays]
