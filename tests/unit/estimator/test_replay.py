"""Earlier reruns that are used again: their weights, what is forgotten, and exact averages of oscillators."""

import math
from dataclasses import replace

import torch
from reruns import KT, samples_of, toy_trajectory
from tiny import STIFFNESS, Springs
from torch import nn

from mdsim.dynamics.state_points import Conditions
from mdsim.estimator.replay import Replay, Rerun, pooled
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.state import Trajectory
from mdsim.training.terms import ObservableTerm, Target
from mdsim.units import BAR

LENGTHS = BondLengthDistribution(4.0, 0.25)


def made_by(model: Springs, seed: int) -> Samples:
    """Samples whose energies are those of a model. Their distribution is not."""
    trajectory = toy_trajectory(seed=seed)
    energy = model(samples_of(trajectory).system, trajectory.positions.flatten(0, 1))[0].detach()
    return samples_of(Trajectory(trajectory.positions, None, energy.reshape(trajectory.positions.shape[:2]), 2.0))


def test_without_replay_the_samples_are_untouched():
    latest = made_by(Springs(), 0)
    found, evaluated = Replay()(latest, Springs())
    assert found is latest and evaluated == 0


def test_earlier_samples_count_as_their_effective_number():
    """The mean of both reruns is that of the latest, and of the reweighted earlier one, by effective numbers."""
    model, moved = Springs(), Springs(STIFFNESS * 1.02)
    replay = Replay(n_reruns=2, min_effective_fraction=0.1)
    first, second = made_by(model, 0), made_by(moved, 1)
    assert replay(first, model) == (first, 0)
    together, evaluated = replay(second, moved)
    earlier = first.reweighted(moved)
    number = earlier.effective_fraction * len(earlier)
    expected = second.values(LENGTHS).sum(0) + number * earlier.reweighting @ first.values(LENGTHS)
    weights = together.weights / together.weights.sum()
    torch.testing.assert_close(weights @ together.values(LENGTHS), expected / (len(second) + number))
    assert evaluated == len(first) and len(together) == len(first) + len(second)
    assert len(together.replica.unique()) == 8, "replicas of different reruns are independent"


def test_energies_are_those_of_the_current_parameters():
    """Further steps reweight all samples from there."""
    model, moved, farther = Springs(), Springs(STIFFNESS * 1.02), Springs(STIFFNESS * 1.03)
    replay = Replay(2, 0.1)
    replay(made_by(model, 0), model)
    together, _ = replay(made_by(moved, 1), moved)
    torch.testing.assert_close(together.energy, together.current_energies(moved))
    assert together.reweighting is None and together.effective_fraction == 1.0
    stepped = together.reweighted(farther)
    torch.testing.assert_close(stepped.weights, stepped.reweighting * together.carry)


def test_reruns_are_forgotten():
    """When parameters have moved too far, and when newer ones take their place."""
    model = Springs()
    replay = Replay(2, 0.5)
    for seed in range(4):
        replay(made_by(model, seed), model)
    assert [float(rerun.positions[0, 0, 0]) for rerun in replay.kept] == [
        float(toy_trajectory(seed=seed).positions[0, 0, 0, 0]) for seed in (2, 3)
    ]
    far = Springs(STIFFNESS * 40)
    latest = made_by(far, 4)
    found, evaluated = replay(latest, far)
    assert found is latest and evaluated == 2 * len(latest) and len(replay.kept) == 1


def test_an_empty_rerun_changes_nothing():
    replay = Replay(2, 0.1)
    replay(made_by(Springs(), 0), Springs())
    trajectory = toy_trajectory()
    trajectory.positions[:] = torch.nan
    empty = samples_of(trajectory)
    assert replay(empty, Springs()) == (empty, 0) and len(replay.kept) == 1


def test_saved_reruns_are_the_same():
    model, moved = Springs(), Springs(STIFFNESS * 1.02)
    one, other = Replay(2, 0.1), Replay(2, 0.1)
    one(made_by(model, 0), model)
    other.load_state_dict(one.state_dict(), torch.device("cpu"))
    (found, _), (expected, _) = (replay(made_by(moved, 1), moved) for replay in (other, one))
    assert torch.equal(found.weights, expected.weights) and torch.equal(found.energy, expected.energy)
    assert torch.equal(found.values(LENGTHS), expected.values(LENGTHS))


def test_samples_at_several_state_points_keep_them():
    first = made_by(Springs(), 0)
    bath = KT * torch.where(first.replica < 2, 1, 2).double()
    first = replace(first, bath=bath)
    second = replace(made_by(Springs(), 1), bath=bath)
    together = pooled([second, Rerun.of(first).samples(second).carried(Springs(STIFFNESS * 1.01))])
    hot = together.at(Conditions(600.0))
    assert len(hot) == int((bath > KT).sum()) * 2 and float(hot.carry.min()) > 0


class Well(ForceField):
    """U = k x²/2 of every coordinate."""

    def __init__(self, k: float) -> None:
        super().__init__(cutoff=5.0)
        self.k = nn.Parameter(torch.tensor(k).double())

    def atomic_energies(self, system, positions, neighbors):
        return 0.5 * self.k * positions.square().sum(-1)


class MeanSquare:
    name = "mean_square"

    def __call__(self, system, trajectory):
        return trajectory.positions.square().mean((-1, -2))[..., None]


def drawn_in(well: Well, generator: torch.Generator) -> Samples:
    """Exact canonical samples."""
    positions = torch.randn(20, 4, 3, 3, generator=generator).double() * (KT / well.k.detach()).sqrt()
    energy = well.atomic_energies(None, positions, None).sum(-1).detach()
    return samples_of(Trajectory(positions, None, energy, 1.0), well)


def test_the_gradient_is_unbiased_and_has_less_noise(generator):
    """d<x²>/dk = -kT/k², from a rerun and an earlier one in a well that is a tenth softer."""
    term = ObservableTerm([Target(MeanSquare(), torch.zeros(1).double(), lambda mean, _: mean.sum())])
    soft, well, alone, both = Well(4.5), Well(5.0), [], []
    for _ in range(80):
        replay = Replay(1, 0.1)
        replay(drawn_in(soft, generator), soft)
        latest = drawn_in(well, generator)
        together, _ = replay(latest, well)
        assert len(together) == 2 * len(latest)
        alone.append(float(term.gradient(well, latest).gradients[0]))
        both.append(float(term.gradient(well, together).gradients[0]))
    alone, both = torch.tensor(alone), torch.tensor(both)
    error = float(both.std()) / math.sqrt(len(both))
    assert abs(float(both.mean()) + KT / 25) < 4 * error
    assert float(both.std() / alone.std()) < 0.9, "for two independent reruns, 0.71"


def test_samples_keep_their_pressures():
    """Weights are normalized, and samples found, at each pressure of all reruns together."""
    model, bars = Springs(), torch.tensor([1.0, 5000.0]).double()

    def made(seed: int) -> Samples:
        samples = made_by(model, seed)
        pressure = BAR * bars[samples.replica % 2]
        return replace(samples, bath=torch.full_like(samples.energy, KT), pressure=pressure)

    together = pooled([made(0), made(1)])
    first = together.at(Conditions(300.0, 1.0))
    assert len(first) == len(together) // 2 and (first.replica % 2 == 0).all()
    kept = Rerun.from_state_dict(Rerun.of(made(0)).state_dict(), torch.device("cpu"))
    torch.testing.assert_close(kept.pressure, made(0).pressure)
