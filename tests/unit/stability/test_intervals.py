"""Error bars against scipy, closed forms and repeated experiments."""

import numpy as np
import pytest
import scipy.stats

from mdsim.stability.intervals import (
    block_standard_error,
    bootstrap_interval,
    mean_interval,
    poisson_rate_interval,
    wilson_interval,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


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


def test_mean_interval_against_scipy():
    values = np.array([1.2, 0.7, 2.1, 1.4, 1.1])
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    found = mean_interval(values, confidence=0.9)
    assert (found.estimate, found.low, found.high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert mean_interval(values[:1]).estimate == 1.2 and np.isnan(mean_interval(values[:1]).low)


@pytest.mark.parametrize("events", [0, 1, 2, 9])
def test_poisson_rates_are_exact(events):
    """At the lower bound so many events or more have 2.5 %, at the upper bound so many or fewer."""
    found = poisson_rate_interval(events, 0.5)
    assert found.estimate == 2 * events
    if events:
        assert scipy.stats.poisson.sf(events - 1, 0.5 * found.low) == pytest.approx(0.025)
    else:
        assert found.low == 0
    assert scipy.stats.poisson.cdf(events, 0.5 * found.high) == pytest.approx(0.025)


@pytest.mark.parametrize(("events", "exposure"), [(-1, 1.0), (1, 0.0), (1, float("nan"))])
def test_rates_need_an_exposure(events, exposure):
    with pytest.raises(ValueError, match="events in an exposure of"):
        poisson_rate_interval(events, exposure)
