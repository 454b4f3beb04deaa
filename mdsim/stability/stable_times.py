"""Confidence intervals of mean stable times: of one evaluation, of a pair of them, and of groups (runs).

A mean ± 1.96 standard errors, and percentiles of a bootstrap, are too narrow for two dozen replicas, because they give
no weight to unobserved outcomes. If all replicas are stable, both have zero width. This module uses a Bayesian
bootstrap with a pseudo-replica. In each draw the replicas have independent exponential weights (Rubin 1981; the
survival curve of weighted replicas: Lo 1993), and an added pseudo-replica represents unobserved outcomes. For the lower
bound it breaks at once. For the upper bound it outlives all others. If all lifetimes are zero or the horizon, and the
pseudo-replica has the weight of a replica, this is the Clopper-Pearson interval of a proportion (Gaffke 2005). For the
lower bound half a replica is sufficient, because few lifetimes are zero. `benchmarks/intervals.py` shows the coverage.

Sources: Rubin, Ann. Stat. 9, 130 (1981); Lo, Ann. Stat. 21, 100 (1993); Gaffke, Statistica Neerlandica 59, 234 (2005);
Fay, Brittain & Proschan, Biostatistics 14, 723 (2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float

from mdsim.stability.intervals import Interval
from mdsim.stability.survival import (
    Lifetimes,
    check_horizon,
    kaplan_meier,
    restricted_mean,
    restricted_means,
    survivals,
)

METHOD = "Bayesian bootstrap with a pseudo-replica"
GROUPS_METHOD = f"the wider of Student's t over runs and {METHOD} of all replicas"

N_DRAWS = 9999
BREAKS_AT_ONCE = 0.5  # mean weight of the pseudo-replica of a lower bound, in replicas
OUTLIVES_ALL = 1.0  # the same for an upper bound
RESIDUAL_LIFE = 2.0  # time by which it outlives the last broken replica, in restricted means


def restricted_mean_interval(
    lifetimes: Lifetimes,
    horizon: float,
    *,
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
    confidence: float = 0.95,
) -> Interval:
    """The mean of min(lifetime, horizon) with its interval.

    Args:
        lifetimes: lifetimes of independent replicas.
        horizon: horizon in the unit of the times; where all replicas broke it may be any later time.
        rng: source of the weights.
        n_draws: number of draws of weights.
        confidence: confidence level of the interval.

    Raises:
        ValueError: an unreachable horizon.
    """
    check_horizon(lifetimes, horizon)
    mean = restricted_mean(lifetimes, horizon).value
    draws = _draw(lifetimes, horizon, _exponential(rng, n_draws, lifetimes), _unseen(rng, n_draws))
    return Interval(mean, _low(draws.low, confidence), _high(draws.high, confidence))


def restricted_mean_ratio(
    before: Lifetimes,
    after: Lifetimes,
    horizon: float,
    *,
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
    confidence: float = 0.95,
) -> Interval:
    """Ratio of the mean stable times of the same replicas, after over before.

    Replica i of both has the same initial conditions, and so the same weight in each draw. For the lower bound the
    pseudo-replica breaks at once after and outlives all before; for the upper bound it is the reverse.

    Args:
        before, after: lifetimes of the same replicas in the same order.
        horizon: horizon of the restricted means, in the unit of the times.
        rng: source of the weights.
        n_draws: number of draws of weights.
        confidence: confidence level of the interval.

    Raises:
        ValueError: different numbers of replicas, an unreachable horizon, or every replica broke at once before.
    """
    _check_pair(before, after)
    check_horizon(before, horizon)
    check_horizon(after, horizon)
    old, new = (restricted_mean(lifetimes, horizon).value for lifetimes in (before, after))
    _check_some_time(old)
    weights, unseen = _exponential(rng, n_draws, before), _unseen(rng, n_draws)
    was, is_now = (_draw(lifetimes, horizon, weights, unseen) for lifetimes in (before, after))
    return Interval(new / old, _low(is_now.low / was.high, confidence), _high(is_now.high / was.low, confidence))


def restricted_mean_over_groups(
    groups: Sequence[Lifetimes],
    horizon: float,
    *,
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
    confidence: float = 0.95,
) -> Interval:
    """Restricted mean over groups of replicas (runs with different seeds).

    Runs differ by more than their replicas do. The interval is Student's t over the means of the groups, on the scale
    of their logit (as fractions of the horizon). Groups that agree by chance would make it too narrow. Each bound is
    therefore at least as far from the mean as that of all replicas pooled. One group alone gives the pooled interval.
    With two groups the interval is very wide.

    Args:
        groups: lifetimes of replicas.
        horizon: horizon in the unit of the times.
        rng: source of the weights.
        n_draws: number of draws of weights.
        confidence: confidence level of the interval.

    Raises:
        ValueError: no group, or an unreachable horizon.
    """
    everyone = restricted_mean_interval(
        Lifetimes.together(groups), horizon, rng=rng, n_draws=n_draws, confidence=confidence
    )
    means = _means(groups, horizon)
    return _widened(float(means.mean()), everyone, _logit_bounds(means, horizon, confidence))


def restricted_mean_ratio_over_groups(
    before: Sequence[Lifetimes],
    after: Sequence[Lifetimes],
    horizon: float,
    *,
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
    confidence: float = 0.95,
) -> Interval:
    """Ratio of mean stable times, after over before, over groups of replicas (runs with different seeds).

    The method is that of `restricted_mean_over_groups`, for the logarithm of the ratio of the means over groups.

    Args:
        before, after: lifetimes of the same replicas in the same order, group by group.
        horizon: horizon of the restricted means, in the unit of the times.
        rng: source of the weights.
        n_draws: number of draws of weights.
        confidence: confidence level of the interval.

    Raises:
        ValueError: groups that do not form pairs, an unreachable horizon, or every replica broke at once before.
    """
    if len(before) != len(after):
        raise ValueError(f"the groups must be pairs: found {len(before)} before and {len(after)} after")
    for pair in zip(before, after, strict=True):
        _check_pair(*pair)
    old, new = _means(before, horizon), _means(after, horizon)
    pooled = Lifetimes.together(before), Lifetimes.together(after)
    everyone = restricted_mean_ratio(*pooled, horizon, rng=rng, n_draws=n_draws, confidence=confidence)
    return _widened(float(new.mean() / old.mean()), everyone, _log_ratio_bounds(old, new, confidence))


def survival_band(
    lifetimes: Lifetimes,
    times: Float[np.ndarray, "time"],
    *,
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
    confidence: float = 0.95,
) -> tuple[Float[np.ndarray, "time"], Float[np.ndarray, "time"]]:
    """Bounds of the survival beyond each time. Without earlier censoring they are those of Clopper and Pearson.

    Source: Fay, Brittain & Proschan (2013), with the pseudo-replica of the lower bound at time zero.
    """
    weights, unseen = _exponential(rng, n_draws, lifetimes), rng.standard_exponential(n_draws)
    end = max(float(lifetimes.times.max()), float(np.max(times))) + 1.0
    low = survivals(_and_one(lifetimes, 0.0), _with(weights, unseen), times)
    high = survivals(_and_one(lifetimes, end), _with(weights, unseen), times)
    tail = (1 - confidence) / 2
    return np.quantile(low, tail, axis=0), np.quantile(high, 1 - tail, axis=0)


def survival_with_band(
    lifetimes: Lifetimes, end: float, *, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "time"], Float[np.ndarray, "time"], Float[np.ndarray, "time"], Float[np.ndarray, "time"]]:
    """Kaplan-Meier curve from time zero to the end, as times, survival, and its 95 % bounds."""
    curve = kaplan_meier(lifetimes)
    times = np.concatenate([[0.0], curve.times, [end]])
    survival = np.concatenate([[1.0], curve.survival, curve.survival[-1:] if len(curve.survival) else [1.0]])
    return times, survival, *survival_band(lifetimes, times, rng=rng)


@dataclass(frozen=True)
class _Draws:
    """Restricted means with the pseudo-replica that breaks at once, and with the one that outlives all others."""

    low: Float[np.ndarray, "draw"]
    high: Float[np.ndarray, "draw"]


def _draw(lifetimes: Lifetimes, horizon: float, weights: np.ndarray, unseen: tuple[np.ndarray, np.ndarray]) -> _Draws:
    short, long = unseen
    longest = _longest(lifetimes, horizon)
    return _Draws(
        restricted_means(_and_one(lifetimes, 0.0), _with(weights, short), horizon),
        restricted_means(_and_one(lifetimes, longest), _with(weights, long), horizon),
    )


def _longest(lifetimes: Lifetimes, horizon: float) -> float:
    """Time at which the pseudo-replica that outlives all others breaks: the horizon, or later than the last break."""
    last = lifetimes.times.max()
    if not lifetimes.broken[lifetimes.times == last].all():
        return horizon
    return min(horizon, float(last) + RESIDUAL_LIFE * restricted_mean(lifetimes, horizon).value)


def _exponential(rng: np.random.Generator, n_draws: int, lifetimes: Lifetimes) -> Float[np.ndarray, "draw replica"]:
    return rng.standard_exponential((n_draws, len(lifetimes.times)))


def _unseen(rng: np.random.Generator, n_draws: int) -> tuple[Float[np.ndarray, "draw"], Float[np.ndarray, "draw"]]:
    """Weights of the pseudo-replicas that break at once, and that outlive all others."""
    return rng.standard_gamma(BREAKS_AT_ONCE, n_draws), rng.standard_gamma(OUTLIVES_ALL, n_draws)


def _and_one(lifetimes: Lifetimes, time: float) -> Lifetimes:
    """The replicas, and a pseudo-replica at the end that breaks at the given time."""
    return Lifetimes(np.append(lifetimes.times, time), np.append(lifetimes.broken, True))


def _with(weights: Float[np.ndarray, "draw replica"], one: Float[np.ndarray, "draw"]) -> np.ndarray:
    return np.concatenate([weights, one[:, None]], axis=1)


def _low(draws: Float[np.ndarray, "draw"], confidence: float) -> float:
    return float(np.quantile(draws, (1 - confidence) / 2))


def _high(draws: Float[np.ndarray, "draw"], confidence: float) -> float:
    return float(np.quantile(draws, (1 + confidence) / 2))


def _means(groups: Sequence[Lifetimes], horizon: float) -> Float[np.ndarray, "group"]:
    return np.array([restricted_mean(group, horizon).value for group in groups])


def _logit_bounds(means: Float[np.ndarray, "group"], horizon: float, confidence: float) -> tuple[float, float] | None:
    """Student's t over groups on the scale of the logit. None for a single group, or without a finite logit."""
    fraction = means.mean() / horizon
    if len(means) < 2 or not 0 < fraction < 1:
        return None
    half = _student(means, confidence) / (horizon * fraction * (1 - fraction))
    center = scipy.special.logit(fraction)
    return float(horizon * scipy.special.expit(center - half)), float(horizon * scipy.special.expit(center + half))


def _log_ratio_bounds(
    before: Float[np.ndarray, "group"], after: Float[np.ndarray, "group"], confidence: float
) -> tuple[float, float] | None:
    """Student's t over groups of the linearized logarithm of the ratio of means."""
    if len(before) < 2 or after.mean() == 0:
        return None
    half = _student(after / after.mean() - before / before.mean(), confidence)
    ratio = after.mean() / before.mean()
    return float(ratio * np.exp(-half)), float(ratio * np.exp(half))


def _student(values: Float[np.ndarray, "group"], confidence: float) -> float:
    """Half-width of Student's interval of the mean."""
    n = len(values)
    return float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))


def _widened(estimate: float, interval: Interval, bounds: tuple[float, float] | None) -> Interval:
    low, high = bounds or (interval.low, interval.high)
    return Interval(estimate, min(interval.low, low), max(interval.high, high))


def _check_pair(before: Lifetimes, after: Lifetimes) -> None:
    if len(before.times) != len(after.times):
        raise ValueError(
            f"the replicas must be the same: found {len(before.times)} before and {len(after.times)} after"
        )


def _check_some_time(mean_before: float) -> None:
    if mean_before == 0:
        raise ValueError("every replica broke at time zero before: a ratio has no meaning, compare differences")
