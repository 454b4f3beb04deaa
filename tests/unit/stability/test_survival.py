"""Survival analysis against scipy, closed forms and repeated experiments."""

import numpy as np
import pytest
import scipy.stats

from mdsim.stability.survival import (
    Lifetimes,
    kaplan_meier,
    median_survival,
    restricted_mean,
    restricted_means,
    survivals,
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
    assert abs(np.mean(z)) < 4 / np.sqrt(n_experiments) + 0.05  # the ratio has a small bias
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


@pytest.mark.parametrize("times", [[], [1.0, np.nan], [-1.0, 2.0]])
def test_impossible_lifetimes_are_refused(times):
    with pytest.raises(ValueError, match="lifetimes"):
        lifetimes(times)


def test_weights_are_numbers_of_replicas(censored):
    """Whole weights are repeated replicas."""
    counts = np.random.default_rng(2).integers(0, 4, len(censored.times))
    counts[censored.times.argmax()] = 1
    repeated = lifetimes(np.repeat(censored.times, counts), np.repeat(censored.broken, counts))
    expected = restricted_mean(repeated, 8.0).value
    assert restricted_means(censored, counts[None] * 0.37, 8.0) == pytest.approx([expected], rel=1e-12)
    grid = np.array([0.0, 3.0, 4.5, 8.0])
    found = survivals(censored, counts[None].astype(float), grid)
    np.testing.assert_allclose(found[0], kaplan_meier(repeated).at(grid), rtol=1e-12)


def test_groups_together():
    both = Lifetimes.together([lifetimes([1, 2]), lifetimes([3], [False])])
    assert both.times.tolist() == [1, 2, 3] and both.broken.tolist() == [True, True, False]
    with pytest.raises(ValueError, match="at least one group"):
        Lifetimes.together([])
