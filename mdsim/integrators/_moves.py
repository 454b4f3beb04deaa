"""Kicks and drifts shared by the integrators, as compiled loops where possible and as tensor operations otherwise."""

from __future__ import annotations

import logging
from functools import cache

import torch

from mdsim.compiled import HAS_NUMBA, NEEDS_NUMBA
from mdsim.kept import Kept
from mdsim.typing import Float, Tensor

log = logging.getLogger("mdsim")


def in_compiled_loops(positions: Tensor) -> bool:
    """Whether steps run in `compiled_steps`: on a CPU, without gradients, with numba."""
    return not torch.is_grad_enabled() and _compiled_on(positions.device.type)


@cache
def _compiled_on(device_type: str) -> bool:
    """Whether steps without gradients use compiled loops on a kind of device. The choice is logged once."""
    reason = None
    if device_type != "cpu":
        reason = f"it runs on the CPU, not on {device_type}"
    elif not HAS_NUMBA:
        reason = NEEDS_NUMBA
    if reason is None:
        log.info("integration: one compiled loop on each side of the forces")
    else:
        log.info("integration: tensor operations, no compiled loop: %s", reason)
    return reason is None


def kick(
    velocities: Float[Tensor, "replica atom 3"],
    forces: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
    dt: float,
) -> Float[Tensor, "replica atom 3"]:
    """v + dt/2 · F/m, in ASE units of time."""
    if in_compiled_loops(velocities):
        from mdsim.integrators import compiled_steps

        return compiled_steps.kick(velocities, forces, masses, dt)
    return torch.addcmul(velocities, forces, inverse(masses), value=0.5 * dt)


def kick_and_drift(
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    forces: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
    dt: float,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"]]:
    """x + dt · v and v, where v includes a half kick."""
    if in_compiled_loops(positions):
        from mdsim.integrators import compiled_steps

        return compiled_steps.kick_and_drift(positions, velocities, forces, masses, dt)
    velocities = kick(velocities, forces, masses, dt)
    return drift(positions, velocities, dt), velocities


def drift(
    positions: Float[Tensor, "replica atom 3"], velocities: Float[Tensor, "replica atom 3"], dt: float
) -> Float[Tensor, "replica atom 3"]:
    """x + dt · v."""
    return torch.add(positions, velocities, alpha=dt)


def thermal_velocities(
    masses: Float[Tensor, "atom"], kT: float, kT_of_replicas: Float[Tensor, "replica"] | None = None
) -> Float[Tensor, "*replica atom 1"]:
    """√(kT/m) with one kT (eV), or with that of each replica where it is given."""
    if kT_of_replicas is None:
        return _thermal_velocities(masses, kT)
    return torch.sqrt(kT_of_replicas[:, None, None] / masses[:, None])


#: 1/m of each atom, and √(kT/m) given kT (eV), as columns.
inverse: Kept[Tensor] = Kept(lambda masses: 1 / masses[:, None])
_thermal_velocities: Kept[Tensor] = Kept(lambda masses, kT: torch.sqrt(kT / masses[:, None]))
