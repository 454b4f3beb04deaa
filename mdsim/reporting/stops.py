"""Requests to stop a run in order: signals of a batch system, and a time limit.

A request never cuts an epoch short. The run asks before each of its epochs, and ends in a state that can be resumed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mdsim.reporting.console import format_duration, in_signal

STOPPED = 75  # exit status of a stopped run: EX_TEMPFAIL of sysexits.h, "try again later"
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
EPOCHS_COMPARED = 20  # the longest of so many recent ones is how long the next may take


class StopRequests:
    """Says before each epoch whether the run is to stop. The time limit counts from the construction.

    Args:
        time_limit_s: an epoch that would end later, if it took as long as the longest recent one, is not begun.
            None: no limit.
        clock: monotonic time in seconds.

    Attributes:
        reason: of the first request; None while there was none.
    """

    def __init__(self, time_limit_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.reason: str | None = None
        self._limit_s = time_limit_s
        self._clock = clock
        self._started = clock()
        self._asked: float | None = None
        self._epochs_s: deque[float] = deque(maxlen=EPOCHS_COMPARED)

    def __call__(self) -> bool:
        """Whether to stop now. To be called once before each epoch."""
        now = self._clock()
        if self._asked is not None:
            self._epochs_s.append(now - self._asked)
        self._asked = now
        longest_s = max(self._epochs_s, default=0.0)
        if self.reason is None and self._limit_s is not None and now - self._started + longest_s > self._limit_s:
            self.reason = f"the time limit of {format_duration(self._limit_s)} leaves no room for another epoch"
        return self.reason is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block, SIGTERM and SIGUSR1 are requests to stop.

        Repeated ones change nothing: batch systems send the same signal several times, and one after the other.
        """
        if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        if self.reason is None:
            self.reason = f"{signal.Signals(number).name} was received"
            in_signal(f"{self.reason}: stopping once the epoch in progress is saved")


def seconds(text: str) -> float:
    """A time limit in seconds, from minutes (`90`, `0.5`) or `HH:MM:SS`.

    Raises:
        ValueError: it is neither, or not positive.
    """
    parts = text.split(":")
    if len(parts) == 1:
        found = 60 * float(text)
    else:
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(text)
        hours, minutes, rest = map(int, parts)
        if minutes > 59 or rest > 59:
            raise ValueError(text)
        found = float(3600 * hours + 60 * minutes + rest)
    if not 0 < found < float("inf"):
        raise ValueError(text)
    return found
