"""Simulation of all replicas for a number of steps, without gradients."""

from __future__ import annotations

import torch

from mdsim.integrators.noise import noise_of_steps
from mdsim.interfaces import CellPotential, Integrator, Potential
from mdsim.state import MDState, System, Trajectory
from mdsim.typing import Int, Tensor

STORED = ("positions", "velocities", "energy", "cell")  # fields of a state that make up a frame


def simulate(
    system: System,
    potential: Potential | CellPotential,
    integrator: Integrator,
    state: MDState,
    n_steps: int,
    dump_every: int,
    generator: torch.Generator | None = None,
    replicas: Int[Tensor, "replica"] | None = None,
) -> tuple[MDState, Trajectory]:
    """Run all replicas for a number of steps, without gradients.

    A replica that becomes non-finite is recorded as it is and does not affect the others. Nothing here waits for the
    device.

    Args:
        system: the system of all replicas.
        potential: energies (eV) and forces (eV/Å) of positions (Å), and for a barostat also stresses.
        integrator: makes the steps.
        state: initial state, not changed.
        n_steps: number of steps, a multiple of ``dump_every``.
        dump_every: steps between frames. The first frame is this many steps after ``state``.
        generator: gives the seed of the integrator's noise, if it has any (`mdsim.integrators.noise`).
        replicas: numbers of the replicas, which their noise depends on. None: in their order.

    Returns:
        The last state, and a trajectory of n_steps / dump_every frames, the last of which is that state.

    Raises:
        ValueError: ``n_steps`` is not a multiple of a positive ``dump_every``, the integrator needs noise and there
            is no generator, or its step drops the temperatures of the replicas.
    """
    if n_steps < 0 or dump_every < 1 or n_steps % dump_every:
        raise ValueError(f"n_steps must be a multiple of dump_every, but they are {n_steps} and {dump_every}")
    n_frames = n_steps // dump_every
    frames = {
        name: field.new_empty(n_frames, *field.shape) for name, field in state.tensors().items() if name in STORED
    }
    noise, has_baths = noise_of_steps(integrator, system, state, n_steps, generator, replicas), state.kT is not None
    # Not inference_mode: the neighbor list that a potential caches here must remain usable with gradients.
    with torch.no_grad():
        for frame in range(n_frames):
            for _ in range(dump_every):
                state = integrator.step(system, potential, state, next(noise))
            for name, stored in frames.items():
                stored[frame] = getattr(state, name)
    if has_baths and state.kT is None:
        raise ValueError(
            f"{type(integrator).__name__}: its step drops the temperature of each replica; "
            "make the new state with dataclasses.replace(state, ...)"
        )
    return state.detach(), Trajectory(**frames, frame_interval_fs=dump_every * integrator.timestep_fs)
