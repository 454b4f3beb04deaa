"""Water molecules anywhere, for observables that look at pairs."""

import torch

from mdsim.state import System, Trajectory


def waters(
    n_molecules: int, cell: torch.Tensor | None, n_frames: int, dtype=torch.float32
) -> tuple[System, Trajectory]:
    """Molecules anywhere in the cell, or in a cube, some of them wrapped; one frame is broken."""
    generator = torch.Generator().manual_seed(3)
    molecule = torch.tensor([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    box = 26.0 * torch.eye(3) if cell is None else cell
    centers = torch.rand(n_frames, 2, n_molecules, 1, 3, generator=generator) @ box
    noise = 0.05 * torch.randn(n_frames, 2, n_molecules, 3, 3, generator=generator)
    positions = (centers + molecule + noise).flatten(2, 3)
    if cell is not None:
        positions += torch.randint(-2, 3, positions.shape, generator=generator).float() @ cell
    positions[1, 1, 2, 1] = torch.nan
    atoms = torch.arange(3 * n_molecules).reshape(-1, 3)
    system = System(
        torch.tensor([8, 1, 1]).repeat(n_molecules),
        torch.ones(3 * n_molecules, dtype=dtype),
        None if cell is None else cell.to(dtype),
        torch.cat([atoms[:, :2], atoms[:, ::2]]),
        torch.arange(n_molecules).repeat_interleave(3),
    )
    return system, Trajectory(positions.to(dtype), None, None, 1.0)
