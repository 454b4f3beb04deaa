"""Survival analysis of replicas: right-censored lifetimes, their survival curve, its restricted mean and median.

A replica that is still stable when its simulation ends is *censored*: its lifetime is at least that long. An average
that ignores censoring is biased. The Kaplan-Meier estimator accounts for it. Confidence intervals of restricted
means are in `mdsim.stability.stable_times`.
Sources: Kaplan & Meier, JASA 53, 457 (1958); Greenwood (1926); Klein & Moeschberger, Survival Analysis (2003), ch. 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Lifetimes:
    """Time to which each replica was followed, and whether it broke then (otherwise it is censored)."""

    times: Float[np.ndarray, "replica"]
    broken: Bool[np.ndarray, "replica"]

    def __post_init__(self) -> None:
        if not len(self.times):
            raise ValueError("lifetimes need at least one replica, found none")
        if not np.isfinite(self.times).all() or (self.times < 0).any():
            raise ValueError("lifetimes must be finite and not negative; a replica that did not break is censored")

    @classmethod
    def together(cls, groups: Sequence[Lifetimes]) -> Lifetimes:
        """All replicas of several groups."""
        if not groups:
            raise ValueError("lifetimes need at least one group, found none")
        return cls(np.concatenate([g.times for g in groups]), np.concatenate([g.broken for g in groups]))


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
        ValueError: no replica was followed up to the horizon, although some had not broken.

    Source: Klein & Moeschberger (2003), equations 4.5.1 and 4.5.2.
    """
    check_horizon(lifetimes, horizon)
    times, deaths, at_risk = _events(lifetimes)
    before = times < horizon
    times, deaths, at_risk = times[before], deaths[before], at_risk[before]
    survival = np.append(1.0, np.cumprod(1 - deaths / at_risk))
    areas = survival * np.diff(np.concatenate([[0.0], times, [horizon]]))
    remaining = areas.sum() - np.cumsum(areas)[:-1]  # area to the right of each event
    variance = (remaining**2 * _greenwood_terms(deaths, at_risk)).sum()
    return Estimate(float(areas.sum()), float(np.sqrt(variance)))


def median_survival(lifetimes: Lifetimes) -> float | None:
    """First time at which at most half of the replicas are stable. None if it was not reached."""
    curve = kaplan_meier(lifetimes)
    reached = curve.survival <= 0.5 + 1e-12  # rounding of the product of fractions
    return float(curve.times[reached.argmax()]) if reached.any() else None


def _events(
    lifetimes: Lifetimes,
) -> tuple[Float[np.ndarray, "event"], Int[np.ndarray, "event"], Int[np.ndarray, "event"]]:
    """Distinct times at which replicas broke, the number that broke, and the number followed up to then."""
    times, deaths = np.unique(lifetimes.times[lifetimes.broken], return_counts=True)
    at_risk = len(lifetimes.times) - np.searchsorted(np.sort(lifetimes.times), times, side="left")
    return times, deaths, at_risk


def _greenwood_terms(deaths: Int[np.ndarray, "event"], at_risk: Int[np.ndarray, "event"]) -> Float[np.ndarray, "event"]:
    """d / (n (n - d)). Zero after the last break, where survival is zero without error."""
    survivors = at_risk - deaths
    return np.where(survivors > 0, deaths / (at_risk * np.maximum(survivors, 1)), 0.0)


def check_horizon(lifetimes: Lifetimes, horizon: float) -> None:
    """Raise an error for a horizon beyond the followed times, unless all replicas had broken."""
    last = lifetimes.times.max()
    if not horizon > 0:
        raise ValueError(f"the horizon must be positive, found {horizon}")
    if horizon > last and not lifetimes.broken[lifetimes.times == last].all():
        raise ValueError(f"no replica was followed up to the horizon {horizon:g}: choose one of at most {last:g}")


def restricted_means(
    lifetimes: Lifetimes, weights: Float[np.ndarray, "draw replica"], horizon: float
) -> Float[np.ndarray, "draw"]:
    """Restricted means for draws of replica weights: the area under each weighted survival curve.

    Ties need no grouping: the factors of breaks at one time telescope if breaks are sorted before censorings.
    If the last replica of a draw is censored early, the survival stays constant up to the horizon.
    """
    order = np.lexsort((~lifetimes.broken, lifetimes.times))
    survival = _weighted_survival(lifetimes, weights, order)
    edges = np.minimum(np.concatenate([[0.0], lifetimes.times[order], [np.inf]]), horizon)
    return survival @ np.diff(edges)


def survivals(
    lifetimes: Lifetimes, weights: Float[np.ndarray, "draw replica"], times: Float[np.ndarray, "time"]
) -> Float[np.ndarray, "draw time"]:
    """Survival beyond the given times for draws of replica weights."""
    order = np.lexsort((~lifetimes.broken, lifetimes.times))
    survival = _weighted_survival(lifetimes, weights, order)
    return survival[:, np.searchsorted(lifetimes.times[order], times, side="right")]


def _weighted_survival(
    lifetimes: Lifetimes, weights: Float[np.ndarray, "draw replica"], order: Int[np.ndarray, "replica"]
) -> Float[np.ndarray, "draw replica+1"]:
    """Survival before the first replica and after each one, in the given order."""
    weights = weights[:, order]
    at_risk = weights[:, ::-1].cumsum(1)[:, ::-1]
    hazards = weights * lifetimes.broken[order] / np.where(at_risk > 0, at_risk, 1)
    return np.concatenate([np.ones((len(weights), 1)), np.cumprod(1 - hazards, axis=1)], axis=1)
