"""Divisions of frames: disjoint, nested over sizes, with shared test frames and gaps in time."""

from __future__ import annotations

import numpy as np
import pytest

from mdsim.datasets.divide import at_random, in_blocks
from mdsim.datasets.sources import md17, md22
from mdsim.errors import DatasetError


def assert_disjoint(division) -> None:
    everything = np.concatenate([division.train, division.val, division.test])
    assert len(np.unique(everything)) == len(everything)
    for part in (division.train, division.val, division.test):
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("seed", [0, 123])
def test_random_sizes_share_their_test_frames_and_are_nested(seed):
    small, large = (at_random(20_000, size, 10_000, seed) for size in ("1k", "10k"))
    for division in (small, large):
        assert_disjoint(division)
    assert [len(part) for part in (small.train, small.val, small.test)] == [950, 50, 10_000]
    assert np.array_equal(small.test, large.test)
    assert np.isin(small.train, large.train).all() and np.isin(small.val, large.val).all()


def test_another_seed_is_another_division():
    assert not np.array_equal(at_random(1000, "100", 100, 0).test, at_random(1000, "100", 100, 1).test)


def test_shares_of_the_published_sets():
    aspirin = md17.divide(211_762, "50k", 123, None)
    assert [len(part) for part in (aspirin.train, aspirin.val, aspirin.test)] == [47_500, 2_500, 10_000]
    everything, quarter = (md22.divide(85_109, size, 123, None) for size in ("100percent", "25percent"))
    assert np.allclose(
        [len(part) / 85_109 for part in (everything.train, everything.val, everything.test)], [0.7, 0.1, 0.2], atol=1e-4
    )
    assert abs(len(quarter.train) - 0.25 * 0.7 * 85_109) < 2 and abs(len(quarter.val) - 0.25 * 0.1 * 85_109) < 2
    assert_disjoint(everything)


def test_blocks_are_apart_in_every_trajectory():
    lengths, gap = [400, 300], 20
    division = in_blocks(lengths, "200", 60, gap, seed=0, validation_fraction=0.1)
    assert_disjoint(division)
    assert [len(part) for part in (division.train, division.val, division.test)] == [180, 20, 60]
    owner = np.repeat([0, 1], lengths)
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        one, other = getattr(division, first), getattr(division, second)
        distance = np.abs(one[:, None] - other)
        assert distance[owner[one][:, None] == owner[other]].min() > gap


def test_all_of_the_blocks_can_be_had_whatever_the_gap():
    division = in_blocks([700], "100percent", 70, 50, seed=0)
    assert_disjoint(division)
    # 700 - 70 - 50 = 580 frames are left, 29 at their end validate, and 50 before these are the gap.
    assert [len(part) for part in (division.train, division.val, division.test)] == [501, 29, 70]


def test_blocks_of_all_sizes_share_their_test_frames():
    small, large = (in_blocks([500], size, 50, 5, seed=3) for size in ("50", "300"))
    assert np.array_equal(small.test, large.test) and np.array_equal(large.test, np.arange(450, 500))
    assert np.isin(small.train, large.train).all() and np.isin(small.val, large.val).all()


@pytest.mark.parametrize(
    ("divide", "message"),
    [
        (lambda: at_random(100, "1k", 10, 0), "asks for 1000 frames, but only 90"),
        (lambda: at_random(100, "50", 100, 0), "cannot be taken from 100 frames"),
        (lambda: at_random(100, "half", 10, 0), "is not a number of frames"),
        (lambda: in_blocks([10, 10], "5", 10, 6, 0), "too few for 5 test frames"),
        (lambda: in_blocks([100], "95", 10, 3, 0), "asks for 95 frames, but only"),
    ],
)
def test_too_few_frames_are_said(divide, message):
    with pytest.raises(DatasetError, match=message):
        divide()
