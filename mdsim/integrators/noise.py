"""Normal random numbers of replicas that are a function of seed, replica and step.

They are the same on every device, in any batch of replicas, and after a resume, without a state to save. The generator
is counter-based: Philox 4x32 with ten rounds turns the counter (number, step, replica) and the key, which is the seed,
into four uniform numbers, and the Box-Muller transform these into four normal ones.

References:
    Salmon, Moraes, Dror, Shaw, SC 2011, for Philox.
    Box, Muller, Ann. Math. Stat. 29, 610 (1958).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import torch

from mdsim.interfaces import Integrator
from mdsim.state import MDState, System
from mdsim.typing import Float, Int, Tensor

ROUNDS = 10
FACTORS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
LOW_HALF = 0xFFFFFFFF
NUMBERS_AT_ONCE = 2**18  # few enough for a processor's cache, and enough to make the cost of each operation small


@dataclass(frozen=True)
class ReplicaNoise:
    """Standard normal numbers for each replica and step.

    Attributes:
        seed: key of all numbers, from 0 to 2⁶⁴ - 1.
    """

    seed: int

    @classmethod
    def drawn_from(cls, generator: torch.Generator) -> ReplicaNoise:
        """Noise with a seed drawn from a generator."""
        return cls(int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device)))

    def __call__(
        self, replicas: Int[Tensor, "replica"], first_step: int, n_steps: int, shape: tuple[int, ...], like: Tensor
    ) -> Float[Tensor, "step replica ..."]:
        """The numbers of the given replicas in consecutive steps.

        Args:
            replicas: numbers of the replicas, less than 2³².
            first_step: number of the first step, less than 2³².
            n_steps: number of steps.
            shape: shape of the numbers of one replica in one step.
            like: a tensor of the type and on the device that the numbers shall have.
        """
        n_numbers = math.prod(shape)
        step = torch.arange(first_step, first_step + n_steps, device=like.device)
        number = torch.arange(-(-n_numbers // 4), device=like.device)
        counter = torch.broadcast_tensors(
            number, step[:, None, None], replicas.to(like.device)[:, None], torch.zeros_like(number)
        )
        normal = _normal(philox(counter, (self.seed & LOW_HALF, self.seed >> 32)), like.dtype)
        return normal[..., :n_numbers].unflatten(-1, shape)


def noise_of_steps(
    integrator: Integrator,
    system: System,
    state: MDState,
    n_steps: int,
    generator: torch.Generator | None,
    replicas: Int[Tensor, "replica"] | None = None,
) -> Iterator[Tensor | None]:
    """The noise of each step of a simulation, None for an integrator without noise.

    One number is drawn from the generator, as the seed of all noise. The replicas are numbered in their order, unless
    their numbers are given.

    Raises:
        ValueError: the integrator needs noise and there is no generator.
    """
    noise, shape = noise_for(integrator, system, generator), integrator.noise_shape(system)
    if noise is None or shape is None:
        return repeat(None, n_steps)
    if replicas is None:
        replicas = torch.arange(state.n_replicas, device=state.positions.device)
    return _in_blocks(noise, shape, replicas, state, n_steps)


def noise_for(integrator: Integrator, system: System, generator: torch.Generator | None) -> ReplicaNoise | None:
    """The noise of a simulation, or None for an integrator without noise, which draws nothing from the generator.

    Raises:
        ValueError: the integrator needs noise and there is no generator.
    """
    if integrator.noise_shape(system) is None:
        return None
    if generator is None:
        raise ValueError(f"{type(integrator).__name__}: its noise needs a torch.Generator, but none was given")
    return ReplicaNoise.drawn_from(generator)


def _in_blocks(
    noise: ReplicaNoise, shape: tuple[int, ...], replicas: Int[Tensor, "replica"], state: MDState, n_steps: int
) -> Iterator[Tensor]:
    at_once = max(1, NUMBERS_AT_ONCE // max(1, state.n_replicas * math.prod(shape)))
    for first in range(0, n_steps, at_once):
        yield from noise(replicas, first, min(at_once, n_steps - first), shape, state.velocities)


def philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four random 32-bit integers for each counter of four, all held in int64."""
    a, b, c, d = counter
    for number in range(ROUNDS):
        first, second = a * FACTORS[0], c * FACTORS[1]  # their 64 bits are those of the unsigned product
        keys = [(k + number * increment) & LOW_HALF for k, increment in zip(key, KEY_INCREMENTS, strict=True)]
        a, b, c, d = (
            (second >> 32) & LOW_HALF ^ b ^ keys[0],
            second & LOW_HALF,
            (first >> 32) & LOW_HALF ^ d ^ keys[1],
            first & LOW_HALF,
        )
    return a, b, c, d


def _normal(uniform: tuple[Tensor, ...], dtype: torch.dtype) -> Float[Tensor, "... number"]:
    """Four independent standard normal numbers of four random integers."""
    a, b, c, d = ((bits.to(dtype) + 0.5) * 2.0**-32 for bits in uniform)
    near, far = torch.sqrt(-2 * torch.log(a)), torch.sqrt(-2 * torch.log(c))
    angles = 2 * math.pi * b, 2 * math.pi * d
    pairs = [
        near * torch.cos(angles[0]),
        near * torch.sin(angles[0]),
        far * torch.cos(angles[1]),
        far * torch.sin(angles[1]),
    ]
    return torch.stack(pairs, dim=-1).flatten(-2)
