"""From the frames of a rerun to the samples of the Boltzmann estimator: whole structures, or neighborhoods in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from mdsim.config.schema import EstimatorConfig
from mdsim.dynamics.stretch import Outcome
from mdsim.estimator.boltzmann import ReweightedMean, reweighted_mean
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.sample_energies import SampleEnergies, neighborhood_energies, structure_energies
from mdsim.force_field import ForceField
from mdsim.interfaces import LocalObservable, Observable
from mdsim.memory import bytes_for, pieces_at_once
from mdsim.stability.verdict import non_finite
from mdsim.state import System, Trajectory
from mdsim.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Target:
    """One term of the observable loss: what is compared with which reference, how, and how much it counts."""

    observable: Observable
    reference: Float[Tensor, "bin"]
    loss: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0


@dataclass(frozen=True)
class Samples:
    """What one rerun gives to the estimator: structures, their observables, and the energies they were sampled with."""

    positions: Float[Tensor, "structure atom 3"]
    observable: Float[Tensor, "sample bin"]  # of all targets, side by side
    energy: Float[Tensor, "sample"]
    replica: Int[Tensor, "sample"]  # which rerun each comes from: the samples of one are correlated
    structure: Int[Tensor, "sample"] | None = None  # where neighborhoods lie, in ascending order; None: one each
    membership: Bool[Tensor, "sample atom"] | None = None  # atoms of the neighborhoods
    weights: Float[Tensor, "sample"] | None = None  # importance; None: all alike

    def __len__(self) -> int:
        return len(self.observable)

    def energies(self, force_field: ForceField, system: System) -> SampleEnergies:
        """Energies of the samples with the current parameters."""
        if self.structure is None or self.membership is None:
            return structure_energies(force_field, system, self.positions)
        return neighborhood_energies(force_field, system, self.positions, self.structure, self.membership)

    def minibatch_size(self, structures: int) -> int:
        """Samples that lie, on average, in so many structures: memory goes with the structures."""
        return structures if self.structure is None else structures * math.ceil(len(self) / len(self.positions))


def fitting_structures(
    force_field: ForceField, system: System, positions: Float[Tensor, "structure atom 3"], wanted: int
) -> int:
    """How many structures (Å) can be differentiated with respect to the parameters at once, within the memory budget.

    Args:
        force_field: its parameters are trained.
        system: what the structures are of.
        positions: of which the first is looked at.
        wanted: no more than these.
    """
    with torch.enable_grad():
        bytes_each = bytes_for(lambda: force_field.energy(system, positions[:1]))
    return pieces_at_once(bytes_each, wanted, positions.device, "structures of a minibatch")


def usable(outcome: Outcome, settings: EstimatorConfig) -> Bool[Tensor, "frame replica"]:
    """Frames that the estimator learns from: finite ones, not too long after a break, of the replicas asked for."""
    trajectory, verdict = outcome.trajectory, outcome.verdict
    finite = ~non_finite(trajectory)
    frame = torch.arange(trajectory.n_frames, device=finite.device)[:, None]
    if settings.frames_after_break is not None:
        finite &= frame < verdict.first_frame.to(finite.device) + settings.frames_after_break
    if settings.only_unstable:
        finite &= verdict.unstable.to(finite.device)
    return finite


def collect(
    system: System, trajectory: Trajectory, mask: Bool[Tensor, "frame replica"], targets: Sequence[Target]
) -> Samples:
    """The chosen frames as samples of the global estimator."""
    if trajectory.energy is None:
        raise ValueError("the trajectory has no energies")
    observable = torch.cat([target.observable(system, trajectory)[mask] for target in targets], dim=-1)
    return Samples(trajectory.positions[mask], observable, trajectory.energy[mask], torch.nonzero(mask)[:, 1])


def collect_neighborhoods(
    force_field: ForceField,
    system: System,
    trajectory: Trajectory,
    mask: Bool[Tensor, "frame replica"],
    targets: Sequence[Target],
    sampler: NeighborhoodSampler,
    structures_at_once: int,
    generator: torch.Generator,
) -> Samples:
    """Neighborhoods in the chosen frames as samples of the local estimator.

    Args:
        force_field: its atomic energies are those that the neighborhoods were sampled with.
        system: of the replicas.
        trajectory: their frames.
        mask: the frames to look at.
        targets: each with a `LocalObservable`.
        sampler: draws the neighborhoods.
        structures_at_once: fewer where the memory budget is smaller.
        generator: of the draw.
    """
    positions = trajectory.positions[mask]
    drawn = sampler(system, positions, generator)
    observable = torch.cat([_of_molecules(target, system, trajectory)[mask] for target in targets], dim=-1)
    samples = Samples(
        positions,
        observable[drawn.frames, drawn.molecules],
        positions.new_full((len(drawn.frames),), torch.nan),  # found below
        torch.nonzero(mask)[drawn.frames, 1],
        drawn.frames,
        drawn.membership,
        drawn.weights,
    )
    return replace(samples, energy=current_energies(force_field, system, samples, structures_at_once))


def _of_molecules(
    target: Target, system: System, trajectory: Trajectory
) -> Float[Tensor, "frame replica molecule bin"]:
    if not isinstance(target.observable, LocalObservable):
        raise ValueError(f"{target.observable.name} has no contributions of molecules, which the local estimator needs")
    return target.observable.per_molecule(system, trajectory)


def current_energies(
    force_field: ForceField, system: System, samples: Samples, structures_at_once: int
) -> Float[Tensor, "sample"]:
    """Energies of all samples in eV with the current parameters, without a graph."""
    fitting = fitting_structures(force_field, system, samples.positions, structures_at_once)
    energies, size = samples.energies(force_field, system), samples.minibatch_size(fitting)
    with torch.no_grad():
        index = torch.arange(len(samples), device=samples.observable.device)
        return torch.cat([energies(part) for part in index.split(size)])


def importance(
    force_field: ForceField, system: System, samples: Samples, kT: float, structures_at_once: int
) -> ReweightedMean:
    """Weights exp(-ΔU/kT) that carry the samples to the current parameters, with their effective sample size."""
    current = current_energies(force_field, system, samples, structures_at_once)
    return reweighted_mean(samples.observable, current, samples.energy, kT)
