"""From an evaluation's raw numbers to `final_metrics.json`, `.npy` files and tables; the unit is in every key.

Stable times are right-censored at the end of the run: the mean is the restricted mean up to the horizon, the median
Kaplan-Meier's. An observable's error is that of the average over all stable frames of all replicas; its interval is a
jackknife over replicas. `*_replica_mean` and `*_replica_std` are over the replicas' own errors.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mdsim.config.schema import SimulateConfig
from mdsim.errors import ConfigError, one_line
from mdsim.evaluation.evaluate import Compared, Evaluation
from mdsim.observables.diffusivity import Diffusivity
from mdsim.reporting.console import format_interval, format_table
from mdsim.stability.survival import (
    Estimate,
    Interval,
    Lifetimes,
    mean_interval,
    median_survival,
    restricted_mean,
    wilson_interval,
)

NORMAL_95 = 1.959964
DIFFUSIVITY_UNIT = "_1e-9_m2_per_s"


def final_metrics(evaluation: Evaluation, errors: dict[str, float], config: SimulateConfig) -> dict[str, Any]:
    """All results of one evaluation.

    Args:
        evaluation: a finished one.
        errors: energy and force errors on the test frames.
        config: what was asked for.
    """
    broken, system = evaluation.broken.numpy(), evaluation.stretch.system
    results: dict[str, Any] = {
        "eval_model": config.eval_model,
        "temperature_K": config.dynamics.temperature_K,
        "replicas": len(broken),
        "horizon_ps": config.horizon_ps,
        "periodic": system.cell is not None,
        **stable_times(lifetimes(evaluation)),
        "reasons_unstable": dict(Counter(reason for reason in evaluation.reasons if reason != "stable")),
    }
    weights = evaluation.stable_frames.double().numpy()
    means = evaluation.structural_means()
    for name, compared in evaluation.structural.items():
        results |= observable_errors(name, *_axis_and_reference(compared), means[name].numpy(), weights)
    for name, values in evaluation.dynamical_values().items():
        present = np.isfinite(values.numpy()).all(-1)
        compared = evaluation.dynamical[name]
        axis_and_reference = _axis_and_reference(compared)
        results |= observable_errors(name, *axis_and_reference, values.numpy(), present.astype(float))
        if isinstance(compared.observable, Diffusivity):
            correction = compared.observable.finite_size_correction(system, config.dynamics.temperature_K)
            results |= diffusivity_values(name, compared, values[:, 0].numpy(), correction)
    return results | {key: value if np.isfinite(value) else None for key, value in errors.items()}


def lifetimes(evaluation: Evaluation) -> Lifetimes:
    """Stable time of each replica in ps, and whether it broke then."""
    return Lifetimes(evaluation.stable_ps.numpy(), evaluation.broken.numpy())


def stable_times(times: Lifetimes) -> dict[str, float | None]:
    """Restricted mean, median and fraction stable to the end, with 95 % intervals.

    Where an evaluation stopped early because nearly all replicas had broken, the mean extends to the last time that
    was simulated.
    """
    end = float(times.times.max())
    mean = restricted_mean(times, end) if end > 0 else Estimate(0.0, 0.0)  # all broke before the first frame
    spread = NORMAL_95 * mean.standard_error
    stable = wilson_interval(int((~times.broken).sum()), len(times.broken))
    return {
        "stable_time_mean_ps": mean.value,
        "stable_time_mean_ps_low": max(0.0, mean.value - spread),
        "stable_time_mean_ps_high": min(end, mean.value + spread),
        "stable_time_std_ps": float(times.times.std()),
        "stable_time_median_ps": median_survival(times),
        "fraction_stable_to_end": stable.estimate,
        "fraction_stable_to_end_low": stable.low,
        "fraction_stable_to_end_high": stable.high,
    }


def observable_errors(
    name: str, axis: np.ndarray, reference: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> dict[str, float | None]:
    """Mean absolute error of the average over replicas weighted by their stable frames.

    Args:
        name: of the observable.
        axis: bin centers or lags, evenly spaced.
        reference: one value a bin.
        values: one row a replica.
        weights: of the replicas.

    Returns:
        Range × mean |g - g_ref| over bins, the paper's measure: the area between the densities. For correlation
        functions and single values, mean |g - g_ref|.
    """
    known = (weights > 0) & np.isfinite(values).all(-1)
    if not known.any():
        return {f"{name}_mae": None}
    values, weights = values[known], weights[known]
    interval = error_interval(axis, reference, values, weights)
    own = area_between(axis, reference, values)
    return {
        f"{name}_mae": interval.estimate,
        f"{name}_mae_low": interval.low,
        f"{name}_mae_high": interval.high,
        f"{name}_mae_replica_mean": float(own.mean()),
        f"{name}_mae_replica_std": float(own.std()),
    }


def diffusivity_values(
    name: str, compared: Compared, values: np.ndarray, correction: float | None
) -> dict[str, float | None]:
    """The diffusivity itself, its reference, and what it would be in an infinite box, all in 1e-9 m²/s.

    Args:
        name: of the observable.
        compared: the observable and its reference in a box of the same size.
        values: one a replica, not a number where it broke.
        correction: of the box size, the same for reference and simulation; None where it is not known.
    """
    reference, error = float(compared.reference[0]), compared.standard_error
    interval = value_interval(name, values)
    mean = interval[f"{name}{DIFFUSIVITY_UNIT}"]
    return interval | {
        f"{name}_reference{DIFFUSIVITY_UNIT}": reference,
        f"{name}_reference_standard_error{DIFFUSIVITY_UNIT}": None if error is None else float(error[0]),
        f"{name}_finite_size_correction{DIFFUSIVITY_UNIT}": correction,
        f"{name}_infinite_box{DIFFUSIVITY_UNIT}": None if mean is None or correction is None else mean + correction,
    }


def value_interval(name: str, values: np.ndarray) -> dict[str, float | None]:
    """Mean over the replicas that have a diffusivity (1e-9 m²/s), with a 95 % interval from their scatter."""
    known = values[np.isfinite(values)]
    if not len(known):
        return dict.fromkeys([f"{name}{DIFFUSIVITY_UNIT}{bound}" for bound in ("", "_low", "_high")])
    interval = mean_interval(known)
    found = zip(("", "_low", "_high"), (interval.estimate, interval.low, interval.high), strict=True)
    return {f"{name}{DIFFUSIVITY_UNIT}{bound}": value if np.isfinite(value) else None for bound, value in found}


def error_interval(axis: np.ndarray, reference: np.ndarray, values: np.ndarray, weights: np.ndarray) -> Interval:
    """The error of the weighted mean over replicas ± 1.96 standard errors from leaving out one replica at a time.

    Percentiles of a bootstrap would lie above the estimate: resampling adds noise, and noise adds to an absolute error.
    """
    mean = weights @ values / weights.sum()
    estimate = float(area_between(axis, reference, mean[None])[0])
    n = len(values)
    if n < 2:
        return Interval(estimate, 0.0, estimate)
    without = (weights @ values - weights[:, None] * values) / (weights.sum() - weights)[:, None]
    left_out = area_between(axis, reference, without)
    spread = NORMAL_95 * float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
    return Interval(estimate, max(0.0, estimate - spread), estimate + spread)


def area_between(axis: np.ndarray, reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Range × mean |g - g_ref| over bins for each row of values; with lags for bins (from zero), the mean alone."""
    difference = np.abs(values - reference)
    is_density = len(axis) > 1 and axis[0] != 0
    return difference.sum(-1) * float(axis[1] - axis[0]) if is_density else difference.mean(-1)


def _axis_and_reference(compared: Compared) -> tuple[np.ndarray, np.ndarray]:
    return compared.axis.double().cpu().numpy(), compared.reference.double().cpu().numpy()


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """One row a quantity, one column an evaluation."""
    first = next(iter(summaries.values()))
    rows = [
        [label(key), *(cell(summary, key) for summary in summaries.values())] for key in first if is_shown(key, first)
    ]
    return format_table(["", *summaries], rows)


def is_shown(key: str, summary: dict[str, Any]) -> bool:
    """Whether tables have a row for it: what is listed below, and what has an interval."""
    return key in SHOWN or (key.endswith(("_mae", DIFFUSIVITY_UNIT)) and f"{key}_low" in summary)


SHOWN = {
    "stable_time_mean_ps": "mean stable time (ps)",
    "stable_time_median_ps": "median stable time (ps)",
    "fraction_stable_to_end": "fraction stable to the end",
    "energy_mae_meV": "energy MAE (meV)",
    "force_mae_meV_per_A": "force MAE (meV/Å)",
}


def label(key: str) -> str:
    """How a key is shown to people."""
    if key.endswith(DIFFUSIVITY_UNIT):
        return key.removesuffix(DIFFUSIVITY_UNIT).replace("_", " ") + " (1e-9 m²/s)"
    return SHOWN.get(key, key.removesuffix("_mae").upper().replace("_", " ") + " MAE")


def cell(summary: dict[str, Any], key: str) -> str:
    """A value with its interval, where it has one."""
    value = summary.get(key)
    if value is None:
        return "not reached" if key == "stable_time_median_ps" else "-"
    if summary.get(f"{key}_low") is not None:
        return format_interval(value, summary[f"{key}_low"], summary[f"{key}_high"])
    return f"{value:.3g}"


def save_arrays(out_dir: Path, evaluation: Evaluation) -> None:
    """Write the per-replica results as `.npy` files, and the axes and references beside them."""
    arrays: dict[str, np.ndarray] = {
        "stable_time_ps": evaluation.stable_ps.numpy(),
        "broken": evaluation.broken.numpy(),
        "stable_frames": evaluation.stable_frames.numpy(),
    }
    values = {**evaluation.structural_means(), **evaluation.dynamical_values()}
    for name, compared in {**evaluation.structural, **evaluation.dynamical}.items():
        if name in values:
            arrays[name] = values[name].numpy()
            arrays[f"{name}_axis"], arrays[f"{name}_reference"] = _axis_and_reference(compared)
    for name, array in arrays.items():
        temporary = out_dir / f"{name}.tmp.npy"
        np.save(temporary, array)
        temporary.replace(out_dir / f"{name}.npy")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON under the final name only when complete; refuses numbers that JSON does not have."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or one clear error."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({one_line(error)}); run the evaluation first") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: is damaged (a {type(values).__name__}); evaluate again")
    return values
