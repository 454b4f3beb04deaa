from itertools import pairwise

import numpy as np
import pytest

from mdsim.datasets.splits import block_holdout, format_indices, nested_splits, parse_indices, parse_size

SIZES = ["40", "100", "1k", "10k"]


@pytest.fixture(scope="module")
def splits():
    return nested_splits(10_000, SIZES, seed=3)


@pytest.mark.parametrize(
    ("name", "n_pool", "size"), [("40", 99, 40), ("1k", 5000, 1000), ("10k", 10_000, 10_000), ("25percent", 6000, 1500)]
)
def test_sizes_are_read_from_their_names(name, n_pool, size):
    assert parse_size(name, n_pool) == size


@pytest.mark.parametrize("name", ["", "k", "1M", "-5", "1.5k", "0", "25 percent", "101", "200percent"])
def test_sizes_that_mean_nothing_or_too_much_are_refused(name):
    with pytest.raises(ValueError, match="size"):
        parse_size(name, 100)


def test_train_and_validation_counts(splits):
    counts = {name: (len(split.train), len(split.val)) for name, split in splits.items()}
    assert counts == {"40": (38, 2), "100": (95, 5), "1k": (950, 50), "10k": (9500, 500)}


@pytest.mark.parametrize(("small", "large"), list(pairwise(SIZES)))
def test_smaller_sizes_are_part_of_larger_ones(splits, small, large):
    assert set(splits[small].train) < set(splits[large].train)
    assert set(splits[small].val) < set(splits[large].val)


def test_no_frame_trains_at_one_size_and_validates_at_another(splits):
    trained = set().union(*(split.train for split in splits.values()))
    validated = set().union(*(split.val for split in splits.values()))
    assert not trained & validated


def test_the_whole_pool_is_used_once_by_the_largest_size(splits):
    everything = np.concatenate([splits["10k"].train, splits["10k"].val])
    assert np.array_equal(np.sort(everything), np.arange(10_000))


def test_splits_depend_on_the_seed_alone(splits):
    again, other = nested_splits(10_000, ["40"], seed=3)["40"], nested_splits(10_000, ["40"], seed=4)["40"]
    assert np.array_equal(again.train, splits["40"].train)
    assert not np.array_equal(other.train, splits["40"].train)


def test_training_frames_are_uniform_over_the_pool(splits):
    # Mean of 950 draws without replacement from 0..9999: its standard error follows from the uniform distribution.
    drawn = splits["1k"].train
    standard_error = 10_000 / np.sqrt(12 * len(drawn)) * np.sqrt(1 - len(drawn) / 10_000)
    assert abs(drawn.mean() - 4999.5) < 4 * standard_error


def test_a_size_without_room_for_training_is_refused():
    with pytest.raises(ValueError, match="no training frames"):
        nested_splits(10, ["2"], seed=0)


def test_block_holdout_takes_the_end_of_each_trajectory_behind_a_gap():
    pool, test = block_holdout([10, 8], test_frames=4, gap_frames=3)
    assert pool.tolist() == [0, 1, 2, 3, 4, 10, 11, 12]
    assert test.tolist() == [8, 9, 16, 17]


def test_block_holdout_shares_what_does_not_divide():
    pool, test = block_holdout([6, 6, 6], test_frames=4, gap_frames=0)
    assert test.tolist() == [4, 5, 11, 17]
    assert len(pool) + len(test) == 18


def test_block_holdout_refuses_short_trajectories():
    with pytest.raises(ValueError, match="trajectory 1 has 5 frames"):
        block_holdout([9, 5], test_frames=6, gap_frames=2)


@pytest.mark.parametrize("indices", [[], [5], [0, 1, 2], [0, 2, 3, 9], list(range(0, 40, 2))])
def test_indices_survive_as_text(indices):
    text = format_indices(np.array(indices, dtype=np.int64))
    assert parse_indices(text).tolist() == indices


def test_runs_are_written_as_ranges():
    assert format_indices(np.array([0, 1, 2, 3, 7, 9, 10])) == "0-3,7,9-10"
