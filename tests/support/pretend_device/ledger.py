"""Ledger of the work that a pretend device was given."""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path

import torch

PACKAGE = str(Path(__file__).parents[3] / "mdsim")


class Ledger:
    """Launches of kernels by operation, launches on double precision, and waits of the host by kind and by place.

    A wait is whatever stops the host until the device has finished: reading a number, results whose shape depends on
    data, copies to or from pageable memory.
    """

    def __init__(self) -> None:
        self.used = torch.device("cuda", 0)  # the device that C++ means by "meta", which has no index
        self.reset()

    def reset(self) -> None:
        """Forget everything so far."""
        self.launches: Counter[str] = Counter()
        self.float64: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.places: Counter[str] = Counter()

    @property
    def n_launches(self) -> int:
        return self.launches.total()

    @property
    def n_waits(self) -> int:
        return self.waits.total()

    def launch(self, name: str, is_double: bool = False) -> None:
        """Count a kernel."""
        self.launches[name] += 1
        self.float64[name] += is_double

    def wait(self, kind: str) -> None:
        """Count a wait of the host, at the innermost line of mdsim."""
        self.waits[kind] += 1
        self.places[f"{kind} at {line_of_mdsim()}"] += 1

    def report(self) -> str:
        """Figures and places, for the message of a failing test."""
        places = "".join(f"\n  {count} x {place}" for place, count in self.places.most_common(30))
        return f"{self.n_launches} launches, {self.float64.total()} in float64, {self.n_waits} waits{places}"


def line_of_mdsim() -> str:
    """File and line of the innermost frame in the package, and of its caller."""
    stack = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
    return " < ".join(f"{frame.filename[len(PACKAGE) + 1 :]}:{frame.lineno}" for frame in stack[:-3:-1]) or "a test"


LEDGER = Ledger()
