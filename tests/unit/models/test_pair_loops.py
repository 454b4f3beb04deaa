"""Threads that share the channels give the bits of one thread."""

import pytest
import torch

pytest.importorskip("numba")
from mdsim.models import pair_loops

N_PAIRS, N_NODES, N_CHANNELS = 30, 6, 50


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


FIRST, SECOND = torch.arange(N_PAIRS) % N_NODES, torch.arange(N_PAIRS) % 4
ON_PAIRS, ON_NODES, DISTANCES = _random(N_PAIRS, N_CHANNELS), _random(N_NODES, N_CHANNELS), _random(N_PAIRS)
COEFFICIENTS = _random(12, N_CHANNELS, dtype=torch.float64)


@pytest.mark.parametrize(
    ("loop", "arguments", "into"),
    [
        (pair_loops.convolve, (ON_PAIRS, ON_NODES, FIRST, SECOND), ON_NODES),
        (pair_loops.pair_product, (ON_NODES, ON_NODES.flip(0), FIRST, SECOND), ON_PAIRS),
        (pair_loops.spline, (DISTANCES, COEFFICIENTS, 9.0, 1), ON_PAIRS),
        (pair_loops.spline_transposed, (DISTANCES, ON_PAIRS, 9.0, 0), COEFFICIENTS),
    ],
    ids=["convolve", "pair_product", "spline", "spline_transposed"],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_channels(loop, arguments, into, threads) -> None:
    serial, parallel = torch.zeros_like(into), torch.zeros_like(into)
    arrays = [argument.numpy() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
    loop.serial(*arrays, serial.numpy(), 0, N_CHANNELS)
    loop.parallel(*arrays, parallel.numpy(), threads)
    assert serial.any()
    assert torch.equal(serial, parallel)


def test_much_work_is_shared_and_little_is_not(monkeypatch) -> None:
    called = []
    loop = pair_loops.Loop(lambda *_: called.append("serial"), lambda *_: called.append("parallel"))
    monkeypatch.setattr(pair_loops, "use_torch_threads", lambda: 2)
    for n_pairs in (10, pair_loops.SERIAL_UP_TO_VALUES):
        loop(ON_NODES, n_pairs=n_pairs, into=torch.zeros(1, 64))
    loop(ON_NODES, n_pairs=pair_loops.SERIAL_UP_TO_VALUES, into=torch.zeros(1, 8))
    assert called == ["serial", "parallel", "serial"]
