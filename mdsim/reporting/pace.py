"""Speed of a run, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from mdsim.reporting.console import format_duration


class Pace:
    """Measures how fast a run gets on. The time before the first measurement, which compiles, does not count.

    Args:
        total: amount of work of the whole run.
        clock: monotonic time in seconds.
    """

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self._clock = clock
        self._first: tuple[float, float] | None = None
        self._latest: tuple[float, float] | None = None

    def measure(self, done: float) -> None:
        """Note how much work is done by now."""
        self._latest = done, self._clock()
        self._first = self._first or self._latest

    @property
    def per_second(self) -> float | None:
        """Work per second; None before the second measurement."""
        if self._first is None or self._latest is None or self._latest[1] <= self._first[1]:
            return None
        return (self._latest[0] - self._first[0]) / (self._latest[1] - self._first[1])

    @property
    def done(self) -> float:
        """The work that is done."""
        return 0.0 if self._latest is None else self._latest[0]

    @property
    def left(self) -> str | None:
        """The time that is left at this speed, as text; None where it is unknown or nothing is left."""
        speed = self.per_second
        if not speed or self.done >= self.total:
            return None
        return f"{format_duration((self.total - self.done) / speed)} left"
