"""Gradients through a trajectory, with the memory of a short one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from mdsim.interfaces import Integrator, Potential
from mdsim.state import MDState, System
from mdsim.typing import Tensor


def differentiable_simulate(
    system: System,
    potential: Potential,
    integrator: Integrator,
    state: MDState,
    n_steps: int,
    generator: torch.Generator | None = None,
    segment: int | None = None,
) -> MDState:
    """Run all replicas and return a last state that can be differentiated through the whole trajectory.

    Gradients reach the initial state and every tensor that the potential depends on. Only the states between segments
    are stored; backward repeats one segment at a time, with the same noise. With segments of √n_steps steps both the
    stored states and the graph of a segment grow like √n_steps, for one more evaluation of each step.

    `torch.utils.checkpoint` is not used because it repeats a segment also for every force inside it (forces are
    gradients themselves), √n_steps/2 times the work, and refuses a neighbor list that was rebuilt to another length.

    Args:
        system: what the replicas are copies of.
        potential: differentiable energies (eV) and forces (eV/Å) of positions (Å):
            ``force_field.bind(system, differentiable=True)``. What it depends on is found at the initial positions.
        integrator: makes the steps.
        state: where to start; not changed.
        n_steps: how many.
        generator: of the integrator's noise, if it has any; it advances as in `simulate`.
        segment: steps per segment; default √n_steps, rounded up. ``n_steps`` stores no state and keeps one graph.

    Returns:
        The last state. It can be differentiated once, not twice.

    Raises:
        ValueError: the potential's forces carry no graph, or ``n_steps`` or ``segment`` is out of range.

    Source: Griewank, Optim. Methods Softw. 1, 35 (1992); Chen, Xu, Zhang, Guestrin, arXiv 1604.06174, for segments.
    """
    if n_steps < 0:
        raise ValueError(f"n_steps must not be negative, but it is {n_steps}")
    if segment is None:
        segment = max(1, math.ceil(math.sqrt(n_steps)))
    if segment < 1:
        raise ValueError(f"segment must be at least one step, but it is {segment}")
    parameters = _parameters_of(potential, state.positions)
    names = tuple(state.tensors())
    for start in range(0, n_steps, segment):
        length = min(segment, n_steps - start)
        run = _Segment(system, potential, integrator, length, names)
        tensors = _Checkpoint.apply(run, generator, *state.tensors().values(), *parameters)
        state = MDState(**dict(zip(names, tensors, strict=True)))
    return state


@dataclass(frozen=True)
class _Segment:
    """A stretch of dynamics as a function from the tensors of one state to those of another."""

    system: System
    potential: Potential
    integrator: Integrator
    n_steps: int
    names: tuple[str, ...]

    def __call__(self, tensors: Sequence[Tensor], generator: torch.Generator | None) -> tuple[Tensor, ...]:
        state = MDState(**dict(zip(self.names, tensors, strict=True)))
        for _ in range(self.n_steps):
            state = self.integrator.step(self.system, self.potential, state, generator)
        return tuple(state.tensors().values())


class _Checkpoint(torch.autograd.Function):
    """A segment that keeps its input instead of its graph, and is run again in backward."""

    @staticmethod
    def forward(ctx, run: _Segment, generator: torch.Generator | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.device = None if generator is None else generator.device
        ctx.generator_state = None if generator is None else generator.get_state()
        ctx.save_for_backward(*tensors)
        return tuple(output.detach() for output in run(tensors[: len(run.names)], generator))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        run, saved = ctx.run, ctx.saved_tensors
        inputs = [tensor.detach().requires_grad_() for tensor in saved[: len(run.names)]]
        replay = None
        if ctx.device is not None:  # the same noise again, leaving the caller's generator where it is
            replay = torch.Generator(ctx.device)
            replay.set_state(ctx.generator_state)
        with torch.enable_grad():
            outputs = run(inputs, replay)
        pairs = [
            (output, gradient) for output, gradient in zip(outputs, gradients, strict=True) if output.requires_grad
        ]
        of_inputs = torch.autograd.grad(
            [output for output, _ in pairs],
            [*inputs, *saved[len(run.names) :]],
            [gradient for _, gradient in pairs],
            allow_unused=True,
            retain_graph=True,  # of what parameters are computed from, outside: the other segments need it again
        )
        return None, None, *of_inputs


def _parameters_of(potential: Potential, positions: Tensor) -> list[Tensor]:
    """Every leaf of the potential's graph, other than the positions."""
    with torch.enable_grad():
        positions = positions.detach().requires_grad_()
        energy, forces = potential(positions)
    if not forces.requires_grad:
        raise ValueError("the potential's forces carry no graph; use force_field.bind(system, differentiable=True)")
    leaves, seen, pending = [], set(), [energy.grad_fn, forces.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and node.variable is not positions:
            leaves.append(node.variable)
        pending.extend(following for following, _ in node.next_functions)
    return leaves
