"""Losses built from a configuration: of energies and forces, and of observables."""

from __future__ import annotations

from functools import partial

from mdsim import losses
from mdsim.errors import ConfigError
from mdsim.interfaces import BinnedObservable
from mdsim.observables.densities import is_density

OF_DENSITIES = ("wasserstein", "forward_kl", "reverse_kl")


def energy_force_loss(
    kind: str, energy_weight: float, force_weight: float, energy_per_atom: bool = False
) -> losses.EnergyForceLoss:
    """The loss of the energy/force fit."""
    energy_loss, force_loss = _kinds(kind)
    return partial(
        losses.energy_force_loss,
        energy_weight=energy_weight,
        force_weight=force_weight,
        energy_loss=energy_loss,
        force_loss=force_loss,
        energy_per_atom=energy_per_atom,
    )


def mixed_loss(
    kind: str, energy_weight: float, force_weight: float, stress_weight: float = 0.0, energy_per_atom: bool = True
) -> losses.MixedLoss:
    """The loss of frames of several compositions and cells, and of stresses."""
    of_energies, of_forces = _kinds(kind)
    return losses.MixedLoss(
        energy_weight, force_weight, stress_weight, of_energies, of_forces, of_energies, energy_per_atom
    )


def _kinds(kind: str) -> tuple[losses.Loss, losses.Loss]:
    """The losses of energies and of forces."""
    return {
        "mae": (losses.mean_absolute_error, losses.mean_absolute_error),
        "mse": (losses.mean_squared_error, losses.mean_squared_error),
        "huber": (losses.huber, losses.huber),
        "l2mae": (losses.mean_absolute_error, losses.l2_mean_absolute_error),
    }[kind]


def observable_loss(kind: str, quantity: BinnedObservable) -> losses.Loss:
    """The loss of a mean observable with respect to its reference.

    Raises:
        ConfigError: a loss of densities for an observable that is none.
    """
    if kind in OF_DENSITIES and not is_density(quantity):
        raise ConfigError(f"loss: {kind} compares densities, and {quantity.name} is none: use mse or sse")
    if kind == "wasserstein":
        spacing = float(quantity.bin_centers[1] - quantity.bin_centers[0])
        return partial(losses.wasserstein_1, spacing=spacing)
    by_name: dict[str, losses.Loss] = {
        "mse": losses.mean_squared_error,
        "sse": losses.sum_squared_error,
        "forward_kl": losses.forward_kl,
        "reverse_kl": losses.reverse_kl,
    }
    return by_name[kind]


def dynamical_loss(kind: str) -> losses.Loss:
    """The loss of a mean dynamical observable, of any sign, with respect to its reference."""
    by_name: dict[str, losses.Loss] = {"mse": losses.mean_squared_error, "sse": losses.sum_squared_error}
    return by_name[kind]
