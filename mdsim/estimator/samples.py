"""Samples of a rerun for the loss terms: whole structures or neighborhoods, with energies and weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from mdsim import distributed
from mdsim.dynamics.by_rank import by_rank
from mdsim.dynamics.state_points import Conditions
from mdsim.dynamics.stretch import Outcome
from mdsim.estimator.boltzmann import boltzmann_weights, effective_sample_size
from mdsim.estimator.neighborhoods import Neighborhoods, NeighborhoodSampler
from mdsim.estimator.sample_energies import SampleEnergies, neighborhood_energies, structure_energies
from mdsim.force_field import ForceField
from mdsim.interfaces import LocalObservable, Observable
from mdsim.memory import PiecesAtOnce
from mdsim.stability.verdict import non_finite
from mdsim.state import System, Trajectory
from mdsim.typing import Bool, Float, Int, Tensor
from mdsim.units import kT_eV


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of one rerun, as passed to the loss terms.

    Attributes:
        system: the system of the replicas.
        trajectory: the rerun.
        mask: the frames that are used.
        positions: structures of these frames, Å.
        energy: energy of each sample at the parameters that generated it, eV.
        replica: the replica of each sample. Samples of one replica are correlated.
        after_break: whether a sample is from the first unstable frame of its replica or a later one.
        bath: thermal energy of the rerun, eV, or that of each sample if they are at several state points.
        generator: random numbers for the terms.
        structures_at_once: structures per backward pass, within the memory budget.
        neighborhoods: the samples of the local estimator. None: samples are whole structures.
        reweighting: weights that reweight the samples to other parameters. None: the parameters are unchanged.
        cells: lattice vectors of the structures, Å, where they move. None: all have `System.cell`.
        carry: weights that carry samples of earlier reruns to the parameters of this one. None: all are of this one.
        pressure: pressure on each sample, eV/Å³, if they are at state points that have one.
    """

    system: System
    trajectory: Trajectory
    mask: Bool[Tensor, "frame replica"]
    positions: Float[Tensor, "structure atom 3"]
    energy: Float[Tensor, "sample"]
    replica: Int[Tensor, "sample"]
    after_break: Bool[Tensor, "sample"]
    bath: float | Float[Tensor, "sample"]
    generator: torch.Generator
    structures_at_once: PiecesAtOnce
    neighborhoods: Neighborhoods | None = None
    reweighting: Float[Tensor, "sample"] | None = None
    cells: Float[Tensor, "structure 3 3"] | None = None
    carry: Float[Tensor, "sample"] | None = None
    pressure: Float[Tensor, "sample"] | None = None
    _values: dict[int, tuple[Observable, Tensor]] = field(default_factory=dict)  # shared by reweighted copies
    _parent: tuple[Samples, Tensor] | None = None  # of a subset: all samples, and the indices of the subset

    def __len__(self) -> int:
        return len(self.replica)

    @property
    def kT(self) -> float:
        """Thermal energy of all samples, eV.

        Raises:
            ValueError: samples are at several state points.
        """
        if isinstance(self.bath, Tensor):
            raise ValueError("these samples are at several state points: take those `at` one of them")
        return self.bath

    def at(self, conditions: Conditions) -> Samples:
        """The samples at a state point, possibly none."""
        if not isinstance(self.bath, Tensor):
            raise ValueError("these samples are at a single state point")
        here = torch.nonzero(conditions.among(self.bath, self.pressure)).squeeze(-1)
        found = replace(self.subset(here), bath=kT_eV(conditions.temperature_K), pressure=None)
        if found.neighborhoods is None or not len(found):
            return found
        needed, frames = torch.unique(found.neighborhoods.frames, return_inverse=True)
        cells = None if found.cells is None else found.cells[needed]
        drawn = replace(found.neighborhoods, frames=frames)
        return replace(found, positions=found.positions[needed], cells=cells, neighborhoods=drawn)

    def values(self, observable: Observable) -> Float[Tensor, "sample bin"]:
        """The observable of each sample, computed once per rerun.

        Raises:
            ValueError: samples are neighborhoods, and the observable has no contributions of molecules.
        """
        if id(observable) not in self._values:
            self._values[id(observable)] = observable, self._measured(observable)
        return self._values[id(observable)][1]

    def energies(self, force_field: ForceField) -> SampleEnergies:
        """Energies of the samples (eV) with the current parameters."""
        drawn = self.neighborhoods
        if drawn is None:
            return structure_energies(force_field, self.system, self.positions, self.cells)
        chosen = drawn.frames, drawn.membership
        return neighborhood_energies(force_field, self.system, self.positions, *chosen, self.cells)

    def minibatch_size(self, force_field: ForceField) -> int:
        """Samples per backward pass that fit into memory. The memory depends on the number of their structures."""

        def one() -> Tensor:
            with torch.enable_grad():
                cells = None if self.cells is None else self.cells[:1]
                return structure_energies(force_field, self.system, self.positions[:1], cells)(torch.arange(1))

        structures = self.structures_at_once(one, self.positions.device)
        return structures * math.ceil(len(self) / max(1, len(self.positions)))

    @property
    def weights(self) -> Float[Tensor, "sample"] | None:
        """Weight of each sample in a mean: importance of the draw times reweighting. None: equal weights."""
        return _product(self.importance, self.reweighting)

    @property
    def importance(self) -> Float[Tensor, "sample"] | None:
        """Weight of each sample at the parameters that generated it. None: equal weights."""
        return _product(None if self.neighborhoods is None else self.neighborhoods.weights, self.carry)

    def reweighted(self, force_field: ForceField) -> Samples:
        """The same samples, reweighted to the current parameters by weights ∝ exp(-ΔU/kT), at each state point."""
        return self._reweighted_to(self.current_energies(force_field))

    def carried(self, force_field: ForceField) -> Samples:
        """The samples as if the current parameters had made them, with weights whose sum is their effective number."""
        energies = self.current_energies(force_field)
        there = self._reweighted_to(energies)
        assert there.reweighting is not None
        return replace(self, energy=energies, carry=len(self) * there.effective_fraction * there.reweighting)

    def _reweighted_to(self, energies: Float[Tensor, "sample"]) -> Samples:
        if not isinstance(self.bath, Tensor):
            return replace(self, reweighting=boltzmann_weights(energies, self.energy, self.bath))
        weights = torch.zeros_like(energies)
        for kT, here in self._state_points():
            share = float(here.sum()) / len(self)
            weights[here] = share * boltzmann_weights(energies[here], self.energy[here], kT)
        return replace(self, reweighting=weights)

    def _state_points(self) -> Iterator[tuple[float, Bool[Tensor, "sample"]]]:
        """The thermal energies of several state points, and the samples at each."""
        assert isinstance(self.bath, Tensor)
        for kT in self.bath.unique().tolist():
            if self.pressure is None:
                yield kT, self.bath == kT
                continue
            for pressure in self.pressure[self.bath == kT].unique():
                yield kT, (self.bath == kT) & (self.pressure == pressure)

    @property
    def effective_fraction(self) -> float:
        """Kish's effective sample size of the reweighting per sample: the smallest of all state points."""
        weights = self.reweighting
        if weights is None:
            return 1.0
        if not isinstance(self.bath, Tensor):
            return effective_sample_size(weights) / len(self)
        return min(effective_sample_size(weights[here]) / int(here.sum()) for _, here in self._state_points())

    def current_energies(self, force_field: ForceField) -> Float[Tensor, "sample"]:
        """Energies of all samples in eV with the current parameters, without a graph."""
        energies, size = self.energies(force_field), self.minibatch_size(force_field)
        with torch.no_grad():
            index = distributed.share_of_equals(len(self), self.replica.device)
            return distributed.gathered(torch.cat([energies(part) for part in index.split(size)]), len(self))

    def subset(self, kept: Int[Tensor, "sample"]) -> Samples:
        """Some of the samples, by ascending index."""
        drawn = self.neighborhoods
        return replace(
            self,
            positions=self.positions[kept] if drawn is None else self.positions,
            cells=self.cells[kept] if drawn is None and self.cells is not None else self.cells,
            energy=self.energy[kept],
            replica=self.replica[kept],
            after_break=self.after_break[kept],
            bath=self.bath[kept] if isinstance(self.bath, Tensor) else self.bath,
            pressure=None if self.pressure is None else self.pressure[kept],
            neighborhoods=None if drawn is None else drawn.subset(kept),
            reweighting=None if self.reweighting is None else self.reweighting[kept],
            carry=None if self.carry is None else self.carry[kept],
            _values={},
            _parent=(self, kept),
        )

    def _measured(self, observable: Observable) -> Float[Tensor, "sample bin"]:
        if self._parent is not None:
            everyone, kept = self._parent
            return everyone.values(observable)[kept]
        if self.neighborhoods is None:
            return by_rank(observable, self.system, self.trajectory)[self.mask]
        if not isinstance(observable, LocalObservable):
            raise ValueError(f"{observable.name} has no contributions of molecules, which the local estimator needs")
        of_molecules = by_rank(observable.per_molecule, self.system, self.trajectory)[self.mask]
        return of_molecules[self.neighborhoods.frames, self.neighborhoods.molecules]


def _product(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The product of two sets of weights, where None stands for equal weights."""
    return second if first is None else first if second is None else first * second


@dataclass(frozen=True, eq=False)
class Sampling:
    """Selection of samples from the frames of a rerun.

    Attributes:
        kT: thermal energy of the dynamics, eV, of replicas without one of their own.
        structures_at_once: largest number of structures per backward pass.
        frames_after_break: frames kept of a replica after its first unstable one. None: all finite frames.
        only_unstable: leave out the replicas that did not break.
        sampler: draws the neighborhoods of the local estimator. None: samples are whole structures.
    """

    kT: float
    structures_at_once: PiecesAtOnce = field(default_factory=lambda: PiecesAtOnce(40, "structures of a minibatch"))
    frames_after_break: int | None = None
    only_unstable: bool = False
    sampler: NeighborhoodSampler | None = None

    def __call__(
        self, force_field: ForceField, system: System, outcome: Outcome, generator: torch.Generator
    ) -> Samples:
        """The samples of a rerun, possibly none.

        Args:
            force_field: the force field of the rerun.
            system: the system of the replicas.
            outcome: result of the rerun.
            generator: random numbers, here and in the terms.
        """
        trajectory, mask = outcome.trajectory, self.usable(outcome)
        if trajectory.energy is None:
            raise ValueError("the trajectory has no energies")
        positions, energy, replica = trajectory.positions[mask], trajectory.energy[mask], torch.nonzero(mask)[:, 1]
        after_break, cells, drawn = outcome.after_break[mask], None, None
        if trajectory.cell is not None:
            cells = trajectory.cell[mask]
        if self.sampler is not None and len(positions):
            drawn = self.sampler(system if cells is None else replace(system, cell=cells), positions, generator)
            energy = torch.full_like(drawn.frames, torch.nan, dtype=energy.dtype)  # not known yet
            replica, after_break = replica[drawn.frames], after_break[drawn.frames]
        bath = self.kT if outcome.state.kT is None else outcome.state.kT[replica]
        of_samples = (energy, replica, after_break, bath, generator, self.structures_at_once, drawn)
        pressure = None if outcome.state.pressure is None else outcome.state.pressure[replica]
        samples = Samples(system, trajectory, mask, positions, *of_samples, cells=cells, pressure=pressure)
        return samples if drawn is None else replace(samples, energy=samples.current_energies(force_field))

    def usable(self, outcome: Outcome) -> Bool[Tensor, "frame replica"]:
        """Mask of the frames to learn from: finite, not too long after a break, and of the selected replicas."""
        trajectory, verdict = outcome.trajectory, outcome.verdict
        mask = ~non_finite(trajectory)
        if self.frames_after_break is not None:
            mask &= outcome.frame < verdict.first_frame.to(mask.device) + self.frames_after_break
        if self.only_unstable:
            mask &= verdict.unstable.to(mask.device)
        return mask
