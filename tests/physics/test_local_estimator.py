"""The local estimator on molecules that do not interact, where it is exact, against derivatives by quadrature."""

from functools import cache

import numpy as np
import pytest
import torch
from reruns import samples_of

from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.force_field import ForceField
from mdsim.observables import BondLengthDistribution
from mdsim.state import System, Trajectory
from mdsim.training.terms import ObservableTerm, Target
from mdsim.units import kT_eV

KT = kT_eV(300.0)
STIFFNESS, LENGTH_A = 6.0, 1.2  # eV/Å², soft: bonds spread over several bins
N_MOLECULES, N_FRAMES, N_REPLICAS = 8, 12, 6
OBSERVABLE = BondLengthDistribution(1.8, 0.1, min_length_A=0.6)


class Dimers(ForceField):
    """U = Σ k (r - r0)²/2 over the bonds, half of each for each atom."""

    def __init__(self, stiffness: float = STIFFNESS) -> None:
        super().__init__(cutoff=3.0)
        self.stiffness = torch.nn.Parameter(torch.tensor(stiffness, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        lengths = (positions[:, 1::2] - positions[:, ::2]).norm(dim=-1)
        return (0.25 * self.stiffness * (lengths - LENGTH_A).square()).repeat_interleave(2, dim=1)


def _density(lengths: np.ndarray, stiffness: float) -> np.ndarray:
    weight = lengths**2 * np.exp(-0.5 * stiffness * (lengths - LENGTH_A) ** 2 / KT)
    return weight / weight.sum()


def _system() -> System:
    places = 6.0 * torch.cartesian_prod(*[torch.arange(2.0)] * 3).double()
    positions = torch.stack([places, places + torch.tensor([LENGTH_A, 0, 0])], dim=1).reshape(-1, 3)
    numbers = torch.full((2 * N_MOLECULES,), 17)
    return System.from_geometry(numbers, positions, 12 * torch.eye(3), torch.float64)


def _trajectory(seed: int) -> Trajectory:
    """Frames whose bonds are drawn from the canonical distribution, all independent, in random directions."""
    random = np.random.default_rng(seed)
    grid = np.linspace(0.4, 2.0, 20001)
    shape = (N_FRAMES, N_REPLICAS, N_MOLECULES)
    lengths = np.interp(random.random(shape), _density(grid, STIFFNESS).cumsum(), grid)
    directions = random.normal(size=(*shape, 3))
    bonds = torch.from_numpy(lengths[..., None] * directions / np.linalg.norm(directions, axis=-1, keepdims=True))
    first = 6.0 * torch.cartesian_prod(*[torch.arange(2.0)] * 3).double().expand_as(bonds)
    positions = torch.stack([first, first + bonds], dim=-2).flatten(2, 3)
    energy, _ = Dimers()(_system(), positions.flatten(0, 1))
    return Trajectory(positions, None, energy.reshape(shape[:2]), 10.0)


def _exact(sensitivity: np.ndarray) -> float:
    """Derivative of λ·<g> by the stiffness."""
    grid = np.linspace(0.4, 2.0, 160001)[:-1] + 0.5e-5
    edges = OBSERVABLE.bins.edges.numpy()
    means = [
        np.histogram(grid, edges, weights=_density(grid, STIFFNESS + shift))[0] / OBSERVABLE.bin_width_A
        for shift in (1e-3, -1e-3)
    ]
    return float(sensitivity @ (means[0] - means[1]) / 2e-3)


def _targets() -> tuple[Target, np.ndarray]:
    """A loss that is linear in the mean, and its gradient λ."""
    sensitivity = torch.linspace(-1.0, 2.0, OBSERVABLE.bins.count, dtype=torch.float64).square()
    return Target(OBSERVABLE, torch.zeros_like(sensitivity), lambda mean, _: mean @ sensitivity), sensitivity.numpy()


def _gradient(seed: int, local: bool, **settings) -> float:
    model, sampler = Dimers(), None
    if local:
        sampler = NeighborhoodSampler(torch.full((N_MOLECULES,), LENGTH_A), **settings)
    samples = _samples(model, seed, sampler)
    return float(ObservableTerm([_targets()[0]]).gradient(model, samples).gradients[0])


def _samples(model: ForceField, seed: int, sampler: NeighborhoodSampler | None):
    generator = torch.Generator().manual_seed(seed)
    return samples_of(_trajectory(seed), model, _system(), generator, at_once=7, sampler=sampler)


@cache
def _draws(n: int, local: bool, **settings) -> np.ndarray:
    return np.array([_gradient(seed, local, **settings) for seed in range(n)])


STRATA = {"n_strata": 20, "max_per_stratum": 25}


@pytest.mark.parametrize(
    "settings", [{}, {"per_frame": 3}, STRATA, STRATA | {"n_molecules": 3}], ids=["all", "few", "strata", "three"]
)
def test_gradient_by_the_stiffness(settings):
    draws = _draws(40, local=True, **settings)
    z = (draws.mean() - _exact(_targets()[1])) / (draws.std(ddof=1) / np.sqrt(len(draws)))
    assert abs(z) < 4


def test_the_published_scheme_without_weights_is_biased():
    draws = _draws(40, local=True, **STRATA, weighted=False)
    z = (draws.mean() - _exact(_targets()[1])) / (draws.std(ddof=1) / np.sqrt(len(draws)))
    assert abs(z) > 5


def test_the_local_estimator_is_less_noisy_than_the_global_one():
    """Energies of the other molecules are pure noise to a bond.

    With variances v of g and U of one molecule, and w of their product, the ratio is 1 + (n - 1) v(g) v(U) / w for n
    molecules; products have heavy tails, so that w is several v(g) v(U).
    """
    assert _draws(40, local=False).var() / _draws(40, local=True).var() > 1.5


def test_reweighting_moves_the_mean_of_neighborhoods():
    """Samples of one stiffness give the mean at another: exact by quadrature."""
    old, new = Dimers(), Dimers(1.2 * STIFFNESS)
    target, sensitivity = _targets()
    sampler = NeighborhoodSampler(torch.full((N_MOLECULES,), LENGTH_A))
    grid = np.linspace(0.4, 2.0, 160001)[:-1] + 0.5e-5
    density = np.histogram(grid, OBSERVABLE.bins.edges.numpy(), weights=_density(grid, 1.2 * STIFFNESS))[0]
    found = []
    for seed in range(20):
        moved = _samples(old, seed, sampler).reweighted(new)
        assert 0.8 < moved.effective_fraction < 1
        found.append(float((moved.weights @ moved.values(target.observable)).numpy() @ sensitivity))
    exact = float(sensitivity @ density) / OBSERVABLE.bin_width_A
    assert abs((np.mean(found) - exact) / (np.std(found, ddof=1) / np.sqrt(20))) < 4


def test_an_observable_without_molecules_is_refused():
    class Constant:
        name = "constant"

        def __call__(self, system, trajectory):
            return torch.ones(N_FRAMES, N_REPLICAS, 1)

    sampler = NeighborhoodSampler(torch.full((N_MOLECULES,), LENGTH_A))
    with pytest.raises(ValueError, match="constant has no contributions of molecules"):
        _samples(Dimers(), 0, sampler).values(Constant())
