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

    def __init__(self, total: int | float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self._clock = clock
        self._first: tuple[float, float, float, float] | None = None
        self._latest: tuple[float, float, float, float] | None = None

    def measure(self, done: int | float, force_evaluations: int = 0, simulated_ps: float = 0.0) -> None:
        """Note how much work is done by now, the structures evaluated for it, and the length of each replica."""
        self._latest = done, force_evaluations, simulated_ps, self._clock()
        self._first = self._first or self._latest

    @property
    def per_second(self) -> float | None:
        """Work per second; None before the second measurement."""
        return self._rate(0)

    @property
    def ns_per_day(self) -> float | None:
        """Simulated time of each replica per day of wall-clock time; None where it is not known."""
        ps_per_second = self._rate(2)
        return 86.4 * ps_per_second if ps_per_second else None

    @property
    def evaluations_per_second(self) -> float | None:
        """Structures per second whose forces are computed; None before the second measurement, or where not counted."""
        return self._rate(1) or None

    def _rate(self, which: int) -> float | None:
        if self._first is None or self._latest is None or self._latest[-1] <= self._first[-1]:
            return None
        return (self._latest[which] - self._first[which]) / (self._latest[-1] - self._first[-1])

    @property
    def done(self) -> int | float:
        """The work that is done."""
        return 0.0 if self._latest is None else self._latest[0]

    @property
    def left_s(self) -> float | None:
        """The time that is left at this speed, s; None where it is unknown or nothing is left."""
        speed = self.per_second
        return None if not speed or self.done >= self.total else (self.total - self.done) / speed

    @property
    def left(self) -> str | None:
        """The time that is left, as text."""
        return None if self.left_s is None else f"{format_duration(self.left_s)} left"

    @property
    def parts(self) -> list[str]:
        """Speeds and the time left, as far as they are known, such as "0.86 ns/day"."""
        speeds = [] if self.ns_per_day is None else [f"{self.ns_per_day:.3g} ns/day"]
        if self.evaluations_per_second is not None:
            speeds.append(f"{scaled(self.evaluations_per_second)} force evaluations/s")
        return [*speeds, *filter(None, [self.left])]

    @property
    def fields(self) -> dict[str, float]:
        """The same numbers for `--json-logs`."""
        known = {
            "done": self.done,
            "total": self.total,
            "ns_per_day": self.ns_per_day,
            "force_evaluations_per_s": self.evaluations_per_second,
            "left_s": self.left_s,
        }
        return {name: float(f"{value:.6g}") for name, value in known.items() if value is not None}


def scaled(number: int | float) -> str:
    """A number in three digits with a prefix: "12.3k", "4.56M"."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{prefix}"
    return f"{number:.3g}"
