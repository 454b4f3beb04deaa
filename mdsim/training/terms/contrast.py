"""Relative entropy between reference structures and those that the force field visits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.estimator.loss_term import TermGradient
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.relative_entropy import Ensemble, relative_entropy_change, relative_entropy_gradient
from mdsim.estimator.sample_energies import neighborhood_energies, structure_energies
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True, eq=False)
class ContrastTerm:
    """The gradient (<∂U/∂θ>_reference - <∂U/∂θ>_simulated) / kT. It needs structures, but no labels of them.

    With the local estimator, both sides are neighborhoods, drawn in the same way and with their own energies.

    Args:
        system: the system of the reference structures.
        positions: reference structures from the canonical ensemble at the temperature of the dynamics, Å.
        weights: weight of each reference structure, e.g. to reweight to that temperature. None: equal.
        n_drawn: structures drawn per gradient on each side, because most of them are correlated. None: all. With the
            local estimator, all simulated neighborhoods are used.
        only_after_break: use only simulated frames from the break of a replica on. If the ensembles agree elsewhere,
            this leaves the direction of the gradient unchanged, with less noise.
        sampler: draws the neighborhoods of the local estimator. None: samples are whole structures.
    """

    system: System
    positions: Float[Tensor, "structure atom 3"]
    weights: Float[Tensor, "structure"] | None = None
    n_drawn: int | None = None
    only_after_break: bool = False
    sampler: NeighborhoodSampler | None = None
    name: str = "contrast"
    uses_samples: bool = True

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """The gradient, or None without simulated samples. The loss is the relative entropy up to a constant."""
        if self.only_after_break:
            samples = samples.subset(torch.nonzero(samples.after_break).squeeze(-1))
        if not len(samples):
            return None
        if samples.neighborhoods is None:
            samples = samples.subset(self._drawn(len(samples), samples.generator).sort().values)
        drawn = self._drawn(len(self.positions), samples.generator)
        reference = self._reference(force_field, drawn, samples.generator)
        equal = torch.ones_like(samples.energy)
        simulated = Ensemble(samples.energies(force_field), equal if samples.weights is None else samples.weights)
        found = relative_entropy_gradient(
            reference, simulated, force_field.trainable_parameters, samples.kT, samples.minibatch_size(force_field)
        )
        change = relative_entropy_change(
            found.reference_energies,
            found.simulated_energies,
            samples.energy,
            samples.kT,
            reference.weights,
            samples.importance,
        )
        return TermGradient(found.gradients, change, n_evaluated=len(samples.positions) + len(drawn))

    def _drawn(self, n_structures: int, generator: torch.Generator) -> Int[Tensor, "drawn"]:
        """Indices of the structures of one gradient."""
        device = self.positions.device
        if self.n_drawn is None or self.n_drawn >= n_structures:
            return torch.arange(n_structures, device=device)
        return torch.randperm(n_structures, generator=generator, device=generator.device)[: self.n_drawn].to(device)

    def _reference(self, force_field: ForceField, drawn: Int[Tensor, "drawn"], generator: torch.Generator) -> Ensemble:
        positions = self.positions[drawn]
        weights = positions.new_ones(len(drawn)) if self.weights is None else self.weights[drawn].to(positions)
        if self.sampler is None:
            return Ensemble(structure_energies(force_field, self.system, positions), weights)
        chosen = self.sampler(self.system, positions, generator)
        energies = neighborhood_energies(force_field, self.system, positions, chosen.frames, chosen.membership)
        weights = weights[chosen.frames]
        return Ensemble(energies, weights if chosen.weights is None else weights * chosen.weights)
