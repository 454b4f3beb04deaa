"""Ctrl-C, once and twice: no traceback, the exit status of an interrupted program, and a run that can be resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT
from tiny import write_world

PATIENCE_S = 300


@pytest.fixture
def world(tmp_path) -> Path:
    return write_world(tmp_path)


def _interrupted(world: Path, signals: int, *arguments: str) -> tuple[int, str]:
    """Interrupt an endless training once it has saved its state; its exit status and what it said."""
    command = [sys.executable, str(ROOT / "stable_training.py"), "--config-yml", str(world / "train.yml"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + PATIENCE_S
    while not list(world.rglob("last.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    return process.wait(PATIENCE_S), process.communicate()[0]


@pytest.mark.parametrize("signals", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_interrupt_is_no_traceback(world, signals):
    status, output = _interrupted(world, signals, "--epochs=100000")
    assert status == 130
    assert "Traceback" not in output and "Exception ignored" not in output
    assert "interrupted" in output.splitlines()[-1]
    status, output = _interrupted(world, 0, "--epochs=1", "--resume")
    assert status == 0 and "resumed after epoch" in output
