"""Reruns with given frames, and the samples that terms take from them."""

import torch
from tiny import GEOMETRY, PAIRS, Springs, frames, water

from mdsim.dynamics.stretch import Outcome
from mdsim.estimator.samples import Samples, Sampling
from mdsim.geometry import pair_distances
from mdsim.memory import PiecesAtOnce
from mdsim.stability.verdict import Verdict
from mdsim.state import MDState, System, Trajectory
from mdsim.units import kT_eV

KT = kT_eV(300.0)
N_FRAMES, N_REPLICAS = 5, 4


class Distances:
    """The three interatomic distances, as an observable."""

    name = "distances"

    def __call__(self, system, trajectory):
        return pair_distances(trajectory.positions, PAIRS)


class Squares(Distances):
    """Squares of two of them."""

    name = "squares"

    def __call__(self, system, trajectory):
        return pair_distances(trajectory.positions, PAIRS[:2]).square()


class Strains(Distances):
    """Squared deviations, which the energy of the springs is made of: strongly correlated with it."""

    name = "strains"

    def __call__(self, system, trajectory):
        return (pair_distances(trajectory.positions, PAIRS) - pair_distances(GEOMETRY, PAIRS)).square()


def toy_trajectory(n_frames: int = N_FRAMES, n_replicas: int = N_REPLICAS, seed: int = 0) -> Trajectory:
    """Distorted molecules of zero energy."""
    positions = frames(n_frames * n_replicas, seed).positions.double().reshape(n_frames, n_replicas, 3, 3)
    return Trajectory(positions, torch.zeros_like(positions), torch.zeros(n_frames, n_replicas).double(), 2.0)


def outcome_of(trajectory: Trajectory, first: list[int] | None = None) -> Outcome:
    """The outcome of a rerun; ``first`` has the first unstable frame of each replica."""
    frame = torch.full((trajectory.n_replicas,), trajectory.n_frames) if first is None else torch.tensor(first)
    unstable = frame < trajectory.n_frames
    verdict = Verdict(frame, unstable, tuple("bond" if broken else None for broken in unstable.tolist()))
    last = trajectory.positions[-1]
    return Outcome(MDState(last, last, last, trajectory.energy[-1]), trajectory, verdict)


def samples_of(
    trajectory: Trajectory,
    force_field=None,
    system: System | None = None,
    generator: torch.Generator | None = None,
    at_once: int = 40,
    limited: bool = True,
    **sampling,
) -> Samples:
    """All finite frames of a trajectory as samples at 300 K."""
    choice = Sampling(KT, PiecesAtOnce(at_once, "structures of a minibatch", limited), **sampling)
    generator = generator or torch.Generator().manual_seed(0)
    return choice(force_field or Springs(), system or water(), outcome_of(trajectory), generator)
