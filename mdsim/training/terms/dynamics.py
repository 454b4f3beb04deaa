"""Loss of dynamical observables of short windows, such as diffusivities, with gradients by the adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from mdsim.dynamics.adjoint import velocity_kept
from mdsim.dynamics.stretch import initial_conditions
from mdsim.estimator.loss_term import TermGradient
from mdsim.estimator.samples import Samples
from mdsim.estimator.windows import WindowSettings, window_gradient
from mdsim.force_field import ForceField
from mdsim.interfaces import Integrator
from mdsim.memory import PiecesAtOnce
from mdsim.state import System
from mdsim.training.terms.observables import Target, weighted_loss
from mdsim.typing import Float, Tensor


@dataclass(frozen=True, eq=False)
class DynamicsTerm:
    """The weighted sum of the losses of mean dynamical observables over windows of the term's own dynamics.

    The windows are centered at reference structures with Maxwell-Boltzmann velocities. These do not depend on the
    parameters, and a force field with the forces of the reference has its observables. Another one has those of its own
    dynamics about reference structures, which differ from its equilibrium dynamics as far as its structure does.

    Args:
        system: the system of the windows.
        integrator: velocity Verlet or BAOAB.
        positions: reference structures from the canonical ensemble, Å, from which the centers are drawn.
        temperature_K: of the velocities of the centers.
        targets: dynamical observables with their references.
        n_windows: windows per gradient.
        settings: of the windows.
        structures_at_once: structures per backward pass.

    Raises:
        ValueError: the integrator has no adjoint.
    """

    system: System
    integrator: Integrator
    positions: Float[Tensor, "structure atom 3"]
    temperature_K: float
    targets: Sequence[Target]
    n_windows: int
    settings: WindowSettings
    structures_at_once: PiecesAtOnce = field(default_factory=lambda: PiecesAtOnce(40, "structures of a minibatch"))
    name: str = "dynamics"
    uses_samples: bool = False

    def __post_init__(self) -> None:
        velocity_kept(self.integrator)

    def gradient(self, force_field: ForceField, samples: Samples) -> TermGradient | None:
        """Gradient over new windows, or None if none of them is finite. Only random numbers of the samples are used."""
        centers = initial_conditions(self.system, self.positions, self.n_windows, self.temperature_K, samples.generator)
        found = window_gradient(
            force_field,
            self.system,
            self.integrator,
            *centers,
            [target.observable for target in self.targets],
            lambda mean: weighted_loss(self.targets, mean),
            self.settings,
            samples.generator,
            self._at_once(force_field),
        )
        if found is None:
            return None
        parts = found.mean.split([len(target.reference) for target in self.targets])
        scalars = {
            f"{target.observable.name}": float(part)
            for part, target in zip(parts, self.targets, strict=True)
            if len(part) == 1
        }
        scalars |= {"finite_windows": float(found.n_finite), "largest_window": found.largest_ratio}
        return TermGradient(found.gradients, found.loss, scalars, found.n_evaluated)

    def _at_once(self, force_field: ForceField) -> int:
        def one() -> Tensor:
            with torch.enable_grad():
                return force_field.energy(self.system, self.positions[:1])

        return self.structures_at_once(one, self.positions.device)
