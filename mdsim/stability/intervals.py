"""Confidence intervals and error bars: means, bootstrap, proportions, correlated series.

Sources: Wilson, JASA 22, 209 (1927) (score interval); Garwood, Biometrika 28, 437 (1936) (Poisson rates).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Float


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


def bootstrap_interval(
    values: Float[np.ndarray, "sample"],
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    rng: np.random.Generator,
    n_resamples: int = 9999,
    confidence: float = 0.95,
) -> Interval:
    """Bias-corrected and accelerated (BCa) bootstrap interval of a statistic of independent values.

    Args:
        values: independent values, e.g. one per replica.
        statistic: function of values and ``axis``.
        rng: source of the resampling.
        n_resamples: number of bootstrap samples.
        confidence: confidence level of the interval.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError("a bootstrap needs at least two values, all finite")
    estimate = float(statistic(values, axis=0))
    if np.ptp(values) == 0:  # BCa is undefined, and every resample is the same
        return Interval(estimate, estimate, estimate)
    result = scipy.stats.bootstrap(
        (values,), statistic, n_resamples=n_resamples, confidence_level=confidence, method="BCa", random_state=rng
    )
    return Interval(estimate, float(result.confidence_interval.low), float(result.confidence_interval.high))


def mean_interval(values: Float[np.ndarray, "sample"], confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of independent values. The bounds are NaN for a single value."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a fraction. It is also valid at 0 and 1, where the standard error is zero."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"found {successes} successes in {trials} trials")
    z = scipy.stats.norm.ppf((1 + confidence) / 2)
    fraction = successes / trials
    center = (fraction + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(fraction * (1 - fraction) / trials + (z / (2 * trials)) ** 2)
    return Interval(fraction, float(max(0.0, center - half)), float(min(1.0, center + half)))


def poisson_rate_interval(events: int, exposure: float, confidence: float = 0.95) -> Interval:
    """Rate of events at constant hazard with the exact interval of Garwood, in the inverse unit of the exposure.

    Args:
        events: number of events.
        exposure: total time in which they could occur.
        confidence: confidence level of the interval.

    Source: Garwood, Biometrika 28, 437 (1936).
    """
    if events < 0 or not exposure > 0:
        raise ValueError(f"found {events} events in an exposure of {exposure:g}")
    tail = (1 - confidence) / 2
    low = scipy.stats.chi2.ppf(tail, 2 * events) / 2 if events else 0.0
    high = scipy.stats.chi2.isf(tail, 2 * events + 2) / 2
    return Interval(events / exposure, float(low / exposure), float(high / exposure))


def block_standard_error(series: Float[np.ndarray, "frame *axes"], n_blocks: int = 10) -> Float[np.ndarray, "*axes"]:
    """Standard error of the time average of a correlated series, from the scatter of its block averages.

    Args:
        series: time first. Blocks must be much longer than the correlation time.
        n_blocks: consecutive pieces; their lengths differ by one at most.
    """
    if not 2 <= n_blocks <= len(series):
        raise ValueError(f"n_blocks must lie between 2 and the {len(series)} frames of the series, found {n_blocks}")
    means = np.stack([block.mean(0) for block in np.array_split(series, n_blocks)])
    return np.asarray(means.std(0, ddof=1) / np.sqrt(n_blocks))
