"""Score of a BAOAB path: gradients of averages over trajectories from the probability of the noise (Girsanov).

The noise ξ_n enters the positions between two kicks. For a fixed path of the positions, other forces need other noise:
with f_n = ∂F_n/∂θ and the notation of `mdsim.dynamics.adjoint`,

    ∂v'_0 = Δt/2 f_0/m      ∂v'_n = Δt f_n/m - ∂v'_(n-1)      ∂ξ_n = -(1 + c) ∂v'_n / √((1 - c²) kT/m)

and ∂ log p = -Σ ξ_n · ∂ξ_n. Velocities at whole steps are no function of the positions alone:
∂v_n = Δt/2 f_n/m - ∂v'_(n-1). Both are linear in f, so that

    d<A>/dθ = <(A - <A>) ∂ log p + Σ ∂A/∂v_n · ∂v_n> = <Σ_n w_n · f_n>

with known vectors w_n. The starts must not depend on θ, or add their own score, -∂U(x_0)/∂θ / kT in the canonical
ensemble. The variance of ∂ log p grows like t |f|²/(2 γ m kT).

References:
    Kieninger, Ghysbrecht, Keller, arXiv 2303.14696, for the existence of path weights of splitting schemes.
    Glynn, Commun. ACM 33, 75 (1990), for likelihood-ratio gradients.
"""

from __future__ import annotations

import torch

from mdsim.dynamics.adjoint import velocity_kept
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.state import System
from mdsim.typing import Float, Tensor
from mdsim.units import FS, kT_eV


def score_vectors(
    system: System,
    integrator: LangevinBAOAB,
    noise: Float[Tensor, "step replica atom 3"],
    rewards: Float[Tensor, "step replica atom"],
    by_velocities: Float[Tensor, "point replica atom 3"],
) -> Float[Tensor, "point replica atom 3"]:
    """w of every point.

    Args:
        system: masses.
        integrator: that of the paths.
        noise: ξ of each step.
        rewards: what the noise of each step and atom may have caused: A less its mean, zero for steps after the last
            point that A depends on.
        by_velocities: ∂A/∂v at each point.
    """
    kept, dt = velocity_kept(integrator), integrator.timestep_fs * FS
    masses = system.masses.to(noise)[:, None]
    amplitude = torch.sqrt((1 - kept**2) * kT_eV(integrator.temperature_K) / masses)
    by_noise = rewards[..., None] * noise * ((1 + kept) / amplitude)
    vectors, after = torch.empty_like(by_velocities), torch.zeros_like(noise[0])
    vectors[-1] = 0.5 * dt / masses * by_velocities[-1]
    for step in range(len(noise) - 1, -1, -1):
        after = by_noise[step] - by_velocities[step + 1] - after
        own = 0.5 * by_velocities[step] if step else -0.5 * after
        vectors[step] = dt / masses * (after + own)
    return vectors
