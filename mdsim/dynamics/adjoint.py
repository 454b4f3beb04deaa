"""Adjoint of a trajectory: derivatives of a function of its frames with respect to the forces of every step.

Velocity Verlet and BAOAB (`mdsim.integrators.langevin`) are kicks by the forces between linear moves:

    v'_n    = v_n + Δt/2 F_n/m
    v''_n   = c v'_n + √((1 - c²) kT/m) ξ_n        c = 1 for velocity Verlet
    x_{n+1} = x_n + Δt/2 (v'_n + v''_n)
    v_{n+1} = v''_n + Δt/2 F_{n+1}/m

For a function A of the frames, the recursion from the last step to the first gives λ_n = dA/dF_n, where the forces of
all later steps respond to the displaced positions. That response is a Hessian-vector product per step, here a central
difference of two forces along λ_n. No graph is needed, so the compiled path of a frozen force field serves. Parameters
θ then enter through dA/dθ = Σ_n λ_n · ∂F(x_n)/∂θ, a sum over frames that need not be complete
(`mdsim.estimator.force_gradient`). Memory: the positions of every step.

In a chaotic system λ grows like exp(t/τ), with the Lyapunov time τ. Derivatives over windows of many τ are noise.

References:
    Greener, PNAS 122, e2426058122 (2025), for adjoint recursions of molecular dynamics.
    Han, Yu, Nat. Commun. 16, 816 (2025), for their limit on the length of trajectories.
    Metz, Freeman, Schoenholz, Kachman, arXiv 2111.05803, for the variance of gradients through chaotic dynamics.
"""

from __future__ import annotations

import math

import torch

from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.nve import VelocityVerlet
from mdsim.interfaces import Integrator, Potential
from mdsim.state import System
from mdsim.typing import Float, Tensor
from mdsim.units import FS, PS


def velocity_kept(integrator: Integrator) -> float:
    """The fraction c of the velocity that friction leaves in a step.

    Raises:
        ValueError: the integrator has no adjoint here.
    """
    if isinstance(integrator, VelocityVerlet):
        return 1.0
    if isinstance(integrator, LangevinBAOAB):
        return math.exp(-integrator.friction_per_ps / PS * integrator.timestep_fs * FS)
    raise ValueError(
        f"the adjoint of {type(integrator).__name__} is not implemented: use velocity Verlet (nve) or BAOAB (langevin)"
    )


def force_sensitivities(
    system: System,
    potential: Potential,
    integrator: Integrator,
    positions: Float[Tensor, "point replica atom 3"],
    by_positions: Float[Tensor, "point replica atom 3"],
    by_velocities: Float[Tensor, "point replica atom 3"],
) -> Float[Tensor, "point replica atom 3"]:
    """λ = dA/dF of every point of a trajectory, for given initial positions and velocities.

    Two force evaluations per step. Replicas do not mix, and a non-finite one stays alone.

    Args:
        system: the system of all replicas.
        potential: the potential of the trajectory. No graph is needed.
        integrator: that of the trajectory, `VelocityVerlet` or `LangevinBAOAB`.
        positions: the start and the positions after every step, Å.
        by_positions: ∂A/∂x at each point, in the unit of A per Å. Zero where A does not depend on a point.
        by_velocities: ∂A/∂v at each point, per ASE velocity unit.

    Returns:
        dA/dF at each point, in the unit of A per eV/Å.

    Raises:
        ValueError: another integrator.
    """
    kept, half = velocity_kept(integrator), 0.5 * integrator.timestep_fs * FS
    half_kick = half / system.masses.to(positions)[:, None]
    sensitivities = torch.empty_like(positions)
    with torch.no_grad():
        by_x, by_v, kicked = by_positions[-1], by_velocities[-1], torch.zeros_like(positions[0])
        for point in range(len(positions) - 1, 0, -1):
            by_force = half_kick * (by_v + kicked)
            sensitivities[point] = by_force
            by_x = by_x + hessian_product(potential, positions[point], by_force)
            kicked = kept * (by_v + half * by_x) + half * by_x
            by_x, by_v = by_x + by_positions[point - 1], kicked + by_velocities[point - 1]
        sensitivities[0] = half_kick * kicked
    return sensitivities


def hessian_product(
    potential: Potential, positions: Float[Tensor, "replica atom 3"], vectors: Float[Tensor, "replica atom 3"]
) -> Float[Tensor, "replica atom 3"]:
    """(∂F/∂x) · vector of each replica, by a central difference of the forces along the vector."""
    scale = difference_step(vectors)[:, None, None]
    move = scale * vectors
    ahead, behind = potential(positions + move)[1], potential(positions - move)[1]
    return (ahead - behind) / (2 * scale)


def difference_step(vectors: Float[Tensor, "replica atom 3"]) -> Float[Tensor, "replica"]:
    """The factor on each vector that makes it the displacement (Å) of a central difference.

    Its largest component is the cube root of the rounding error, which balances both errors of the difference.
    """
    return torch.finfo(vectors.dtype).eps ** (1 / 3) / vectors.abs().amax((1, 2)).clamp_min(1e-30)
