"""The Boltzmann estimator at constant pressure, against derivatives of averages over volumes by quadrature.

An atom that interacts with its own periodic images has an energy that depends on the volume only. At constant pressure
the density of the volume is V exp(-(U_θ(V) + P V)/kT), and no term of the estimator comes from P V.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from analytic_potentials import system_of
from scipy.integrate import cumulative_simpson, simpson
from torch import nn

from mdsim.dynamics.stretch import Outcome
from mdsim.estimator.boltzmann import boltzmann_gradient
from mdsim.estimator.samples import Sampling
from mdsim.force_field import ForceField
from mdsim.memory import PiecesAtOnce
from mdsim.observables.density import Density
from mdsim.stability.verdict import Verdict
from mdsim.state import MDState, Trajectory
from mdsim.units import AMU_PER_A3_IN_G_PER_CM3, BAR, kT_eV

KT, PRESSURE, CUTOFF, MASS = kT_eV(300.0), 1500.0 * BAR, 5.0, 40.0
THETA = (3.0, 1.0)
VOLUMES = np.linspace(15.0, 900.0, 40_001)  # Å³


class OwnImages(ForceField):
    """U = Σ over pairs of a (1 - r/rc)³ + b (1 - r/rc)⁴, for an atom and its images."""

    def __init__(self) -> None:
        super().__init__(cutoff=CUTOFF)
        self.theta = nn.Parameter(torch.tensor(THETA, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        near = (1 - neighbors.displacements(positions).norm(dim=-1) / self.cutoff).clamp(min=0)
        energies = self.theta[0] * near**3 + self.theta[1] * near**4
        return positions.new_zeros(len(positions)).index_add(0, neighbors.first, energies)[:, None]


def features() -> np.ndarray:
    """∂U/∂θ at each volume, by the sum over images of a cubic lattice."""
    edges, found = np.cbrt(VOLUMES), np.zeros((2, len(VOLUMES)))
    for image in np.ndindex(5, 5, 5):
        steps = np.array(image) - 2
        if steps.any():
            near = np.clip(1 - np.linalg.norm(steps) * edges / CUTOFF, 0, None)
            found += 0.5 * np.stack([near**3, near**4])
    return found


def density_of_volumes(theta: np.ndarray) -> np.ndarray:
    weights = VOLUMES * np.exp(-(theta @ features() + PRESSURE * VOLUMES) / KT)
    return weights / simpson(weights, x=VOLUMES)


def samples(n: int) -> tuple[OwnImages, object]:
    """Samples of the estimator from volumes drawn from the exact distribution."""
    cumulative = cumulative_simpson(density_of_volumes(np.array(THETA)), x=VOLUMES, initial=0)
    volumes = np.interp(np.random.default_rng(1).random(n), cumulative / cumulative[-1], VOLUMES)
    edges = torch.from_numpy(np.cbrt(volumes))
    cells = (edges[:, None, None] * torch.eye(3, dtype=torch.float64))[:, None]
    system, force_field = system_of([18], [MASS], (6.0 * np.eye(3)).tolist()), OwnImages()
    positions = torch.rand(n, 1, 1, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) @ cells
    trajectory = Trajectory(positions, positions, torch.zeros(n, 1, dtype=torch.float64), 1.0, cells)
    end = MDState(positions[-1], positions[-1], positions[-1], trajectory.energy[-1], cell=cells[-1])
    verdict = Verdict(torch.tensor([n]), torch.tensor([False]), ("stable",))
    drawn = Sampling(KT, PiecesAtOnce(2500, "structures"))(
        force_field, system, Outcome(end, trajectory, verdict), torch.Generator().manual_seed(3)
    )
    return force_field, drawn


def test_energies_of_samples_are_those_in_their_cells():
    force_field, drawn = samples(200)
    energies = drawn.current_energies(force_field)
    exact = np.interp(np.prod(drawn.cells.diagonal(dim1=1, dim2=2).numpy(), 1), VOLUMES, np.array(THETA) @ features())
    assert energies.std() > 0.1 * KT, "nothing was tested"
    np.testing.assert_allclose(energies.numpy(), exact, atol=1e-6)


def test_derivatives_of_the_mean_density():
    """Within 3.5 standard errors of the difference of two averages at shifted parameters."""
    force_field, drawn = samples(8_000)
    density = drawn.values(Density())
    found = boltzmann_gradient(
        drawn.energies(force_field), force_field.parameters(), density, lambda mean: mean.sum(), KT, minibatch_size=2500
    )
    of_volume = AMU_PER_A3_IN_G_PER_CM3 * MASS / VOLUMES
    exact, shift = [], 1e-4
    for direction in np.eye(2):
        means = [
            simpson(density_of_volumes(np.array(THETA) + sign * shift * direction) * of_volume, x=VOLUMES)
            for sign in (1, -1)
        ]
        exact.append((means[0] - means[1]) / (2 * shift))
    mean = simpson(density_of_volumes(np.array(THETA)) * of_volume, x=VOLUMES)
    np.testing.assert_allclose(float(density.mean()), mean, rtol=0.03)
    parts = density[:, 0].numpy() - mean
    volumes = AMU_PER_A3_IN_G_PER_CM3 * MASS / density[:, 0].numpy()
    for number, feature in enumerate(features()):
        at_samples = np.interp(volumes, VOLUMES, feature)
        error = (parts * (at_samples - at_samples.mean())).std() / KT / np.sqrt(len(parts))
        assert error < 0.15 * abs(exact[number]), "nothing was tested"
        assert abs(float(found.gradients[0][number]) - exact[number]) < 3.5 * error


def test_reweighting_at_constant_pressure():
    """The mean density at other parameters, from samples at these: weights exp(-ΔU/kT), without the work P V."""
    force_field, drawn = samples(8_000)
    drawn = replace(drawn, energy=drawn.current_energies(force_field))
    with torch.no_grad():
        force_field.theta += torch.tensor([0.6, 0.3])
    weights = drawn.reweighted(force_field).weights
    found = float((weights * drawn.values(Density())[:, 0]).sum() / weights.sum())
    shifted = np.array(THETA) + np.array([0.6, 0.3])
    of_volume = AMU_PER_A3_IN_G_PER_CM3 * MASS / VOLUMES
    expected = simpson(density_of_volumes(shifted) * of_volume, x=VOLUMES)
    unchanged = simpson(density_of_volumes(np.array(THETA)) * of_volume, x=VOLUMES)
    assert abs(expected - unchanged) > 0.01 * unchanged, "nothing was tested"
    change = found - float(drawn.values(Density()).mean())  # of the same samples, so that most noise cancels
    np.testing.assert_allclose(change, expected - unchanged, rtol=0.15)
