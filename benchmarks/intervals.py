"""Coverage of the intervals of mean stable times and their ratios, by simulation.

    python benchmarks/intervals.py --sets 1500
    python benchmarks/intervals.py --sets 1500 --replicas 24 --compare

Lifetimes are Weibull distributed (shape 0.7: the hazard falls with time; 1: constant; 2: it rises), their scale is set
by the fraction that is stable to the horizon ("0.00": all break, long before it). Each case is simulated ``--sets``
times. The table gives the percentage of intervals that contain the exact value, and of those that lie above and below
it. Pairs share initial conditions: a Gaussian copula with correlation 0.3. The scales of runs are lognormal with the
given spread. ``--compare`` adds what mean ± 1.96 standard errors, percentiles of a bootstrap of pairs and a two-level
bootstrap would cover.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats

from mdsim.reporting.console import format_table
from mdsim.stability.intervals import Interval
from mdsim.stability.stable_times import (
    restricted_mean_interval,
    restricted_mean_over_groups,
    restricted_mean_ratio,
    restricted_mean_ratio_over_groups,
)
from mdsim.stability.survival import Lifetimes, restricted_mean, restricted_means

HORIZON = 20.0
ALL_BREAK = 1e-9  # stable fraction of the cases in which all replicas break
CORRELATION = 0.3  # of the pairs
SHAPES = (0.7, 1.0, 2.0)
FRACTIONS = (ALL_BREAK, 0.1, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
PAIRS = ((ALL_BREAK, 1e-4), (ALL_BREAK, 0.1), (ALL_BREAK, 0.5), (ALL_BREAK, 1.0))
PAIRS += ((0.1, 0.1), (0.1, 0.9), (0.5, 0.5), (0.5, 0.9), (0.9, 1.0), (1.0, 0.9), (1.0, 1.0))
RUNS = (2, 3, 5)
RUN_SPREADS = (0.0, 0.3, 0.8)
TABLES = ["restricted mean of one evaluation", "ratio of a pair", "over runs"]
COVERED = "covered (above, below) %"

Measured = list[Interval]  # of each quantity by each method


@dataclass(frozen=True)
class Lifetime:
    """A Weibull distribution of lifetimes of which a given fraction exceeds the horizon."""

    shape: float
    stable: float

    @property
    def scale(self) -> float:
        return HORIZON / (-np.log(self.stable)) ** (1 / self.shape) if self.stable < 1 else np.inf

    def of(self, normal: np.ndarray, factor: np.ndarray | float = 1.0) -> np.ndarray:
        """Lifetimes with the ranks of standard normal numbers."""
        return self.scale * factor * (-scipy.special.log_ndtr(normal)) ** (1 / self.shape)

    def restricted_mean(self, factor: float = 1.0) -> float:
        """∫ exp(-(t/λ)^k) dt up to the horizon, an incomplete gamma function."""
        if self.stable == 1:
            return HORIZON
        scale, a = self.scale * factor, 1 / self.shape
        return float(scale * a * scipy.special.gamma(a) * scipy.special.gammainc(a, (HORIZON / scale) ** self.shape))

    def mean_over_runs(self, spread: float) -> float:
        """Restricted mean over runs whose scales are lognormal."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        means = [self.restricted_mean(float(np.exp(spread * node))) for node in nodes]
        return float(weights @ means / weights.sum())


def followed(times: np.ndarray) -> Lifetimes:
    """Censored at the horizon."""
    return Lifetimes(np.minimum(times, HORIZON), times < HORIZON)


def correlated(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = rng.standard_normal((2, *shape))
    return first, CORRELATION * first + np.sqrt(1 - CORRELATION**2) * second


def normal_interval(lifetimes: Lifetimes) -> Interval:
    """Mean ± 1.96 standard errors, within zero and the horizon."""
    mean = restricted_mean(lifetimes, HORIZON)
    spread = 1.96 * mean.standard_error
    return Interval(mean.value, max(0.0, mean.value - spread), min(HORIZON, mean.value + spread))


def percentile_ratio(before: Lifetimes, after: Lifetimes, rng: np.random.Generator, n_draws: int) -> Interval:
    """Percentiles of a bootstrap of pairs."""
    n = len(before.times)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(float)
    ratios = restricted_means(after, counts, HORIZON) / restricted_means(before, counts, HORIZON)
    return Interval(np.nan, *np.quantile(ratios, [0.025, 0.975]))


def percentile_groups(
    before: np.ndarray, after: np.ndarray, rng: np.random.Generator, n_draws: int
) -> tuple[Interval, Interval]:
    """Percentiles of a bootstrap of groups and of the replicas within each drawn group."""
    n_groups, n = before.shape
    totals = np.zeros((2, n_draws))
    for _ in range(n_groups):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=n_draws)
        drawn = rng.integers(n_groups, size=n_draws)
        totals += np.stack([(counts * np.minimum(each[drawn], HORIZON)).sum(1) for each in (before, after)])
    bounds = [np.quantile(x, [0.025, 0.975]) for x in (totals[1] / (n_groups * n), totals[1] / totals[0])]
    return Interval(np.nan, *bounds[0]), Interval(np.nan, *bounds[1])


@dataclass(frozen=True)
class Simulation:
    """Settings of the simulated sets."""

    rng: np.random.Generator
    sets: int
    draws: int
    compare: bool

    def coverage(self, one: Callable[[], Measured], exact: list[float]) -> list[str]:
        """Percentage of intervals that contain the exact value, with those above and below it, of each quantity."""
        found = [one() for _ in range(self.sets)]
        return [summary([measured[i] for measured in found], value) for i, value in enumerate(exact)]

    def single(self, lifetime: Lifetime, n: int) -> list[str]:
        def one() -> Measured:
            observed = followed(lifetime.of(self.rng.standard_normal(n)))
            measured = [restricted_mean_interval(observed, HORIZON, rng=self.rng, n_draws=self.draws)]
            return [*measured, normal_interval(observed)] if self.compare else measured

        return self.coverage(one, [lifetime.restricted_mean()] * (1 + self.compare))

    def ratio(self, before: Lifetime, after: Lifetime, n: int) -> list[str]:
        def one() -> Measured:
            first, second = correlated(self.rng, n)
            pair = followed(before.of(first)), followed(after.of(second))
            measured = [restricted_mean_ratio(*pair, HORIZON, rng=self.rng, n_draws=self.draws)]
            return [*measured, percentile_ratio(*pair, self.rng, self.draws)] if self.compare else measured

        return self.coverage(one, [after.restricted_mean() / before.restricted_mean()] * (1 + self.compare))

    def groups(self, before: Lifetime, after: Lifetime, n: int, runs: int, spread: float) -> list[str]:
        """Of the mean and of the ratio."""

        def one() -> Measured:
            first, second = correlated(self.rng, runs, n)
            was, now = before.of(first), after.of(second, np.exp(spread * self.rng.standard_normal((runs, 1))))
            pairs = [followed(x) for x in was], [followed(x) for x in now]
            measured = [
                restricted_mean_over_groups(pairs[1], HORIZON, rng=self.rng, n_draws=self.draws),
                restricted_mean_ratio_over_groups(*pairs, HORIZON, rng=self.rng, n_draws=self.draws),
            ]
            return [*measured, *percentile_groups(was, now, self.rng, self.draws)] if self.compare else measured

        exact = after.mean_over_runs(spread)
        return self.coverage(one, [exact, exact / before.restricted_mean()] * (1 + self.compare))


def summary(intervals: Measured, exact: float) -> str:
    above = 100 * np.mean([interval.low > exact * (1 + 1e-12) for interval in intervals])
    below = 100 * np.mean([interval.high < exact * (1 - 1e-12) for interval in intervals])
    return f"{100 - above - below:.1f} ({above:.1f}, {below:.1f})"


def means(simulation: Simulation, replicas: list[int]) -> Iterator[list[str]]:
    for n, shape, stable in itertools.product(replicas, SHAPES, FRACTIONS):
        if stable < 1 or shape == 1:  # nobody breaks, whatever the shape
            yield [str(n), f"{shape:g}", f"{stable:.2f}", *simulation.single(Lifetime(shape, stable), n)]


def ratios(simulation: Simulation, replicas: list[int]) -> Iterator[list[str]]:
    for n, shape, (old, new) in itertools.product(replicas, SHAPES, PAIRS):
        found = simulation.ratio(Lifetime(shape, old), Lifetime(shape, new), n)
        yield [str(n), f"{shape:g}", f"{old:.2f} → {new:.2f}", *found]


def over_groups(simulation: Simulation, replicas: list[int]) -> Iterator[list[str]]:
    for n, runs, spread, new in itertools.product(replicas, RUNS, RUN_SPREADS, (0.1, 0.5, 0.95)):
        lifetimes = Lifetime(1.0, ALL_BREAK), Lifetime(1.0, new)
        yield [str(n), str(runs), f"{spread:g}", f"{new:.2f}", *simulation.groups(*lifetimes, n, runs, spread)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1500, help="simulated evaluations of each case")
    parser.add_argument("--draws", type=int, default=1000, help="draws of each interval")
    parser.add_argument("--replicas", nargs="+", type=int, default=[8, 16, 24])
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--compare", action="store_true", help="also the intervals that are too narrow")
    arguments = parser.parse_args()
    simulation = Simulation(np.random.default_rng(0), arguments.sets, arguments.draws, arguments.compare)
    usual = ["usual"] if arguments.compare else []
    tables = {
        "restricted mean of one evaluation": (means, ["n", "shape", "stable", COVERED, *usual]),
        "ratio of a pair": (ratios, ["n", "shape", "stable", COVERED, *usual]),
        "over runs": (
            over_groups,
            ["n", "runs", "spread", "stable", *(f"{q} {c}" for c in [COVERED, *usual] for q in ("mean", "ratio"))],
        ),
    }
    for title in arguments.tables:
        rows, header = tables[title]
        print(f"{title}\n{format_table(header, list(rows(simulation, arguments.replicas)))}\n", flush=True)


if __name__ == "__main__":
    main()
