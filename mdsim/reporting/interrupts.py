"""Handling of Ctrl-C: the first ends the run in order, the second ends the process at once, without a traceback."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mdsim.reporting.console import in_signal

INTERRUPTED = 128 + signal.SIGINT  # exit status, as of a shell


@contextmanager
def orderly_interrupts() -> Iterator[None]:
    """The first interrupt raises `KeyboardInterrupt` in the block; from then on another one ends the process.

    Nothing is lost that was saved before: files are written under temporary names.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return

    def second(number: int, frame: object) -> None:
        in_signal("interrupted again")
        os._exit(INTERRUPTED)

    def first(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is first:
            signal.signal(signal.SIGINT, before)
