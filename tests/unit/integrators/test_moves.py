"""Steps in compiled loops: when they are used, and the line in the log."""

import logging

import pytest
import torch

from mdsim.integrators import _moves


@pytest.fixture(autouse=True)
def undecided():
    _moves._compiled_on.cache_clear()
    yield
    _moves._compiled_on.cache_clear()


def test_gradients_need_tensor_operations():
    with torch.enable_grad():
        assert not _moves.in_compiled_loops(torch.zeros(1, 2, 3))


def test_the_log_says_once_that_loops_are_compiled(caplog):
    pytest.importorskip("numba")
    with caplog.at_level(logging.INFO, "mdsim"), torch.no_grad():
        assert _moves.in_compiled_loops(torch.zeros(1, 2, 3)) and _moves.in_compiled_loops(torch.zeros(2, 2, 3))
    assert [record.message for record in caplog.records] == [
        "integration: one compiled loop on each side of the forces"
    ]


def test_without_numba_the_same_moves_are_tensor_operations(caplog, monkeypatch):
    monkeypatch.setattr(_moves, "HAS_NUMBA", False)
    velocities, forces = torch.ones(1, 2, 3), torch.full((1, 2, 3), 2.0)
    with caplog.at_level(logging.INFO, "mdsim"), torch.no_grad():
        kicked = _moves.kick(velocities, forces, torch.tensor([1.0, 4.0]), 0.5)
    torch.testing.assert_close(kicked[0, :, 0], torch.tensor([1.5, 1.125]))
    assert "tensor operations, no compiled loop: it needs numba" in caplog.text


def test_on_another_device_the_log_names_it(caplog):
    with caplog.at_level(logging.INFO, "mdsim"), torch.no_grad():
        assert not _moves.in_compiled_loops(torch.empty(1, 2, 3, device="meta"))
    assert "it runs on the CPU, not on meta" in caplog.text
