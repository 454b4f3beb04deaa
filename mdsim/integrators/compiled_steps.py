"""Compiled integrator steps: one loop over replicas and atoms before each force evaluation, and one after it.

For a small molecule a force evaluation takes 0.2 ms, and the hundred tensor operations of a thermostat take ten times
as long. The loops follow the tensor code of each integrator, replica by replica. Chains are propagated in double
precision. The loops run on one thread, because a step of 128 aspirin replicas takes less time than waking a second one.

Baths of replicas, where present, are kT (eV), or kT relative to that of the chain's constants: of a chain, only the
force on its first link depends on kT, by Q_1.

Importing this module needs numba (the extra `fast`). `_moves.in_compiled_loops` decides when the loops are used.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from mdsim.compiled.jit import arrays, compiled
from mdsim.typing import Float, Tensor


def kick_and_drift(
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    forces: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
    dt: float,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"]]:
    """Velocity Verlet before the forces: positions after a full step and velocities after a half step."""
    moved, kicked = _new(positions), _new(positions)
    _kick_and_drift(*arrays(positions, velocities, forces, masses, dt, moved, kicked))
    return moved, kicked


def kick(
    velocities: Float[Tensor, "replica atom 3"],
    forces: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
    dt: float,
) -> Float[Tensor, "replica atom 3"]:
    """Velocities after half a time step of acceleration."""
    kicked = _new(velocities)
    _kick(*arrays(velocities, forces, masses, dt, kicked))
    return kicked


def kick_and_noisy_drift(
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    forces: Float[Tensor, "replica atom 3"],
    noise: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
    dt: float,
    kept: float,
    kT: float,
    kT_of_replicas: Float[Tensor, "replica"] | None = None,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"]]:
    """Langevin dynamics before the forces: positions and velocities after B A O A."""
    moved, kicked = _new(positions), _new(positions)
    given = arrays(positions, velocities, forces, noise, masses, dt, kept, kT, kT_of_replicas)
    _kick_and_noisy_drift(*given, *arrays(moved, kicked))
    return moved, kicked


def thermostat_kick_and_drift(
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    forces: Float[Tensor, "replica atom 3"],
    thermostat: Float[Tensor, "replica 2 chain"],
    masses: Float[Tensor, "atom"],
    dt: float,
    chain_masses: Float[np.ndarray, "chain"],
    substeps: Float[np.ndarray, "substep"],
    frequency: float,
    relative_kT: Float[Tensor, "replica"] | None = None,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 2 chain"]]:
    """First half step of the chain, then velocity Verlet up to the forces: positions, velocities and chains."""
    moved, kicked, chain = _new(positions), _new(positions), _new(thermostat)
    given = arrays(
        positions, velocities, forces, thermostat, masses, dt, chain_masses, substeps, frequency, relative_kT
    )
    _thermostat_kick_and_drift(*given, *arrays(moved, kicked, chain))
    return moved, kicked, chain


def kick_and_thermostat(
    velocities: Float[Tensor, "replica atom 3"],
    forces: Float[Tensor, "replica atom 3"],
    thermostat: Float[Tensor, "replica 2 chain"],
    masses: Float[Tensor, "atom"],
    dt: float,
    chain_masses: Float[np.ndarray, "chain"],
    substeps: Float[np.ndarray, "substep"],
    frequency: float,
    relative_kT: Float[Tensor, "replica"] | None = None,
) -> tuple[Float[Tensor, "replica atom 3"], Float[Tensor, "replica 2 chain"]]:
    """Half kick by the new forces, then the second half step of the chain: velocities and chains."""
    kicked, chain = _new(velocities), _new(thermostat)
    given = arrays(velocities, forces, thermostat, masses, dt, chain_masses, substeps, frequency, relative_kT)
    _kick_and_thermostat(*given, *arrays(kicked, chain))
    return kicked, chain


def propagated_chain(
    twice_kinetic: Float[Tensor, "replica"],
    thermostat: Float[Tensor, "replica 2 chain"],
    chain_masses: Float[np.ndarray, "chain"],
    substeps: Float[np.ndarray, "substep"],
    frequency: float,
    relative_kT: Float[Tensor, "replica"] | None = None,
) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica 2 chain"]]:
    """Half a time step of the chain: factors on the velocities, and chains."""
    scale, chain = _new(twice_kinetic), _new(thermostat)
    given = arrays(twice_kinetic, thermostat, chain_masses, substeps, frequency, relative_kT)
    _propagated_chain(*given, *arrays(scale, chain))
    return scale, chain


def _new(like: Tensor) -> Tensor:
    """A tensor for a loop to fill. It must be contiguous, or the loop would fill a copy."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


@compiled()
@no_type_check
def _kick_and_drift(positions, velocities, forces, masses, dt, moved, kicked):
    for r in range(len(positions)):
        for a in range(len(masses)):
            half = 0.5 * dt / masses[a]
            for k in range(3):
                kicked[r, a, k] = velocities[r, a, k] + half * forces[r, a, k]
                moved[r, a, k] = positions[r, a, k] + dt * kicked[r, a, k]


@compiled()
@no_type_check
def _kick(velocities, forces, masses, dt, kicked):
    for r in range(len(velocities)):
        for a in range(len(masses)):
            half = 0.5 * dt / masses[a]
            for k in range(3):
                kicked[r, a, k] = velocities[r, a, k] + half * forces[r, a, k]


@compiled()
@no_type_check
def _kick_and_noisy_drift(positions, velocities, forces, noise, masses, dt, kept, kT, kT_of_replicas, moved, kicked):
    for r in range(len(positions)):
        bath = kT if kT_of_replicas is None else kT_of_replicas[r]
        for a in range(len(masses)):
            half, thermal = 0.5 * dt / masses[a], np.sqrt((1.0 - kept * kept) * bath / masses[a])
            for k in range(3):
                before = velocities[r, a, k] + half * forces[r, a, k]
                after = kept * before + thermal * noise[r, a, k]
                kicked[r, a, k] = after
                moved[r, a, k] = positions[r, a, k] + 0.5 * dt * (before + after)


@compiled()
@no_type_check
def _thermostat_kick_and_drift(
    positions, velocities, forces, thermostat, masses, dt, Q, substeps, frequency, relative_kT, moved, kicked, chain
):
    links = np.empty((2, len(Q)))
    for r in range(len(positions)):
        links[:] = thermostat[r]
        heat = _twice_kinetic(velocities[r], masses)
        heat = heat if relative_kT is None else heat / relative_kT[r]
        scale = _half_step_of_chain(heat, links, Q, substeps, frequency)
        for a in range(len(masses)):
            half = 0.5 * dt / masses[a]
            for k in range(3):
                kicked[r, a, k] = scale * velocities[r, a, k] + half * forces[r, a, k]
                moved[r, a, k] = positions[r, a, k] + dt * kicked[r, a, k]
        chain[r] = links


@compiled()
@no_type_check
def _kick_and_thermostat(
    velocities, forces, thermostat, masses, dt, Q, substeps, frequency, relative_kT, kicked, chain
):
    _kick(velocities, forces, masses, dt, kicked)
    links = np.empty((2, len(Q)))
    for r in range(len(kicked)):
        links[:] = thermostat[r]
        heat = _twice_kinetic(kicked[r], masses)
        heat = heat if relative_kT is None else heat / relative_kT[r]
        scale = _half_step_of_chain(heat, links, Q, substeps, frequency)
        for a in range(len(masses)):
            for k in range(3):
                kicked[r, a, k] *= scale
        chain[r] = links


@compiled()
@no_type_check
def _propagated_chain(twice_kinetic, thermostat, Q, substeps, frequency, relative_kT, scale, chain):
    links = np.empty((2, len(Q)))
    for r in range(len(thermostat)):
        links[:] = thermostat[r]
        heat = twice_kinetic[r] if relative_kT is None else twice_kinetic[r] / relative_kT[r]
        scale[r] = _half_step_of_chain(heat, links, Q, substeps, frequency)
        chain[r] = links


@compiled()
@no_type_check
def _twice_kinetic(velocities, masses):
    total = 0.0
    for a in range(len(masses)):
        x, y, z = velocities[a, 0], velocities[a, 1], velocities[a, 2]
        total += masses[a] * (x * x + y * y + z * z)
    return total


@compiled()
@no_type_check
def _half_step_of_chain(twice_kinetic, links, Q, substeps, frequency):
    """Propagate the chain and return the factor on all velocities, as in `nose_hoover.propagated_chain`."""
    eta, v = links[0], links[1]
    driving, scale = twice_kinetic / Q[0], 1.0
    for s in range(len(substeps)):
        delta = substeps[s]
        for j in range(len(Q) - 1, -1, -1):
            v[j] = _kicked_link(j, v, Q, driving, delta, frequency)
        for j in range(len(Q)):
            eta[j] += delta * v[j]
        factor = np.exp(-delta * v[0])
        scale *= factor
        driving *= factor * factor
        for j in range(len(Q)):
            v[j] = _kicked_link(j, v, Q, driving, delta, frequency)
    return scale


@compiled()
@no_type_check
def _kicked_link(j, v, Q, driving, delta, frequency):
    """`nose_hoover._kicked_link`."""
    if j > 0:
        driving = Q[j - 1] / Q[j] * v[j - 1] * v[j - 1]
    change = 0.5 * delta * (driving - frequency * frequency)
    if j == len(Q) - 1:
        return v[j] + change
    friction = np.exp(-0.25 * delta * v[j + 1])
    return friction * (friction * v[j] + change)
