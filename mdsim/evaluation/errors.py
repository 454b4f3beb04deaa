"""Errors of a force field on labeled frames."""

from __future__ import annotations

from typing import TypeVar

import torch

from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.npz import Frames
from mdsim.force_field import ForceField
from mdsim.losses import energy_force_errors
from mdsim.state import System
from mdsim.typing import Float

FramesOfAnyKind = TypeVar("FramesOfAnyKind", Frames, MixedFrames)


def evenly_spaced(frames: FramesOfAnyKind, most: int | None) -> FramesOfAnyKind:
    """At most so many of the frames, spread evenly from the first to the last. None: all of them."""
    if most is None or len(frames) <= most:
        return frames
    return frames[torch.linspace(0, len(frames) - 1, most, dtype=torch.float64).round().long()]


def predict(
    model: ForceField, system: System, positions: Float[Tensor, "frame atom 3"], batch_size: int
) -> tuple[Float[Tensor, "frame"], Float[Tensor, "frame atom 3"]]:
    """Energies (eV, from the zero of the model) and forces (eV/Å) of many frames, batch by batch."""
    potential = model.bind(system)
    results = [potential(batch) for batch in positions.split(batch_size)]
    return torch.cat([energy for energy, _ in results]), torch.cat([forces for _, forces in results])


def predictions_and_labels(
    model: ForceField, system: System, frames: Frames, batch_size: int
) -> tuple[
    Float[Tensor, "frame"], Float[Tensor, "frame atom 3"], Float[Tensor, "frame"], Float[Tensor, "frame atom 3"]
]:
    """Energies (eV, from the zero of the model) and forces (eV/Å) of labeled frames, then their labels."""
    energy, forces = predict(model, system, frames.positions.to(system.masses), batch_size)
    labels = (frames.energy.to(energy.device) - model.zero_energy_eV(system)).to(energy)
    return energy, forces, labels, frames.labels.to(forces)


def errors_on(model: ForceField, system: System, frames: Frames, batch_size: int) -> dict[str, float]:
    """Energy and force MAE and RMSE of a force field on labeled frames; units are in the keys."""
    return energy_force_errors(*predictions_and_labels(model, system, frames, batch_size))
