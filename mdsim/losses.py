"""Losses of mean observables, and losses and error metrics of energies and forces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from mdsim.typing import Bool, Float, Int, Tensor

#: Maps a prediction and a target of equal shape to a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]

HUBER_DELTA = 0.01  # eV or eV/Å: residuals beyond it count linearly


def mean_squared_error(
    prediction: Float[Tensor, "*axes"],
    target: Float[Tensor, "*axes"],
    weights: Float[Tensor, "*axes"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared difference.

    Args:
        prediction: a mean observable, energies or forces.
        target: its reference.
        weights: relative importance of the entries, e.g. of the radii of an RDF. Normalized here.
    """
    squared = (prediction - target).square()
    return squared.mean() if weights is None else (weights * squared).sum() / weights.sum()


def sum_squared_error(mean: Float[Tensor, "bin"], reference: Float[Tensor, "bin"]) -> Float[Tensor, ""]:
    """Squared difference summed over bins, the loss of the published code of arXiv 2402.13984."""
    return (mean - reference).square().sum()


def wasserstein_1(mean: Float[Tensor, "bin"], reference: Float[Tensor, "bin"], spacing: float) -> Float[Tensor, ""]:
    """Earth mover's distance between two densities on an evenly spaced grid: ∫ |F - F_ref| dx.

    Unlike a squared error, it has a nonzero gradient when the densities do not overlap.

    Args:
        mean: non-negative density in each bin, normalized to unit mass here.
        reference: reference density, treated in the same way.
        spacing: bin width, which sets the unit of the distance.
    """
    p, p_ref = _unit_masses(mean, reference)
    difference = p - p_ref
    return spacing * difference.cumsum(0)[:-1].abs().sum()


def forward_kl(mean: Float[Tensor, "bin"], reference: Float[Tensor, "bin"], floor: float = 1e-4) -> Float[Tensor, ""]:
    """Divergence Σ p_ref log(p_ref / p) of two densities on one evenly spaced grid, in nats.

    Args:
        mean: non-negative density in each bin, normalized to unit mass here.
        reference: reference density, treated in the same way.
        floor: fraction of a uniform density that is mixed into both, so that empty bins give finite values.
    """
    p, p_ref = (_floored(density, floor) for density in _unit_masses(mean, reference))
    return (p_ref * (p_ref / p).log()).sum()


def reverse_kl(mean: Float[Tensor, "bin"], reference: Float[Tensor, "bin"], floor: float = 1e-4) -> Float[Tensor, ""]:
    """Divergence Σ p log(p / p_ref), which penalizes values absent from the reference. Arguments as in `forward_kl`.

    Its gradient in a bin is log(p / p_ref) + 1. Rare structures in bins that are empty in the reference therefore
    outweigh the sampling noise of well-filled bins. With a squared difference, the noise would dominate.
    """
    p, p_ref = (_floored(density, floor) for density in _unit_masses(mean, reference))
    return (p * (p / p_ref).log()).sum()


def _floored(density: Float[Tensor, "bin"], floor: float) -> Float[Tensor, "bin"]:
    return (1 - floor) * density + floor / len(density)


def _unit_masses(mean: Float[Tensor, "bin"], reference: Float[Tensor, "bin"]) -> Iterator[Float[Tensor, "bin"]]:
    """Both densities with unit mass. They are checked at once, because the host waits for each answer of a GPU."""
    densities = {"mean": mean, "reference": reference}
    totals = torch.stack([mean.sum(), reference.sum().to(mean)])
    lowest = torch.stack([mean.min(), reference.min().to(mean)])
    if not bool(((totals > 0) & (lowest >= 0)).all()):
        for name, total, low in zip(densities, totals.tolist(), lowest.tolist(), strict=True):
            if not (total > 0 and low >= 0):
                raise ValueError(
                    f"the {name} must be a density: no negative bin and a positive sum, found the sum {total:.3g}"
                )
    return (density / density.sum() for density in densities.values())


def mean_absolute_error(prediction: Float[Tensor, "*axes"], target: Float[Tensor, "*axes"]) -> Float[Tensor, ""]:
    """Mean absolute difference over all entries (for forces, over components)."""
    return (prediction - target).abs().mean()


def huber(
    prediction: Float[Tensor, "*axes"], target: Float[Tensor, "*axes"], delta: float = HUBER_DELTA
) -> Float[Tensor, ""]:
    """Half the squared difference up to ``delta``, and linear beyond."""
    return torch.nn.functional.huber_loss(prediction, target, delta=delta)


def l2_mean_absolute_error(prediction: Float[Tensor, "*atom 3"], target: Float[Tensor, "*atom 3"]) -> Float[Tensor, ""]:
    """Mean length of the error vector of each atom, independent of the axes ("l2mae" of GemNet)."""
    return torch.linalg.vector_norm(prediction - target, dim=-1).mean()


#: Maps energies (eV), forces (eV/Å) and their references to a scalar.
EnergyForceLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def energy_force_loss(
    energy: Float[Tensor, "structure"],
    forces: Float[Tensor, "structure atom 3"],
    reference_energy: Float[Tensor, "structure"],
    reference_forces: Float[Tensor, "structure atom 3"],
    *,
    energy_weight: float,
    force_weight: float,
    energy_loss: Loss = mean_squared_error,
    force_loss: Loss = mean_squared_error,
    energy_per_atom: bool = False,
) -> Float[Tensor, ""]:
    """Weighted sum of an energy loss (eV, or eV per atom) and a force loss (eV/Å)."""
    if energy_per_atom:
        n_atoms = forces.shape[-2]
        energy, reference_energy = energy / n_atoms, reference_energy / n_atoms
    return energy_weight * energy_loss(energy, reference_energy) + force_weight * force_loss(forces, reference_forces)


def energy_force_errors(
    energy: Float[Tensor, "structure"],
    forces: Float[Tensor, "structure atom 3"],
    reference_energy: Float[Tensor, "structure"],
    reference_forces: Float[Tensor, "structure atom 3"],
) -> dict[str, float]:
    """Mean absolute and root mean square errors of energies and force components, with units in the names.

    Args:
        energy, reference_energy: eV.
        forces, reference_forces: eV/Å.
    """
    n_atoms = forces.shape[-2]
    energy_error = 1000 * (energy.double() - reference_energy.double()).detach()
    force_error = 1000 * (forces.double() - reference_forces.double()).detach()
    errors = {"energy_mae_meV": energy_error.abs().mean(), "energy_rmse_meV": energy_error.square().mean().sqrt()}
    errors |= {f"{name}_per_atom": value / n_atoms for name, value in errors.items()}
    errors["force_mae_meV_per_A"] = force_error.abs().mean()
    errors["force_rmse_meV_per_A"] = force_error.square().mean().sqrt()
    return {name: float(value) for name, value in errors.items()}


class Labeled(NamedTuple):
    """Energies (eV), forces (eV/Å) and stresses (eV/Å³) of structures of any sizes, predicted or as labels."""

    energy: Float[Tensor, "structure"]
    forces: Float[Tensor, "atom 3"]
    stress: Float[Tensor, "structure 3 3"] | None = None  # NaN where a structure has none


@dataclass(frozen=True)
class MixedLoss:
    """Weighted sum of losses of energies per atom (eV), force components (eV/Å) and stresses (eV/Å³).

    Every structure counts equally in the energy, every atom in the forces, and every label in the stress.

    Args:
        energy_weight, force_weight, stress_weight: weights of the sum.
        energy_loss, force_loss, stress_loss: losses that are means over their entries.
        energy_per_atom: divide energies by the number of atoms. Otherwise they are those of whole structures.
    """

    energy_weight: float
    force_weight: float
    stress_weight: float = 0.0
    energy_loss: Loss = mean_squared_error
    force_loss: Loss = mean_squared_error
    stress_loss: Loss = mean_squared_error
    energy_per_atom: bool = True

    @property
    def needs_stress(self) -> bool:
        return self.stress_weight > 0

    def __call__(
        self,
        predicted: Labeled,
        labels: Labeled,
        n_atoms: Int[Tensor, "structure"],
        shares: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Float[Tensor, ""]:
        """The loss. If the structures are a part of a batch, the losses of all parts sum to that of the batch.

        Args:
            predicted, labels: of the same structures.
            n_atoms: atoms of each.
            shares: fraction of the structures, of the atoms and of the stress labels of the batch.
        """
        per = n_atoms.to(predicted.energy) if self.energy_per_atom else torch.ones_like(predicted.energy)
        total = shares[0] * self.energy_weight * self.energy_loss(predicted.energy / per, labels.energy / per)
        total = total + shares[1] * self.force_weight * self.force_loss(predicted.forces, labels.forces)
        if not self.needs_stress or predicted.stress is None or labels.stress is None:
            return total
        known = has_stress(labels.stress)
        if not known.any():
            return total
        return total + shares[2] * self.stress_weight * self.stress_loss(predicted.stress[known], labels.stress[known])


def has_stress(stress: Float[Tensor, "structure 3 3"]) -> Bool[Tensor, "structure"]:
    """Whether each structure has a stress label."""
    return stress.isfinite().all(2).all(1)


def mixed_errors(predicted: Labeled, labels: Labeled, n_atoms: Int[Tensor, "structure"]) -> dict[str, float]:
    """Errors as in `energy_force_errors`, and those of stresses where there are labels."""
    energy_error = 1000 * (predicted.energy.double() - labels.energy.double()).detach()
    found = {
        "energy_{}_meV": energy_error,
        "energy_{}_meV_per_atom": energy_error / n_atoms,
        "force_{}_meV_per_A": 1000 * (predicted.forces.double() - labels.forces.double()).detach(),
    }
    if predicted.stress is not None and labels.stress is not None and (known := has_stress(labels.stress)).any():
        error = predicted.stress[known].double() - labels.stress[known].double()
        found["stress_{}_meV_per_A3"] = 1000 * error.detach()
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "mae": lambda error: error.abs().mean(),
        "rmse": lambda error: error.square().mean().sqrt(),
    }
    return {
        name.format(kind): float(measure(error)) for name, error in found.items() for kind, measure in kinds.items()
    }
