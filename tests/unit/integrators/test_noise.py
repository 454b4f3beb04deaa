"""Noise as a function of seed, replica and step: known bits of the generator, moments, independence."""

import math

import pytest
import torch
from analytic_potentials import system_of, wells
from scipy import stats

from mdsim.integrators import LangevinBAOAB, VelocityVerlet
from mdsim.integrators.noise import LOW_HALF, NUMBERS_AT_ONCE, ReplicaNoise, noise_of_steps, philox

N_REPLICAS, N_STEPS, SHAPE = 40, 500, (7, 3)  # 21 numbers: not a multiple of four


@pytest.fixture(scope="module")
def noise():
    like = torch.zeros((), dtype=torch.float64)
    return ReplicaNoise(2**63 + 11)(torch.arange(N_REPLICAS), 0, N_STEPS, SHAPE, like)


@pytest.mark.parametrize(
    ("counter", "key", "bits"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((LOW_HALF,) * 4, (LOW_HALF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_bits(counter, key, bits):
    """Known answers of the Random123 library."""
    assert tuple(int(x) for x in philox(tuple(torch.tensor(c) for c in counter), key)) == bits


def test_a_batch_of_replicas_or_a_range_of_steps_changes_nothing(noise):
    some = ReplicaNoise(2**63 + 11)(torch.tensor([3, 31]), 17, 5, SHAPE, noise)
    assert torch.equal(some, noise[17:22, [3, 31]])


def test_single_precision_gives_the_same_numbers(noise):
    single = ReplicaNoise(2**63 + 11)(torch.arange(N_REPLICAS), 0, N_STEPS, SHAPE, torch.zeros(()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), noise, atol=2e-3, rtol=0)  # of those near zero, where 1 - u is rounded
    assert (single.double() - noise).abs().mean() < 1e-6


def test_numbers_are_normal(noise):
    numbers = noise.flatten()
    n = len(numbers)
    moments = {1: (0.0, 1), 2: (1.0, 2), 3: (0.0, 15), 4: (3.0, 96)}  # of a normal number: mean and variance
    for power, (mean, variance) in moments.items():
        assert abs(float((numbers**power).mean()) - mean) < 4 * math.sqrt(variance / n)
    assert stats.kstest(numbers.numpy(), "norm").pvalue > 1e-3
    assert 4.0 < float(numbers.abs().max()) < 6.7  # 420,000 numbers: 4.6 is expected; the generator ends at 6.7


@pytest.mark.parametrize("axis", ["step", "replica", "number"])
def test_neighbors_are_independent(noise, axis):
    """Also their squares and the sign with the size of the neighbor, which the Box-Muller transform could relate."""
    numbers = noise.flatten(2).movedim(("step", "replica", "number").index(axis), 0)
    first, second = numbers[:-1].flatten(), numbers[1:].flatten()
    for of_first, of_second in [
        (first, second),
        (first.square() - 1, second.square() - 1),
        (first, second.square() - 1),
    ]:
        product = of_first * of_second
        assert abs(float(product.mean())) < 4 * float(product.std()) / math.sqrt(len(product))


def test_other_seeds_give_other_numbers(noise):
    for seed in (2**63 + 12, 11, 2**31 + 11):
        other = ReplicaNoise(seed)(torch.arange(N_REPLICAS), 0, N_STEPS, SHAPE, noise)
        assert not torch.equal(other, noise)
        correlation = float((other * noise).mean()) * math.sqrt(noise.numel())
        assert abs(correlation) < 4


def test_blocks_join_without_a_seam():
    system = system_of([1] * 8, [1.0] * 8)
    integrator, n_replicas = LangevinBAOAB(1.0, 300.0, 1.0), 3000
    positions = torch.zeros(n_replicas, 8, 3)
    state = integrator.init(system, wells(1.0), positions, positions)
    n_steps = 2 * (NUMBERS_AT_ONCE // positions.numel()) + 1
    parts = list(noise_of_steps(integrator, system, state, n_steps, torch.Generator().manual_seed(3)))
    assert len(parts) == n_steps
    seed = ReplicaNoise.drawn_from(torch.Generator().manual_seed(3))
    whole = seed(torch.arange(n_replicas), 0, n_steps, (8, 3), positions)
    assert torch.equal(torch.stack(parts), whole)


def test_deterministic_dynamics_draws_nothing():
    system, generator = system_of([1, 1], [1.0, 1.0]), torch.Generator().manual_seed(3)
    before = generator.get_state()
    positions = torch.zeros(1, 2, 3)
    state = VelocityVerlet(1.0).init(system, wells(1.0), positions, positions)
    assert list(noise_of_steps(VelocityVerlet(1.0), system, state, 2, generator)) == [None, None]
    assert torch.equal(generator.get_state(), before)
