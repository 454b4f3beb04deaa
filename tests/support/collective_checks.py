"""Checks of the collective operations, run by every process of `torchrun` (tests/distributed)."""

import os
import sys
from pathlib import Path
from unittest import mock

import torch
from tiny import STIFFNESS, Springs, frames, water

from mdsim import distributed
from mdsim.distributed.launch import own_folder, process_group
from mdsim.errors import TrainingError
from mdsim.estimator.windows import WindowGradient, WindowSettings, window_gradient
from mdsim.integrators import LangevinBAOAB
from mdsim.observables import VACF


def pieces_are_divided_without_loss(rank: int, n_ranks: int) -> None:
    for n in (1, 2, 3, 7, 30):
        mine = distributed.share(n)
        parts = distributed.gathered_objects([list(range(n))[mine]], n_ranks)
        assert [piece for part in parts for piece in part] == list(range(n))
        equal = distributed.share_of_equals(n, torch.device("cpu"))
        assert len(equal) == -(-n // n_ranks)
        assert torch.equal(distributed.gathered(equal, n), torch.arange(n))


def what_is_gathered_keeps_its_type_and_axis(rank: int, n_ranks: int) -> None:
    n = 2 * n_ranks - 1
    mine = distributed.share_of_equals(n, torch.device("cpu"))
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool):
        whole = (torch.arange(4 * n).reshape(4, n) % 3).to(dtype)
        assert torch.equal(distributed.gathered(whole[:, mine], n, dim=1), whole)
    spoiled = torch.full((len(mine),), torch.nan)
    assert distributed.gathered(spoiled, n).isnan().all()
    words = [f"replica {index}" for index in range(n)]
    assert distributed.gathered_objects([words[index] for index in mine], n) == words


def sums_keep_types_and_shapes(rank: int, n_ranks: int) -> None:
    single, double = torch.full((2, 3), 1.0 + rank), torch.full((), 0.1 * rank, dtype=torch.float64)
    total, other = distributed.summed([single, double])
    assert total.shape == (2, 3) and total.dtype == torch.float32 and other.dtype == torch.float64
    assert float(total[0, 0]) == n_ranks * (n_ranks + 1) / 2
    torch.testing.assert_close(float(other), 0.1 * n_ranks * (n_ranks - 1) / 2)


def one_yes_is_enough(rank: int, n_ranks: int) -> None:
    assert distributed.agreed(lambda: rank == n_ranks - 1)()
    assert not distributed.agreed(lambda: False)()


def a_difference_of_one_bit_is_found(rank: int, n_ranks: int) -> None:
    same = torch.tensor([1.0, float("nan")])
    distributed.check_same([same], "the parameters")
    other = torch.nextafter(same, torch.tensor(2.0)) if rank == 1 else same
    try:
        distributed.check_same([other], "the parameters")
    except TrainingError as error:
        assert "the parameters of ranks [1] differ" in str(error)
    else:
        raise AssertionError("not found")


def only_rank_0_writes_into_the_folder(rank: int, n_ranks: int) -> None:
    folder = Path(sys.argv[1]) / "run"
    with own_folder(folder) as mine:
        assert (mine == folder) == (rank == 0)
        assert (mine / "state").read_text() == "before"
        (mine / "state").write_text(f"of rank {rank}")
    assert mine.exists() == (rank == 0)


def windows_of_dynamics_are_those_of_one_rank(rank: int, n_ranks: int) -> None:
    """Of four windows, which cannot be divided evenly, and one of which breaks."""
    made, model = frames(4, seed=5), Springs(1.1 * STIFFNESS)
    positions = made.positions.double()
    positions[2, 0, 0] = torch.nan

    def found() -> WindowGradient:
        result = window_gradient(
            *(model, water(), LangevinBAOAB(1.0, 300.0, 10.0), positions, made.velocities.double(), [VACF(4.0)]),
            *(torch.Tensor.sum, WindowSettings(12, points_every=3), torch.Generator().manual_seed(1), 50),
        )
        assert result is not None
        return result

    together = found()
    with mock.patch("mdsim.distributed.collectives.n_ranks", return_value=1):
        alone = found()
    assert together.n_finite == alone.n_finite == 3
    torch.testing.assert_close(together.mean, alone.mean)
    torch.testing.assert_close(together.gradients, alone.gradients)


def main() -> None:
    with process_group():
        rank, n_ranks = distributed.rank(), distributed.n_ranks()
        assert n_ranks == int(os.environ["WORLD_SIZE"]) > 1
        pieces_are_divided_without_loss(rank, n_ranks)
        what_is_gathered_keeps_its_type_and_axis(rank, n_ranks)
        sums_keep_types_and_shapes(rank, n_ranks)
        one_yes_is_enough(rank, n_ranks)
        a_difference_of_one_bit_is_found(rank, n_ranks)
        only_rank_0_writes_into_the_folder(rank, n_ranks)
        windows_of_dynamics_are_those_of_one_rank(rank, n_ranks)
        print(f"rank {rank} is content", flush=True)


if __name__ == "__main__":
    main()
