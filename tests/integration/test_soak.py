"""Memory does not grow over parameter steps and stretches of evaluation; the long form is `make soak`."""

import numpy as np
import pytest
import torch
from paths import ROOT

from benchmarks.soak import CASES, Growth, evaluation, training

MOST_MIB_PER_HUNDRED = 40.0  # a graph of one structure per step would be 100 (SchNet) to 13,000 (GemNet-T)


def test_a_growth_is_found():
    steps = list(range(5, 105, 5))
    noise = np.random.default_rng(0).normal(scale=2.0, size=20)
    flat, leaking = Growth(steps, list(500 + noise)), Growth(steps, list(500 + noise + np.array(steps)))
    assert abs(flat.per_hundred_MiB) < MOST_MIB_PER_HUNDRED < leaking.per_hundred_MiB


@pytest.mark.slow
@pytest.mark.parametrize("model", ["schnet", "nequip", "constant_pressure"])
def test_memory_of_training_is_flat(model, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert training(model, 12, tmp_path).per_hundred_MiB < MOST_MIB_PER_HUNDRED


@pytest.mark.slow
@pytest.mark.parametrize("model", CASES)
@pytest.mark.parametrize(("kind", "rounds"), [(training, 40), (evaluation, 100)])
def test_memory_of_long_runs_is_flat(kind, rounds, model, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(1)
    assert kind(model, rounds, tmp_path).per_hundred_MiB < MOST_MIB_PER_HUNDRED / 4
