"""Random draws of structures for gradients."""

from __future__ import annotations

import torch

from mdsim.typing import Int, Tensor


def drawn(
    n_structures: int, most: int | None, generator: torch.Generator, device: torch.device
) -> Int[Tensor, "drawn"]:
    """Indices of different structures in random order, or of all in their order if there are not more than asked for.

    Args:
        n_structures: number of all structures.
        most: number to draw. None: all.
        generator: random numbers.
        device: device of the indices.
    """
    if most is None or most >= n_structures:
        return torch.arange(n_structures, device=device)
    return torch.randperm(n_structures, generator=generator, device=generator.device)[:most].to(device)
