"""Intervals of mean stable times against closed forms and by their coverage in simulated evaluations."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from mdsim.stability.stable_times import (
    restricted_mean_interval,
    restricted_mean_over_groups,
    restricted_mean_ratio,
    restricted_mean_ratio_over_groups,
    survival_band,
)
from mdsim.stability.survival import Lifetimes, kaplan_meier, restricted_mean

HORIZON = 20.0
SETS = 1500
DRAWS = 400
NEARLY_NONE = 1e-9  # stable fraction where all break


def lifetimes(times, broken=None) -> Lifetimes:
    times = np.asarray(times, dtype=np.float64)
    return Lifetimes(times, np.ones(len(times), dtype=bool) if broken is None else np.asarray(broken, dtype=bool))


def stable(n: int) -> Lifetimes:
    return lifetimes(np.full(n, HORIZON), np.zeros(n))


def followed(times) -> Lifetimes:
    return lifetimes(np.minimum(times, HORIZON), times < HORIZON)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# ------------------------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("n", [8, 24])
def test_when_none_breaks_the_lower_bound_is_a_beta_quantile(rng, n):
    """The stable replicas weigh n, the pseudo-replica that breaks at once one half."""
    found = restricted_mean_interval(stable(n), HORIZON, rng=rng, n_draws=200_000)
    assert (found.estimate, found.high) == (HORIZON, HORIZON)
    assert found.low == pytest.approx(HORIZON * scipy.stats.beta.ppf(0.025, n, 0.5), rel=3e-3)
    assert found.low > HORIZON * 0.025 ** (1 / n), "not beyond Clopper and Pearson's"


@pytest.mark.parametrize("broken", [1, 12, 23])
def test_a_proportion(rng, broken):
    """Lifetimes of zero or the horizon: the upper bound is Clopper and Pearson's, the lower one a little above it."""
    n = 24
    two = lifetimes(np.repeat([0.0, HORIZON], [broken, n - broken]), np.repeat([True, False], [broken, n - broken]))
    found = restricted_mean_interval(two, HORIZON, rng=rng, n_draws=200_000)
    exact = scipy.stats.binomtest(n - broken, n).proportion_ci(method="exact")
    assert found.high == pytest.approx(HORIZON * exact.high, rel=5e-3)
    assert found.low == pytest.approx(HORIZON * scipy.stats.beta.ppf(0.025, n - broken, broken + 0.5), rel=2e-2)
    assert found.low > HORIZON * exact.low


def test_many_replicas_have_the_normal_interval(rng):
    life, censoring = rng.exponential(5.0, 1000), rng.uniform(2, 40, 1000)
    many = lifetimes(np.minimum(life, censoring), life <= censoring)
    found, mean = restricted_mean_interval(many, 15.0, rng=rng, n_draws=2000), restricted_mean(many, 15.0)
    assert found.estimate == mean.value
    expected = mean.value + 1.96 * mean.standard_error * np.array([-1, 1])
    assert (found.low, found.high) == pytest.approx(expected, abs=0.2 * mean.standard_error)


def test_a_horizon_far_beyond_the_last_break_changes_nothing(rng):
    times = lifetimes(rng.exponential(1.0, 24))
    found = [restricted_mean_interval(times, h, rng=np.random.default_rng(0)) for h in (1e2, 1e6)]
    assert found[0] == found[1]
    assert found[0].high < 3 * found[0].estimate


def test_the_ratio_without_a_break_on_either_side(rng):
    """Either side may have as many unseen breaks as the other."""
    found = restricted_mean_ratio(stable(24), stable(24), HORIZON, rng=rng, n_draws=100_000)
    one_side = scipy.stats.beta.ppf(0.025, 24, 0.5)
    assert found.estimate == 1.0
    assert found.low == pytest.approx(one_side, rel=3e-3) and found.high == pytest.approx(1 / one_side, rel=3e-3)


def test_the_ratio_is_that_of_restricted_means_and_paired(rng):
    before = lifetimes(rng.exponential(5.0, 200))
    after = lifetimes(2 * before.times)
    found = restricted_mean_ratio(before, after, 8.0, rng=rng)
    expected = restricted_mean(after, 8.0).value / restricted_mean(before, 8.0).value
    assert found.estimate == pytest.approx(expected, rel=1e-12)
    assert found.low < found.estimate < found.high
    shuffled = lifetimes(rng.permutation(after.times))
    unpaired = restricted_mean_ratio(before, shuffled, 8.0, rng=rng)
    assert found.high - found.low < 0.8 * (unpaired.high - unpaired.low)


def test_ratio_refusals(rng):
    with pytest.raises(ValueError, match="3 before and 2 after"):
        restricted_mean_ratio(lifetimes([1, 2, 3]), lifetimes([1, 2]), 1.0, rng=rng)
    with pytest.raises(ValueError, match="time zero"):
        restricted_mean_ratio(lifetimes([0, 0]), lifetimes([1, 2]), 1.0, rng=rng)


def test_one_group_is_its_replicas():
    before, after = lifetimes([1.0, 2.0, 5.0]), lifetimes([4.0, 9.0, 20.0], [True, True, False])
    seeds = [np.random.default_rng(0) for _ in range(4)]
    assert restricted_mean_over_groups([after], HORIZON, rng=seeds[0]) == restricted_mean_interval(
        after, HORIZON, rng=seeds[1]
    )
    assert restricted_mean_ratio_over_groups([before], [after], HORIZON, rng=seeds[2]) == restricted_mean_ratio(
        before, after, HORIZON, rng=seeds[3]
    )


def test_groups_that_differ_widen_the_interval_to_students(rng):
    """Replicas that hardly differ within groups: Student's interval of the logits, by hand."""
    values = np.array([4.0, 7.0, 6.0])
    groups = [lifetimes(value + np.linspace(-0.01, 0.01, 24)) for value in values]
    found = restricted_mean_over_groups(groups, 100.0, rng=rng)
    mean = values.mean()
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3) / (mean * (1 - mean / 100))
    logit = scipy.special.logit(mean / 100)
    assert found.estimate == pytest.approx(mean)
    assert found.low == pytest.approx(100 * scipy.special.expit(logit - half), rel=1e-5)
    assert found.high == pytest.approx(100 * scipy.special.expit(logit + half), rel=1e-5)
    before = [lifetimes(np.full(24, 2.0)) for _ in values]
    ratio = restricted_mean_ratio_over_groups(before, groups, 100.0, rng=rng)
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3) / mean
    assert ratio.estimate == pytest.approx(mean / 2)
    assert (ratio.low, ratio.high) == pytest.approx((mean / 2 * np.exp(-half), mean / 2 * np.exp(half)), rel=1e-5)


def test_groups_that_agree_by_chance_have_the_interval_of_their_replicas(rng):
    groups = [lifetimes(np.linspace(1, 5, 24)) for _ in range(3)]
    found = restricted_mean_over_groups(groups, 100.0, rng=np.random.default_rng(0))
    assert found == restricted_mean_interval(Lifetimes.together(groups), 100.0, rng=np.random.default_rng(0))
    everyone = restricted_mean_over_groups([stable(8)] * 3, HORIZON, rng=rng)
    assert everyone.low < HORIZON == everyone.high


def test_groups_that_are_no_pairs_and_unreached_horizons_are_refused(rng):
    with pytest.raises(ValueError, match="2 before and 3 after"):
        restricted_mean_ratio_over_groups([lifetimes([1, 2])], [lifetimes([1, 2, 3])], 1.0, rng=rng)
    with pytest.raises(ValueError, match="must be pairs: found 1 before and 0 after"):
        restricted_mean_ratio_over_groups([lifetimes([1, 2])], [], 1.0, rng=rng)
    censored = lifetimes([1.0, 2.0], [True, False])
    with pytest.raises(ValueError, match="followed up to the horizon"):
        restricted_mean_over_groups([censored], 5.0, rng=rng)


def test_the_band_of_a_survival_curve_is_clopper_and_pearsons(rng):
    times = lifetimes([1, 2, 2, 3, 20, 20, 20, 20], [1, 1, 1, 1, 0, 0, 0, 0])
    grid = np.array([0.0, 1.0, 2.5, 20.0])
    low, high = survival_band(times, grid, rng=rng, n_draws=100_000)
    for each, (lower, upper) in zip(kaplan_meier(times).at(grid), zip(low, high, strict=True), strict=True):
        exact = scipy.stats.binomtest(round(8 * each), 8).proportion_ci(method="exact")
        assert (lower, upper) == pytest.approx((exact.low, exact.high), abs=5e-3)


# ---------------------------------------------------------------------------------------------------------- coverage


def scale(shape: float, fraction: float) -> float:
    """Of Weibull lifetimes of which the fraction exceeds the horizon."""
    return HORIZON / (-np.log(fraction)) ** (1 / shape) if fraction < 1 else np.inf


def exact_mean(shape: float, fraction: float) -> float:
    """∫ exp(-(t/λ)^k) dt up to the horizon, by quadrature."""
    time = np.linspace(0, HORIZON, 400_001)
    survival = np.exp(-((time / scale(shape, fraction)) ** shape))
    return float(np.trapezoid(survival, time))


def pairs(rng, shape: float, before: float, after: float, n: int, factor: float = 1.0):
    """Replicas that share initial conditions: ranks with correlation 0.3."""
    first, second = rng.standard_normal((2, n))
    second = 0.3 * first + np.sqrt(1 - 0.3**2) * second
    return [
        followed(scale(shape, fraction) * by * (-scipy.special.log_ndtr(z)) ** (1 / shape))
        for fraction, z, by in ((before, first, 1.0), (after, second, factor))
    ]


def check_coverage(intervals, exact: float, at_least: float = 0.95) -> None:
    """Not below the stated coverage by more than three binomial standard errors, and neither bound much more often."""
    n = len(intervals)
    above = sum(interval.low > exact * (1 + 1e-12) for interval in intervals) / n
    below = sum(interval.high < exact * (1 - 1e-12) for interval in intervals) / n
    tolerance = 3 * np.sqrt(at_least * (1 - at_least) / n)
    assert 1 - above - below > at_least - tolerance, f"covers {1 - above - below:.3f} ({above:.3f}, {below:.3f})"
    assert max(above, below) < 1.5 * (1 - at_least) / 2 + tolerance


def the_first_alone(cases: list[tuple]) -> list:
    """All others are slow."""
    return [pytest.param(*case, marks=[pytest.mark.slow] if place else []) for place, case in enumerate(cases)]


MEANS = [
    (24, 0.7, 0.1),
    (24, 0.7, 0.8),
    (24, 1.0, NEARLY_NONE),
    (24, 1.0, 0.5),
    (24, 1.0, 0.95),
    (24, 2.0, 0.9),
    (16, 1.0, 0.99),
    (8, 1.0, 0.1),
    (8, 2.0, 0.5),
]


@pytest.mark.parametrize(("n", "shape", "fraction"), the_first_alone(MEANS))
def test_the_interval_of_a_mean_covers(rng, n, shape, fraction):
    found = [
        restricted_mean_interval(pairs(rng, shape, 1.0, fraction, n)[1], HORIZON, rng=rng, n_draws=DRAWS)
        for _ in range(SETS)
    ]
    check_coverage(found, exact_mean(shape, fraction))


def test_the_interval_covers_where_half_are_followed_for_half_the_time(rng):
    found = []
    for _ in range(SETS):
        life = rng.exponential(scale(1.0, 0.8), 24)
        until = np.where(np.arange(24) % 2, HORIZON, HORIZON / 2)
        observed = lifetimes(np.minimum(life, until), life <= until)
        found.append(restricted_mean_interval(observed, HORIZON, rng=rng, n_draws=DRAWS))
    check_coverage(found, exact_mean(1.0, 0.8))


RATIOS = [
    (24, 0.7, NEARLY_NONE, 0.1),
    (24, 1.0, NEARLY_NONE, 1.0),
    (24, 1.0, 0.5, 0.9),
    (16, 1.0, 1.0, 0.9),
    (8, 1.0, NEARLY_NONE, 0.5),
]


@pytest.mark.parametrize(("n", "shape", "before", "after"), the_first_alone(RATIOS))
def test_the_interval_of_a_ratio_covers(rng, n, shape, before, after):
    found = [
        restricted_mean_ratio(*pairs(rng, shape, before, after, n), HORIZON, rng=rng, n_draws=DRAWS)
        for _ in range(SETS)
    ]
    check_coverage(found, exact_mean(shape, after) / exact_mean(shape, before))


@pytest.mark.parametrize(("runs", "spread", "after"), [(3, 0.0, 0.5), (3, 0.5, 0.9)])
def test_intervals_over_runs_cover(rng, runs, spread, after):
    """Runs whose lifetimes are longer or shorter by a lognormal factor."""
    means, ratios = [], []
    for _ in range(400):
        drawn = [pairs(rng, 1.0, 0.01, after, 12, np.exp(spread * rng.standard_normal())) for _ in range(runs)]
        before, now = zip(*drawn, strict=True)
        means.append(restricted_mean_over_groups(now, HORIZON, rng=rng, n_draws=200))
        ratios.append(restricted_mean_ratio_over_groups(before, now, HORIZON, rng=rng, n_draws=200))
    lives = scale(1.0, after) * np.exp(spread * scipy.stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000))
    exact = float(np.mean(lives * -np.expm1(-HORIZON / lives)))
    check_coverage(means, exact)
    check_coverage(ratios, exact / exact_mean(1.0, 0.01))
