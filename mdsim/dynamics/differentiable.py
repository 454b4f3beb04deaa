"""Differentiable simulation: gradients through a whole trajectory, with segment checkpoints to save memory.

`mdsim.dynamics.adjoint` has the same gradients of velocity Verlet and BAOAB without graphs, at a fraction of the cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from mdsim.integrators.noise import ReplicaNoise, noise_for
from mdsim.interfaces import CellPotential, Integrator, Potential
from mdsim.state import MDState, System, Trajectory
from mdsim.typing import Tensor


def differentiable_simulate(
    system: System,
    potential: Potential | CellPotential,
    integrator: Integrator,
    state: MDState,
    n_steps: int,
    generator: torch.Generator | None = None,
    segment: int | None = None,
) -> MDState:
    """Run all replicas and return a last state that is differentiable through the whole trajectory.

    Gradients reach the initial state and every tensor that the potential depends on. Only the states between segments
    are stored. The backward pass repeats one segment at a time, with the same noise. With segments of √n_steps steps,
    both the stored states and the graph of a segment grow like √n_steps, at the cost of evaluating each step twice.

    `torch.utils.checkpoint` is not used. It would repeat a segment for every force within it, since forces are
    gradients themselves, which is √n_steps/2 times the work. It also refuses a neighbor list that changes its length.

    Args:
        system: the system of all replicas.
        potential: differentiable energies (eV) and forces (eV/Å) of positions (Å):
            ``force_field.bind(system, differentiable=True)``, and for a barostat that of positions and cells:
            ``bind_in_cells(force_field, system, differentiable=True)``. Its dependencies are found at the initial
            positions.
        integrator: makes the steps.
        state: initial state, not changed.
        n_steps: number of steps.
        generator: gives the seed of the integrator's noise, if it has any. It advances as in `simulate`.
        segment: steps per segment, by default √n_steps, rounded up. With ``n_steps``, no state is stored and one graph
            is kept.

    Returns:
        The last state. It can be differentiated once, not twice.

    Raises:
        ValueError: the potential's forces carry no graph, or ``n_steps`` or ``segment`` is out of range.

    Source: Griewank, Optim. Methods Softw. 1, 35 (1992); Chen, Xu, Zhang, Guestrin, arXiv 1604.06174, for segments.
    """
    return _run(system, potential, integrator, state, n_steps, None, generator, segment)[0]


def differentiable_trajectory(
    system: System,
    potential: Potential | CellPotential,
    integrator: Integrator,
    state: MDState,
    n_steps: int,
    dump_every: int,
    generator: torch.Generator | None = None,
    segment: int | None = None,
) -> tuple[MDState, Trajectory]:
    """As `differentiable_simulate`, with the frames along the way, so that a loss can depend on all of them.

    The frames, which are those of `simulate`, are stored in addition to the states between segments.

    Args:
        system, potential, integrator, state, generator, segment: as in `differentiable_simulate`.
        n_steps: number of steps, a multiple of ``dump_every``.
        dump_every: steps between frames. The first frame is this many steps after ``state``.

    Returns:
        The last state and n_steps / dump_every frames. They can be differentiated once, not twice.

    Raises:
        ValueError: as in `differentiable_simulate`, or ``n_steps`` is not a positive multiple of ``dump_every``.
    """
    if n_steps < 1 or dump_every < 1 or n_steps % dump_every:
        raise ValueError(f"n_steps must be a positive multiple of dump_every, but they are {n_steps} and {dump_every}")
    state, frames = _run(system, potential, integrator, state, n_steps, dump_every, generator, segment)
    positions, velocities, energy, *cell = (torch.cat(parts) for parts in zip(*frames, strict=True))
    return state, Trajectory(positions, velocities, energy, dump_every * integrator.timestep_fs, *cell)


def _run(
    system: System,
    potential: Potential | CellPotential,
    integrator: Integrator,
    state: MDState,
    n_steps: int,
    dump_every: int | None,
    generator: torch.Generator | None,
    segment: int | None,
) -> tuple[MDState, list[tuple[Tensor, ...]]]:
    """The last state, and the positions, velocities, energies and moving cells of the frames of each segment."""
    if n_steps < 0:
        raise ValueError(f"n_steps must not be negative, but it is {n_steps}")
    if segment is None:
        segment = max(1, math.ceil(math.sqrt(n_steps)))
    if segment < 1:
        raise ValueError(f"segment must be at least one step, but it is {segment}")
    parameters = _parameters_of(potential, state)
    names, noise = tuple(state.tensors()), noise_for(integrator, system, generator)
    frames = []
    for start in range(0, n_steps, segment):
        length = min(segment, n_steps - start)
        run = _Segment(system, potential, integrator, noise, start, length, names, dump_every)
        tensors = _Checkpoint.apply(run, *state.tensors().values(), *parameters)
        state = MDState(**dict(zip(names, tensors[: len(names)], strict=True)))
        frames.append(tensors[len(names) :])
    return state, frames


@dataclass(frozen=True)
class _Segment:
    """A stretch of dynamics as a function from the tensors of one state to those of another, and to its frames."""

    system: System
    potential: Potential | CellPotential
    integrator: Integrator
    noise: ReplicaNoise | None
    first_step: int
    n_steps: int
    names: tuple[str, ...]
    dump_every: int | None = None  # counted from the start of the whole run. None: no frames

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        state = MDState(**dict(zip(self.names, tensors, strict=True)))
        frames = [tuple(tensor.new_empty(0, *tensor.shape) for tensor in self._frame(state))]  # a segment may have none
        for step, noise in enumerate(self._noise(state), start=self.first_step + 1):
            state = self.integrator.step(self.system, self.potential, state, noise)
            if self.dump_every is not None and step % self.dump_every == 0:
                frames.append(tuple(tensor[None] for tensor in self._frame(state)))
        if self.dump_every is None:
            return tuple(state.tensors().values())
        return *state.tensors().values(), *(torch.cat(parts) for parts in zip(*frames, strict=True))

    def _frame(self, state: MDState) -> tuple[Tensor, ...]:
        frame = state.positions, state.velocities, state.energy
        return frame if state.cell is None else (*frame, state.cell)

    def _noise(self, state: MDState) -> Sequence[Tensor | None] | Tensor:
        shape = self.integrator.noise_shape(self.system)
        if self.noise is None or shape is None:
            return [None] * self.n_steps
        replicas = torch.arange(state.n_replicas, device=state.positions.device)
        return self.noise(replicas, self.first_step, self.n_steps, shape, state.velocities)


class _Checkpoint(torch.autograd.Function):
    """A segment that stores its input instead of its graph, and is run again in the backward pass."""

    @staticmethod
    def forward(ctx, run: _Segment, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.save_for_backward(*tensors)
        return tuple(output.detach() for output in run(tensors[: len(run.names)]))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        run, saved = ctx.run, ctx.saved_tensors
        inputs = [tensor.detach().requires_grad_() for tensor in saved[: len(run.names)]]
        with torch.enable_grad():
            outputs = run(inputs)
        pairs = [
            (output, gradient) for output, gradient in zip(outputs, gradients, strict=True) if output.requires_grad
        ]
        of_inputs = torch.autograd.grad(
            [output for output, _ in pairs],
            [*inputs, *saved[len(run.names) :]],
            [gradient for _, gradient in pairs],
            allow_unused=True,
            retain_graph=True,  # the graph of computed parameters lies outside, and other segments need it again
        )
        return None, *of_inputs


def _parameters_of(potential: Potential | CellPotential, state: MDState) -> list[Tensor]:
    """Every leaf of the potential's graph, other than the positions and the cells."""
    given = [state.positions] if state.cell is None else [state.positions, state.cell]
    with torch.enable_grad():
        given = [tensor.detach().requires_grad_() for tensor in given]
        energy, forces, *stress = potential(*given)
    if not forces.requires_grad:
        raise ValueError("the potential's forces carry no graph; use force_field.bind(system, differentiable=True)")
    leaves, seen, pending = [], set(), [tensor.grad_fn for tensor in (energy, forces, *stress)]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and all(node.variable is not tensor for tensor in given):
            leaves.append(node.variable)
        pending.extend(following for following, _ in node.next_functions)
    return leaves
