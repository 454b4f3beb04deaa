"""Survival analysis of replicas, and error bars: right-censored lifetimes, bootstrap, proportions, correlated series.

A replica that is still stable when its simulation ends is *censored*: its lifetime is at least that long. Averaging
lifetimes as if it had broken then is biased; the Kaplan-Meier estimator is not.
Sources: Kaplan & Meier, JASA 53, 457 (1958); Greenwood (1926); Klein & Moeschberger, Survival Analysis (2003), ch. 4;
Wilson, JASA 22, 209 (1927).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Lifetimes:
    """How long each replica was followed, and whether it broke then (otherwise it is censored)."""

    times: Float[np.ndarray, "replica"]
    broken: Bool[np.ndarray, "replica"]

    def __post_init__(self) -> None:
        if not len(self.times):
            raise ValueError("lifetimes of no replica at all")
        if not np.isfinite(self.times).all() or (self.times < 0).any():
            raise ValueError("lifetimes must be finite and not negative; a replica that did not break is censored")


@dataclass(frozen=True)
class SurvivalCurve:
    """Probability to be stable beyond each time at which a replica broke; 1 before the first."""

    times: Float[np.ndarray, "event"]
    survival: Float[np.ndarray, "event"]
    standard_error: Float[np.ndarray, "event"]  # Greenwood

    def at(self, times: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
        """Survival at any times; constant between events."""
        return np.append(1.0, self.survival)[np.searchsorted(self.times, times, side="right")]


def kaplan_meier(lifetimes: Lifetimes) -> SurvivalCurve:
    """Survival from right-censored lifetimes, with Greenwood's standard error."""
    times, deaths, at_risk = _events(lifetimes)
    survival = np.cumprod(1 - deaths / at_risk)
    relative_variance = np.cumsum(_greenwood_terms(deaths, at_risk))
    return SurvivalCurve(times, survival, survival * np.sqrt(relative_variance))


def restricted_mean(lifetimes: Lifetimes, horizon: float) -> Estimate:
    """Mean of min(lifetime, horizon): the area under the survival curve, in the unit of the times.

    Raises:
        ValueError: nobody was followed up to the horizon although not everybody had broken.

    Source: Klein & Moeschberger (2003), equations 4.5.1 and 4.5.2.
    """
    _check_horizon(lifetimes, horizon)
    times, deaths, at_risk = _events(lifetimes)
    before = times < horizon
    times, deaths, at_risk = times[before], deaths[before], at_risk[before]
    survival = np.append(1.0, np.cumprod(1 - deaths / at_risk))
    areas = survival * np.diff(np.concatenate([[0.0], times, [horizon]]))
    remaining = areas.sum() - np.cumsum(areas)[:-1]  # area to the right of each event
    variance = (remaining**2 * _greenwood_terms(deaths, at_risk)).sum()
    return Estimate(float(areas.sum()), float(np.sqrt(variance)))


def median_survival(lifetimes: Lifetimes) -> float | None:
    """First time at which at most half of the replicas are stable; None where it was not reached."""
    curve = kaplan_meier(lifetimes)
    reached = curve.survival <= 0.5 + 1e-12  # the product of fractions may miss one half by rounding
    return float(curve.times[reached.argmax()]) if reached.any() else None


def restricted_mean_ratio(
    before: Lifetimes,
    after: Lifetimes,
    horizon: float,
    *,
    rng: np.random.Generator,
    n_resamples: int = 9999,
    confidence: float = 0.95,
) -> Interval:
    """How many times longer the replicas live after than before, with a percentile bootstrap interval.

    Replica i of both has the same initial conditions, so replicas are resampled in pairs.

    Args:
        before, after: lifetimes of the same replicas in the same order.
        horizon: of the restricted means, in the unit of the times.
        rng: source of the resampling.
        n_resamples: bootstrap samples.
        confidence: of the interval.

    Raises:
        ValueError: different numbers of replicas, an unreachable horizon, or every replica broke at once before.
    """
    n_replicas = len(before.times)
    if n_replicas != len(after.times):
        raise ValueError(f"the replicas must be the same: found {n_replicas} before and {len(after.times)} after")
    _check_horizon(before, horizon)
    _check_horizon(after, horizon)
    everyone = np.ones((1, n_replicas), dtype=np.int64)
    if _areas(before, everyone, horizon)[0] == 0:
        raise ValueError("every replica broke at time zero before: a ratio has no meaning, compare differences")
    counts = rng.multinomial(n_replicas, np.full(n_replicas, 1 / n_replicas), size=n_resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = _areas(after, counts, horizon) / _areas(before, counts, horizon)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(ratios, [tail, 1 - tail])
    ratio = _areas(after, everyone, horizon)[0] / _areas(before, everyone, horizon)[0]
    return Interval(float(ratio), float(low), float(high))


def restricted_mean_over_groups(
    before: Sequence[Lifetimes],
    after: Sequence[Lifetimes],
    horizon: float,
    *,
    rng: np.random.Generator,
    n_resamples: int = 4999,
    confidence: float = 0.95,
) -> tuple[Interval, Interval]:
    """Restricted mean after, and its ratio to that before, over groups (runs with other seeds) of replicas.

    Two-level percentile bootstrap: groups are resampled first, and then the replicas within each drawn one, in pairs
    as in `restricted_mean_ratio`. With few groups it is coarse, but unlike pooling it knows that runs differ.

    Args:
        before, after: lifetimes of the same replicas in the same order, group by group, all of one size.
        horizon: of the restricted means, in the unit of the times.
        rng: source of the resampling.
        n_resamples: bootstrap samples.
        confidence: of the intervals.

    Raises:
        ValueError: groups that are no pairs of one size, or an unreachable horizon.
    """
    sizes = {len(lifetimes.times) for lifetimes in (*before, *after)}
    if len(sizes) != 1 or len(before) != len(after):
        raise ValueError(f"the groups must be pairs of one size: found {len(before)} and {len(after)}, of {sizes}")
    for lifetimes in (*before, *after):
        _check_horizon(lifetimes, horizon)
    size, n_groups = sizes.pop(), len(before)
    rows = np.arange(n_resamples)
    totals = np.zeros((2, n_resamples))
    for _ in range(n_groups):
        counts = rng.multinomial(size, np.full(size, 1 / size), size=n_resamples)
        drawn = rng.integers(n_groups, size=n_resamples)
        for total, groups in zip(totals, (before, after), strict=True):
            total += np.stack([_areas(lifetimes, counts, horizon) for lifetimes in groups])[drawn, rows] / n_groups
    everyone = np.ones((1, size), dtype=np.int64)
    means = [float(np.mean([_areas(lifetimes, everyone, horizon) for lifetimes in g])) for g in (before, after)]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    mean_bounds, ratio_bounds = np.quantile(totals[1], tails), np.quantile(totals[1] / totals[0], tails)
    return Interval(means[1], *map(float, mean_bounds)), Interval(means[1] / means[0], *map(float, ratio_bounds))


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
        values: independent ones, e.g. one per replica.
        statistic: takes values and ``axis``.
        rng: source of the resampling.
        n_resamples: bootstrap samples.
        confidence: of the interval.
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
    """Student's interval of the mean of independent values; of one value alone the bounds are not numbers."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Score interval of a fraction; sensible also at 0 and 1, where ± one standard error is not."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"found {successes} successes in {trials} trials")
    z = scipy.stats.norm.ppf((1 + confidence) / 2)
    fraction = successes / trials
    center = (fraction + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(fraction * (1 - fraction) / trials + (z / (2 * trials)) ** 2)
    return Interval(fraction, float(max(0.0, center - half)), float(min(1.0, center + half)))


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


def _events(
    lifetimes: Lifetimes,
) -> tuple[Float[np.ndarray, "event"], Int[np.ndarray, "event"], Int[np.ndarray, "event"]]:
    """Distinct times at which replicas broke, how many did, and how many were followed up to then."""
    times, deaths = np.unique(lifetimes.times[lifetimes.broken], return_counts=True)
    at_risk = len(lifetimes.times) - np.searchsorted(np.sort(lifetimes.times), times, side="left")
    return times, deaths, at_risk


def _greenwood_terms(deaths: Int[np.ndarray, "event"], at_risk: Int[np.ndarray, "event"]) -> Float[np.ndarray, "event"]:
    """d / (n (n - d)); zero after the last death, where survival is zero and has no error."""
    survivors = at_risk - deaths
    return np.where(survivors > 0, deaths / (at_risk * np.maximum(survivors, 1)), 0.0)


def _check_horizon(lifetimes: Lifetimes, horizon: float) -> None:
    last = lifetimes.times.max()
    if not horizon > 0:
        raise ValueError(f"the horizon must be positive, found {horizon}")
    if horizon > last and not lifetimes.broken[lifetimes.times == last].all():
        raise ValueError(f"no replica was followed up to the horizon {horizon:g}: choose one of at most {last:g}")


def _areas(
    lifetimes: Lifetimes, counts: Int[np.ndarray, "resample replica"], horizon: float
) -> Float[np.ndarray, "resample"]:
    """Restricted means of resamples, given how often each contains each replica.

    Ties need no grouping: the factors of deaths at one time telescope, provided that deaths come before censorings.
    A resample whose last replica is censored early keeps its survival up to the horizon.
    """
    order = np.lexsort((~lifetimes.broken, lifetimes.times))
    counts = counts[:, order]
    at_risk = counts[:, ::-1].cumsum(1)[:, ::-1]
    factors = 1 - counts * lifetimes.broken[order] / np.maximum(at_risk, 1)
    survival = np.concatenate([np.ones((len(counts), 1)), np.cumprod(factors, axis=1)], axis=1)
    edges = np.minimum(np.concatenate([[0.0], lifetimes.times[order], [np.inf]]), horizon)
    return survival @ np.diff(edges)
