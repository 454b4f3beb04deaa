"""Relative entropy between reference structures and those that the force field visits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from mdsim.estimator.loss_term import TermGradient
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.relative_entropy import Ensemble, relative_entropy_change, relative_entropy_gradient
from mdsim.estimator.sample_energies import neighborhood_energies, structure_energies
from mdsim.estimator.samples import Samples
from mdsim.force_field import ForceField
from mdsim.state import System
from mdsim.training.terms.draw import drawn
from mdsim.typing import Float, Int, Tensor


@dataclass(frozen=True, eq=False)
class ContrastTerm:
    """The gradient (<∂U/∂θ>_reference - <∂U/∂θ>_simulated) / kT. It needs structures, but no labels of them.

    At constant pressure it is the same, because the work P₀ V of a structure does not depend on θ.

    With the local estimator, both sides are neighborhoods, drawn in the same way and with their own energies.

    Args:
        system: the system of the reference structures.
        positions: reference structures from the ensemble of the dynamics, Å: canonical at its temperature or, with
            cells that move, isothermal-isobaric at its pressure too.
        weights: weight of each reference structure, e.g. to reweight to that temperature. None: equal.
        n_drawn: structures drawn per gradient on each side, because most of them are correlated. None: all. With the
            local estimator, all simulated neighborhoods are used.
        only_after_break: use only simulated frames from the break of a replica on. If the ensembles agree elsewhere,
            this leaves the direction of the gradient unchanged, with less noise.
        sampler: draws the neighborhoods of the local estimator. None: samples are whole structures.
        cells: lattice vectors of the reference structures, Å, at constant pressure. None: all have `System.cell`.
    """

    system: System
    positions: Float[Tensor, "structure atom 3"]
    weights: Float[Tensor, "structure"] | None = None
    n_drawn: int | None = None
    only_after_break: bool = False
    sampler: NeighborhoodSampler | None = None
    cells: Float[Tensor, "structure 3 3"] | None = None
    name: str = "contrast"
    uses_samples: bool = True

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """The gradient, or None without simulated samples. The loss is the relative entropy up to a constant."""
        if self.only_after_break:
            samples = samples.subset(torch.nonzero(samples.after_break).squeeze(-1))
        if not len(samples):
            return None
        if (samples.cells is None) != (self.cells is None):
            raise ValueError(
                "reference structures and simulated ones are of different ensembles: the cells of "
                + ("the simulation" if self.cells is None else "the references")
                + " alone move"
            )
        device = self.positions.device
        if samples.neighborhoods is None:
            samples = samples.subset(drawn(len(samples), self.n_drawn, samples.generator, device).sort().values)
        chosen = drawn(len(self.positions), self.n_drawn, samples.generator, device)
        reference = self._reference(force_field, chosen, samples.generator)
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
        return TermGradient(found.gradients, change, n_evaluated=len(samples.positions) + len(chosen))

    def _reference(self, force_field: ForceField, chosen: Int[Tensor, "drawn"], generator: torch.Generator) -> Ensemble:
        positions = self.positions[chosen]
        weights = positions.new_ones(len(chosen)) if self.weights is None else self.weights[chosen].to(positions)
        cells = None if self.cells is None else self.cells[chosen]
        if self.sampler is None:
            return Ensemble(structure_energies(force_field, self.system, positions, cells), weights)
        system = self.system if cells is None else replace(self.system, cell=cells)
        around = self.sampler(system, positions, generator)
        drawn_from = around.frames, around.membership
        energies = neighborhood_energies(force_field, self.system, positions, *drawn_from, cells)
        weights = weights[around.frames]
        return Ensemble(energies, weights if around.weights is None else weights * around.weights)
