"""Resident memory of this process."""

import ctypes
import gc
import os
from pathlib import Path

import pytest


def resident_MB() -> float:
    """What the process holds after collecting garbage and giving freed memory back; skips the test where unknown."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("resident memory is read from /proc")
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
