"""Means over replicas of different weight, with errors by a jackknife over replicas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.stats

from mdsim.evaluation.measures import Measure
from mdsim.stability.intervals import Interval


def error_of_scatter(
    axis: np.ndarray, values: np.ndarray, weights: np.ndarray, is_density: bool | None = None
) -> float:
    """The error that a correct force field is expected to have, due to the scatter of the replicas alone.

    The mean over replicas is taken as normally distributed in each bin, so that its mean absolute deviation is √(2/π)
    standard errors. NaN for a single replica.
    """
    if len(values) < 2:
        return float("nan")
    deviation = np.sqrt(2 / np.pi) * mean_and_error(values, weights)[1]
    return float(area_between(axis, np.zeros(len(axis)), deviation[None], is_density)[0])


def mean_and_error(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean over replicas, and its standard error from their scatter. For one replica, the error is zero."""
    share = weights / weights.sum()
    mean = share @ values
    n = len(values)
    return mean, np.sqrt((share[:, None] ** 2 * (values - mean) ** 2).sum(0) * n / max(n - 1, 1))


def error_interval(
    axis: np.ndarray, reference: np.ndarray, values: np.ndarray, weights: np.ndarray, is_density: bool | None = None
) -> Interval:
    """The error of the weighted mean over replicas, with Student's interval from a jackknife over replicas."""
    interval = jackknife(lambda rows: area_between(axis, reference, rows, is_density), values, weights)
    return Interval(interval.estimate, float(np.maximum(0.0, interval.low)), interval.high)  # NaN stays NaN


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], values: np.ndarray, weights: np.ndarray) -> Interval:
    """A function of the weighted mean over replicas, with Student's interval from a jackknife over replicas.

    Bootstrap percentiles would be above the estimate of an error, because resampling adds noise, which increases
    absolute errors.

    Args:
        statistic: a number for each row.
        values: a row for each replica.
        weights: weights of the replicas.
    """
    estimate = float(statistic((weights @ values / weights.sum())[None])[0])
    n = len(values)
    if n < 2:
        return Interval(estimate, float("nan"), float("nan"))
    without = (weights @ values - weights[:, None] * values) / (weights.sum() - weights)[:, None]
    left_out = statistic(without)
    error = float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
    spread = float(scipy.stats.t.ppf(0.975, n - 1)) * error
    return Interval(estimate, estimate - spread, estimate + spread)


def area_between(
    axis: np.ndarray, reference: np.ndarray, values: np.ndarray, is_density: bool | None = None
) -> np.ndarray:
    """Range × mean |g - g_ref| over bins for each row of values, or only the mean if they are no density.

    ``is_density`` None: that of the axis, `Measure.of_axis`.
    """
    difference = np.abs(values - reference)
    if is_density is None:
        is_density = Measure.of_axis(axis).is_density
    return difference.sum(-1) * float(axis[1] - axis[0]) if is_density else difference.mean(-1)
