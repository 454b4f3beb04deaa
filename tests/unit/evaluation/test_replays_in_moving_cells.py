"""Kept frames of replicas whose cells move: molecules are moved by the lattice vectors of each frame."""

from dataclasses import replace

import torch

from mdsim.evaluation.endings import Break
from mdsim.evaluation.kept_frames import write_break
from mdsim.evaluation.replays import read_kept
from mdsim.reporting.trajectories import GSD
from mdsim.state import System, Trajectory

EDGES_A = torch.tensor([10.0, 10.4, 11.0], dtype=torch.float64)


def two_molecules() -> tuple[System, Trajectory]:
    """Hydrogen molecules two cells apart, which touch through the boundary in the last frame."""
    bonds = torch.tensor([[0, 1], [2, 3]])
    system = System.from_bonds(torch.tensor([1, 1, 1, 1]), bonds, 10.0 * torch.eye(3), dtype=torch.float64)
    cells = EDGES_A[:, None, None] * torch.eye(3, dtype=torch.float64)
    first = torch.tensor([[-0.4, 0.0, 0.0], [-0.4, 0.7, 0.0]], dtype=torch.float64)
    apart = torch.tensor([3.0, 2.0, 0.9], dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.0, 0.0]).double()
    second = first - apart[:, None] + 2 * cells[:, :1]
    positions = torch.cat([first.expand(3, 2, 3), second], dim=1)
    return system, Trajectory(positions[:, None], None, None, 2.0, cells[:, None])


def kept_of(folder, system, trajectory):
    write_break(folder, system, trajectory, 0, 1.0, GSD)
    (kept,) = read_kept(folder, [Break(0, 1.0, "minimum intermolecular distance", None)])
    return kept


def test_molecules_move_by_the_cell_of_each_frame(tmp_path):
    system, trajectory = two_molecules()
    kept = kept_of(tmp_path, system, trajectory)
    moved = torch.from_numpy(kept.positions).double()
    steps = (moved - trajectory.positions[:, 0]) / EDGES_A[:, None, None]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-5)
    assert torch.equal(steps.round()[0], steps.round()[2]), "the same images in all frames"
    assert torch.equal(steps.round()[0, :, 0], torch.tensor([0.0, 0.0, -2.0, -2.0]).double())
    assert kept.marked == (0, 2) or kept.marked == (1, 3)
    assert kept.change == ": 2.00 → 0.90 Å"


def test_the_cell_of_the_last_frame_is_drawn(tmp_path):
    system, trajectory = two_molecules()
    drawn = kept_of(tmp_path, system, trajectory).replay("", 10_000).as_json()["edges"]
    assert max(abs(x) for ends in drawn for end in ends for x in end) == 5.5
    still = replace(trajectory, cell=None)
    fixed = kept_of(tmp_path / "still", system, still).replay("", 10_000).as_json()["edges"]
    assert max(abs(x) for ends in fixed for end in ends for x in end) == 5.0
