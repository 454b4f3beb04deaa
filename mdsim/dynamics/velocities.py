"""Initial velocities from the Maxwell-Boltzmann distribution, without the conserved momenta."""

from __future__ import annotations

import torch

from mdsim.geometry import center_of_mass
from mdsim.state import System, kinetic_temperature_K
from mdsim.typing import Bool, Float, Tensor
from mdsim.units import kT_eV

# An axis with a moment of inertia below this fraction of the largest is the axis of a linear molecule. The value is far
# above squared rounding errors of float32 positions, and far below that of any bent geometry.
LINEAR_MOLECULE_TOLERANCE = 1e-10

BEND = 1e-3  # of the size of a molecule: its square is far above that tolerance


def maxwell_boltzmann(
    system: System,
    n_replicas: int,
    temperature_K: float | Float[Tensor, "replica"],
    generator: torch.Generator,
    remove_momentum: bool = True,
    remove_rotation: bool | None = None,
    positions: Float[Tensor, "replica atom 3"] | None = None,
    exact_temperature: bool = False,
) -> Float[Tensor, "replica atom 3"]:
    """Draw velocities from the canonical distribution of momenta.

    Each component is normal with variance kT/m. Total and angular momentum are then projected out, orthogonally in the
    mass metric. This samples the canonical distribution conditioned on zero total and angular momentum: each remaining
    momentum holds kT/2. If all atoms lie exactly on a line, rotation about it moves none of them, and one more momentum
    would remain than for a slightly bent molecule. Such a molecule is drawn in the limit of small bends.

    Args:
        system: masses (amu) and boundaries.
        n_replicas: number of independent draws.
        temperature_K: K, of all replicas or of each.
        generator: source of the random numbers. A CPU generator gives the same draws for every device of the system.
        remove_momentum: set the total momentum to zero.
        remove_rotation: set the angular momentum to zero. Default: only with open boundaries, where it is conserved.
        positions: Å, needed to remove rotation. They also set the type of the result (otherwise the masses do).
        exact_temperature: scale each replica to exactly this kinetic temperature. The draw is then no longer canonical,
            because the canonical kinetic energy fluctuates.

    Returns:
        Velocities in ASE units.

    Raises:
        ValueError: rotation is to be removed but positions are missing or have another number of replicas, or an exact
            temperature is requested for a system without remaining momenta.
    """
    if remove_rotation is None:
        remove_rotation = system.cell is None
    if remove_rotation and (positions is None or len(positions) != n_replicas):
        found = "none were given" if positions is None else f"those of {len(positions)} were given"
        raise ValueError(f"removing rotation needs the positions of all {n_replicas} replicas, but {found}")

    masses = system.masses if positions is None else system.masses.to(positions)
    shape = (n_replicas, system.n_atoms, 3)
    noise = torch.randn(shape, generator=generator, dtype=masses.dtype, device=generator.device).to(masses.device)
    if isinstance(temperature_K, torch.Tensor):
        temperature_K = temperature_K.to(masses)
        thermal = torch.sqrt(kT_eV(temperature_K)[:, None] / masses)
    else:
        thermal = torch.sqrt(kT_eV(temperature_K) / masses)
    velocities = thermal[..., None] * noise
    if remove_rotation and positions is not None:
        bent = _slightly_bent(positions, masses, generator)
        velocities = velocities if bent is positions else _project(velocities, masses, remove_momentum, bent)
    velocities = _project(velocities, masses, remove_momentum, positions if remove_rotation else None)
    if exact_temperature:
        free = _degrees_of_freedom(system, remove_momentum, remove_rotation)
        if free == 0:
            raise ValueError("a single atom whose momentum is removed has no temperature; set remove_momentum=False")
        current = kinetic_temperature_K(velocities, masses, free)
        velocities = velocities * torch.sqrt(temperature_K / current)[:, None, None]
    return velocities


def remove_center_of_mass_velocity(
    velocities: Float[Tensor, "replica atom 3"], masses: Float[Tensor, "atom"]
) -> Float[Tensor, "replica atom 3"]:
    """Velocities relative to the center of mass of each replica."""
    return velocities - center_of_mass(velocities, masses)


def angular_momentum(
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
) -> Float[Tensor, "replica 3"]:
    """Angular momentum about the center of mass, amu · Å · ASE velocity unit."""
    arms = positions - center_of_mass(positions, masses)
    relative = remove_center_of_mass_velocity(velocities, masses)
    return (masses[:, None] * torch.linalg.cross(arms, relative)).sum(-2)


def remove_rotation(
    positions: Float[Tensor, "replica atom 3"],
    velocities: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
) -> Float[Tensor, "replica atom 3"]:
    """Velocities without the rigid rotation about the center of mass that carries their angular momentum.

    The angular velocity solves I ω = L. For linear molecules the inertia tensor I is singular, and the angular momentum
    about the axis is zero. The pseudo-inverse leaves that axis alone. Non-finite replicas stay non-finite.
    """
    # In double precision, so that the test for linear molecules does not depend on the type of the positions.
    exact_positions, exact_velocities, exact_masses = positions.double(), velocities.double(), masses.double()
    arms = exact_positions - center_of_mass(exact_positions, exact_masses)
    inertia = _inertia_tensor(arms, exact_masses)
    momentum = angular_momentum(exact_positions, exact_velocities, exact_masses)
    finite = _is_finite(inertia)[:, None, None]  # a single non-finite matrix would make the whole decomposition fail
    inverse = torch.linalg.pinv(torch.where(finite, inertia, 0.0), rtol=LINEAR_MOLECULE_TOLERANCE, hermitian=True)
    angular_velocity = (inverse @ momentum[:, :, None]).transpose(-1, -2)
    rotation = torch.linalg.cross(angular_velocity.expand_as(arms), arms)
    return (exact_velocities - rotation).to(velocities)


def _project(
    velocities: Float[Tensor, "replica atom 3"],
    masses: Float[Tensor, "atom"],
    momentum: bool,
    rotation_at: Float[Tensor, "replica atom 3"] | None,
) -> Float[Tensor, "replica atom 3"]:
    if momentum:
        velocities = remove_center_of_mass_velocity(velocities, masses)
    return velocities if rotation_at is None else remove_rotation(rotation_at, velocities, masses)


def _slightly_bent(
    positions: Float[Tensor, "replica atom 3"], masses: Float[Tensor, "atom"], generator: torch.Generator
) -> Float[Tensor, "replica atom 3"]:
    """Positions in which atoms on a line are moved off it, at random, by a hair; others come back as they are."""
    if positions.shape[1] < 3:
        return positions
    exact = positions.double()
    inertia = _inertia_tensor(exact - center_of_mass(exact, masses.double()), masses.double())
    finite = _is_finite(inertia)[:, None, None]
    moments = torch.linalg.eigvalsh(torch.where(finite, inertia, torch.eye(3).to(inertia)))
    straight = moments[:, 0] < LINEAR_MOLECULE_TOLERANCE * moments[:, 2]
    if not bool(straight.any()):
        return positions
    size = (moments[:, 2] / masses.double().sum()).sqrt()[:, None, None]
    noise = torch.randn(exact.shape, generator=generator, dtype=torch.float64, device=generator.device)
    return torch.where(straight[:, None, None], exact + BEND * size * noise.to(exact.device), exact)


def _inertia_tensor(
    arms: Float[Tensor, "replica atom 3"], masses: Float[Tensor, "atom"]
) -> Float[Tensor, "replica 3 3"]:
    """Σ m (r² 1 - r rᵀ), amu · Å²."""
    weighted = masses[:, None] * arms
    identity = torch.eye(3, dtype=arms.dtype, device=arms.device)
    return (weighted * arms).sum((-2, -1))[:, None, None] * identity - weighted.transpose(-1, -2) @ arms


def _is_finite(matrices: Float[Tensor, "replica 3 3"]) -> Bool[Tensor, "replica"]:
    return torch.isfinite(matrices).all(-1).all(-1)


def _degrees_of_freedom(system: System, momentum_removed: bool, rotation_removed: bool) -> int:
    rotations = {1: 0, 2: 2}.get(system.n_atoms, 3)
    return 3 * system.n_atoms - 3 * momentum_removed - rotations * rotation_removed
