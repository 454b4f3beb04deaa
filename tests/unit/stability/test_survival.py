"""Survival analysis and error bars against scipy, closed forms and repeated experiments."""

import numpy as np
import pytest
import scipy.stats

from mdsim.stability.survival import (
    Lifetimes,
    block_standard_error,
    bootstrap_interval,
    kaplan_meier,
    mean_interval,
    median_survival,
    restricted_mean,
    restricted_mean_over_groups,
    restricted_mean_ratio,
    wilson_interval,
)


def lifetimes(times, broken=None) -> Lifetimes:
    times = np.asarray(times, dtype=np.float64)
    return Lifetimes(times, np.ones(len(times), dtype=bool) if broken is None else np.asarray(broken, dtype=bool))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def censored(rng) -> Lifetimes:
    """Rounded, so that deaths and censorings are tied."""
    life, followed = rng.exponential(5.0, 60).round(), rng.uniform(2, 12, 60).round()
    return lifetimes(np.minimum(life, followed), life <= followed)


def test_kaplan_meier_against_scipy(censored):
    data = scipy.stats.CensoredData.right_censored(censored.times, ~censored.broken)
    expected = scipy.stats.ecdf(data).sf
    grid = np.linspace(0, 14, 200)
    np.testing.assert_allclose(kaplan_meier(censored).at(grid), expected.evaluate(grid), rtol=1e-12, atol=1e-15)


def test_kaplan_meier_by_hand():
    """Deaths at 1, 3, 3 and 5, censored at 2 and at 3: the censored one at 3 is still at risk there."""
    curve = kaplan_meier(lifetimes([1, 2, 3, 3, 3, 5], [1, 0, 1, 1, 0, 1]))
    assert curve.times.tolist() == [1, 3, 5]
    np.testing.assert_allclose(curve.survival, [5 / 6, 5 / 6 * 2 / 4, 0])
    variance = (5 / 12) ** 2 * (1 / (6 * 5) + 2 / (4 * 2))
    np.testing.assert_allclose(curve.standard_error, [np.sqrt(5 / 216), np.sqrt(variance), 0])


def test_without_censoring_it_is_the_empirical_survival(rng):
    times = rng.exponential(1.0, 50)
    curve = kaplan_meier(lifetimes(times))
    grid = np.linspace(0, 4, 100)
    np.testing.assert_allclose(curve.at(grid), (times[:, None] > grid).mean(0), atol=1e-12)
    p = curve.survival
    np.testing.assert_allclose(curve.standard_error, np.sqrt(np.maximum(p * (1 - p), 0) / 50), atol=1e-9)


@pytest.mark.parametrize("horizon", [0.5, 2.0, 100.0])
def test_restricted_mean_without_censoring_is_the_mean_of_the_minimum(rng, horizon):
    times = rng.exponential(1.0, 50)
    found = restricted_mean(lifetimes(times), horizon)
    capped = np.minimum(times, horizon)
    assert found.value == pytest.approx(capped.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(capped.std() / np.sqrt(50), rel=1e-9)


def test_nobody_broke():
    everyone = lifetimes([10.0] * 4, [False] * 4)
    assert restricted_mean(everyone, 10.0).value == 10.0
    assert restricted_mean(everyone, 10.0).standard_error == 0.0
    assert median_survival(everyone) is None
    assert kaplan_meier(everyone).at(np.array([5.0])).tolist() == [1.0]


def test_exponential_lifetimes_with_censoring(rng):
    """Restricted mean (1 - e^(-kτ))/k: no bias, and the stated errors are the scatter."""
    n_experiments, n_replicas, horizon, rate = 400, 80, 2.0, 0.7
    exact = (1 - np.exp(-rate * horizon)) / rate
    z = []
    for _ in range(n_experiments):
        life, followed = rng.exponential(1 / rate, n_replicas), rng.uniform(0.5, 6.0, n_replicas)
        found = restricted_mean(lifetimes(np.minimum(life, followed), life <= followed), horizon)
        z.append((found.value - exact) / found.standard_error)
    assert abs(np.mean(z)) < 4 / np.sqrt(n_experiments) + 0.05  # the ratio has a small bias of its own
    assert np.std(z) == pytest.approx(1.0, abs=0.15)


def test_counting_censored_replicas_as_broken_would_be_seen(rng):
    life, followed = rng.exponential(1.0, 4000), rng.uniform(0.2, 4.0, 4000)
    times = np.minimum(life, followed)
    exact = 1 - np.exp(-2.0)
    found = restricted_mean(lifetimes(times, life <= followed), 2.0)
    naive = restricted_mean(lifetimes(times), 2.0)
    assert abs(found.value - exact) < 4 * found.standard_error
    assert abs(naive.value - exact) > 8 * naive.standard_error


def test_a_horizon_beyond_the_data_is_refused():
    with pytest.raises(ValueError, match="choose one of at most 3"):
        restricted_mean(lifetimes([1, 3], [True, False]), 4.0)
    assert restricted_mean(lifetimes([1, 3], [True, True]), 4.0).value == 2.0
    with pytest.raises(ValueError, match="must be positive"):
        restricted_mean(lifetimes([1, 3]), 0.0)


def test_median():
    assert median_survival(lifetimes([4, 1, 3, 2])) == 2
    assert median_survival(lifetimes([1, 2, 3], [True, False, False])) is None
    assert median_survival(lifetimes([1, 2, 3], [True, False, True])) == 3


def test_ratio_estimate_is_the_ratio_of_restricted_means(censored, rng):
    after = lifetimes(2 * censored.times, censored.broken)
    found = restricted_mean_ratio(censored, after, 8.0, rng=rng, n_resamples=500)
    expected = restricted_mean(after, 8.0).value / restricted_mean(censored, 8.0).value
    assert found.estimate == pytest.approx(expected, rel=1e-12)
    assert found.low < found.estimate < found.high


def test_ratio_of_the_same_replicas_is_exactly_one(censored, rng):
    """Pairing: the scatter between initial conditions cancels."""
    found = restricted_mean_ratio(censored, censored, 6.0, rng=rng, n_resamples=200)
    assert (found.estimate, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_ratio_interval_covers(rng):
    exact = (1 - np.exp(-1.0)) / (1 - np.exp(-2.0)) * 2
    covered = 0
    for _ in range(200):
        before, after = rng.exponential(1.0, 60), rng.exponential(2.0, 60)
        found = restricted_mean_ratio(lifetimes(before), lifetimes(after), 2.0, rng=rng, n_resamples=300)
        covered += found.low < exact < found.high
    assert scipy.stats.binomtest(int(covered), 200, 0.95).pvalue > 1e-3


def test_ratio_refusals(rng):
    with pytest.raises(ValueError, match="3 before and 2 after"):
        restricted_mean_ratio(lifetimes([1, 2, 3]), lifetimes([1, 2]), 1.0, rng=rng)
    with pytest.raises(ValueError, match="time zero"):
        restricted_mean_ratio(lifetimes([0, 0]), lifetimes([1, 2]), 1.0, rng=rng)


def test_bootstrap_interval_of_a_mean(rng):
    values = rng.normal(3.0, 2.0, 200)
    found = bootstrap_interval(values, rng=rng, n_resamples=3000)
    error = 1.96 * values.std(ddof=1) / np.sqrt(200)
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_bootstrap_of_equal_values_is_a_point(rng):
    found = bootstrap_interval(np.full(5, 2.5), np.median, rng=rng)
    assert (found.low, found.estimate, found.high) == (2.5, 2.5, 2.5)
    with pytest.raises(ValueError, match="all finite"):
        bootstrap_interval(np.array([1.0, np.nan]), rng=rng)


def test_same_seed_same_interval():
    values = np.arange(20.0) ** 2
    twice = [bootstrap_interval(values, rng=np.random.default_rng(3), n_resamples=100) for _ in range(2)]
    assert twice[0] == twice[1]


@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (8, 8), (3, 17), (120, 128)])
def test_wilson_against_scipy(successes, trials):
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    found = wilson_interval(successes, trials)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.estimate == successes / trials
    with pytest.raises(ValueError, match="9 successes in 8 trials"):
        wilson_interval(9, 8)


def test_block_error_of_a_correlated_series(rng):
    """AR(1): the error of the mean is σ √((1+ρ)/(1-ρ)/n), three times that of independent numbers at ρ = 0.8."""
    rho, n_frames, n_series = 0.8, 4000, 200
    series = np.empty((n_frames, n_series))
    series[0] = rng.normal(size=n_series)
    for frame in range(1, n_frames):
        series[frame] = rho * series[frame - 1] + np.sqrt(1 - rho**2) * rng.normal(size=n_series)
    exact = np.sqrt((1 + rho) / (1 - rho) / n_frames)
    squared = block_standard_error(series, n_blocks=20) ** 2
    assert squared.shape == (n_series,)
    assert squared.mean() == pytest.approx(exact**2, rel=4 * np.sqrt(2 / 19 / n_series) + 0.05)


def test_block_error_uses_every_frame():
    assert block_standard_error(np.array([0.0, 0.0, 0.0, 0.0, 6.0]), n_blocks=2) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="between 2 and the 3 frames"):
        block_standard_error(np.zeros(3), n_blocks=4)


@pytest.mark.parametrize("times", [[], [1.0, np.nan], [-1.0, 2.0]])
def test_impossible_lifetimes_are_refused(times):
    with pytest.raises(ValueError, match="lifetimes"):
        lifetimes(times)


def test_means_over_groups_know_that_runs_differ():
    """One group is the pooled bootstrap; groups that differ widen the interval, and the estimate is their mean."""
    short, long = (lifetimes(np.full(24, value) + np.linspace(0, 0.1, 24)) for value in (1.0, 3.0))

    def over(*after):
        rng = np.random.default_rng(0)
        return restricted_mean_over_groups([short] * len(after), after, 10.0, rng=rng, n_resamples=2000)

    mean, ratio = over(short, long)
    assert mean.estimate == pytest.approx(2.05)
    assert ratio.estimate == pytest.approx(2.05 / 1.05)
    assert (mean.low, mean.high) == (pytest.approx(1.05, abs=0.05), pytest.approx(3.05, abs=0.05))
    alike, _ = over(long, long)
    assert alike.high - alike.low < 0.1 < mean.high - mean.low
    pooled = restricted_mean_ratio(short, long, 10.0, rng=np.random.default_rng(1), n_resamples=2000)
    single = over(long)[1]
    assert (single.low, single.high) == (pytest.approx(pooled.low, rel=0.01), pytest.approx(pooled.high, rel=0.01))


def test_groups_of_other_sizes_and_unreached_horizons_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="pairs of one size"):
        restricted_mean_over_groups([lifetimes([1, 2])], [lifetimes([1, 2, 3])], 1.0, rng=rng)
    followed = Lifetimes(np.array([1.0, 2.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="followed up to the horizon"):
        restricted_mean_over_groups([followed], [followed], 5.0, rng=rng)


def test_mean_interval_against_scipy():
    values = np.array([1.2, 0.7, 2.1, 1.4, 1.1])
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    found = mean_interval(values, confidence=0.9)
    assert (found.estimate, found.low, found.high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert mean_interval(values[:1]).estimate == 1.2 and np.isnan(mean_interval(values[:1]).low)
