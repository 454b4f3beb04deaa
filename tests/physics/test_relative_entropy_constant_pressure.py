"""The relative-entropy gradient at constant pressure against quadrature over the volume, in double precision.

One atom in a cube interacts with its images, so that the energy is a function of the volume and of two parameters θ.
The structures of a grid of volumes, weighted by the ensemble, are samples without noise of p(V) ∝ V exp(-(U + P V)/kT).
"""

import numpy as np
import pytest
import torch
from torch import nn

from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.memory import PiecesAtOnce
from mdsim.neighbors import pairs_within
from mdsim.state import System, Trajectory
from mdsim.training.terms import ContrastTerm
from mdsim.units import BAR, kT_eV

KT, PRESSURE = kT_eV(200.0), 4000.0 * BAR
CUTOFF_A = 6.0
REFERENCE, SIMULATED = (0.30, -0.25), (0.22, -0.15)
EDGES_A = torch.linspace(3.3, 9.0, 900, dtype=torch.float64)
CELLS = EDGES_A[:, None, None] * torch.eye(3, dtype=torch.float64)
POSITIONS = torch.zeros(len(EDGES_A), 1, 3, dtype=torch.float64)
SYSTEM = System.from_bonds(
    torch.tensor([18]), torch.zeros(0, 2, dtype=torch.long), 5.0 * torch.eye(3), dtype=torch.float64
)


class Images(ForceField):
    """U = Σ over pairs of θ₁ s + θ₂ s² with s = (1 - r/r_c)³."""

    def __init__(self, values=SIMULATED) -> None:
        super().__init__(cutoff=CUTOFF_A)
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        distances = torch.linalg.vector_norm(neighbors.displacements(positions), dim=-1)
        s = (1 - distances / CUTOFF_A).clamp(min=0) ** 3
        pairs = self.values[0] * s + self.values[1] * s.square()
        replicas = pairs.new_zeros(len(positions) * system.n_atoms).index_add(0, neighbors.first, pairs)
        return replicas.reshape(len(positions), -1)


def energies(values) -> torch.Tensor:
    with torch.no_grad():
        return Images(values).energy(SYSTEM, POSITIONS, pairs_within(CELLS, POSITIONS, CUTOFF_A))


def weights(values) -> torch.Tensor:
    """Probabilities of the volumes of the grid, dV ∝ L² dL."""
    volumes = EDGES_A**3
    logs = -(energies(values) + PRESSURE * volumes) / KT + volumes.log() + 2 * EDGES_A.log()
    return torch.softmax(logs, dim=0)


def relative_entropy(values) -> float:
    """Σ p ln(p/q) over the grid."""
    p, q = weights(REFERENCE), weights(values)
    return float((p * (p / q).log()).sum())


def exact_gradient() -> np.ndarray:
    step = 1e-5
    shifts = np.eye(2) * step
    return np.array([relative_entropy(SIMULATED + s) - relative_entropy(SIMULATED - s) for s in shifts]) / (2 * step)


def samples(**changes) -> Samples:
    energy = energies(SIMULATED)
    one = torch.zeros(len(energy), dtype=torch.long)
    trajectory = Trajectory(POSITIONS[:, None], None, energy[:, None], 1.0, CELLS[:, None])
    known = (SYSTEM, trajectory, torch.ones(len(energy), 1, dtype=torch.bool), POSITIONS, energy, one, one > 0, KT)
    at_once = PiecesAtOnce(137, "structures of a minibatch")
    settings = {"cells": CELLS, "reweighting": weights(SIMULATED)} | changes
    return Samples(*known, torch.Generator().manual_seed(0), at_once, **settings)


def gradient(term: ContrastTerm) -> np.ndarray:
    found = term.gradient(Images(), samples())
    assert found is not None
    return found.gradients[0].numpy()


def test_the_gradient_is_that_of_the_quadrature():
    exact = exact_gradient()
    found = gradient(ContrastTerm(SYSTEM, POSITIONS, weights(REFERENCE), cells=CELLS))
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    edges = [float((weights(values) * EDGES_A).sum()) for values in (REFERENCE, SIMULATED)]
    assert abs(edges[0] - edges[1]) > 0.05, "nothing was tested"


def test_references_of_one_volume_would_give_another_gradient():
    """This is why they are refused: with the mean volume of the reference in place of its distribution."""
    exact = exact_gradient()
    mean = (weights(REFERENCE) * EDGES_A**3).sum() ** (1 / 3) * torch.eye(3, dtype=torch.float64)
    found = gradient(ContrastTerm(SYSTEM, POSITIONS, weights(REFERENCE), cells=mean.expand_as(CELLS)))
    assert np.linalg.norm(found - exact) > 0.1 * np.linalg.norm(exact)


def test_it_vanishes_where_the_ensembles_are_equal():
    found = gradient(ContrastTerm(SYSTEM, POSITIONS, weights(SIMULATED), cells=CELLS))
    np.testing.assert_allclose(found, 0.0, atol=1e-12)


@pytest.mark.parametrize("of_references", [True, False])
def test_ensembles_of_two_kinds_are_refused(of_references):
    term = ContrastTerm(SYSTEM, POSITIONS, cells=CELLS if of_references else None)
    other = samples(cells=None) if of_references else samples()
    with pytest.raises(ValueError, match="different ensembles"):
        term.gradient(Images(), other)
