"""Bars of progress, and what is being waited for: live lines on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mdsim.reporting.console import LOGGER_NAME, format_duration, on_terminal, terminal
from mdsim.reporting.pace import Pace, scaled

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.live import Live

log = logging.getLogger(LOGGER_NAME)

WAITS_LOGGED_AFTER_S = 2.0
LINES_EVERY_S = 30.0
REDRAWN_PER_S = 5
COMPILES = "compiles for about 20 s if this machine has not done so before"
BAR_WIDTH = 24


class _Screen:
    """The live lines of this process at the bottom of the terminal, below the log."""

    def __init__(self) -> None:
        self._lines: list[_Wait | Bar] = []
        self._live: Live | None = None

    def add(self, line: _Wait | Bar) -> None:
        from rich.live import Live

        self._lines.append(line)
        if self._live is None:
            self._live = Live(
                get_renderable=self._draw,
                console=terminal(),
                transient=True,
                refresh_per_second=REDRAWN_PER_S,
                redirect_stdout=sys.stdout.isatty(),  # what goes into a pipe must stay there
            )
            self._live.start()
        self._live.refresh()  # now: the work that follows may leave no time for the thread that redraws

    def remove(self, line: _Wait | Bar | None = None) -> None:
        """Take one line off the screen, or all of them."""
        self._lines = [] if line is None else [other for other in self._lines if other is not line]
        if not self._lines and self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> Group:
        from rich.console import Group

        return Group(*(line.drawn() for line in list(self._lines)))


_SCREEN = _Screen()


def clear() -> None:
    """Remove all live lines, before a program ends for whatever reason: they hide the cursor."""
    _SCREEN.remove()


class _Wait:
    """A live line for work whose length is unknown."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._started = time.monotonic()
        self._spinner: RenderableType | None = None

    def drawn(self) -> RenderableType:
        from rich.spinner import Spinner
        from rich.table import Table

        self._spinner = self._spinner or Spinner("dots", style="cyan")
        line = Table.grid(padding=(0, 1))
        line.add_row(self._spinner, self.what, f"[dim]{format_duration(time.monotonic() - self._started)}")
        return line


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show what is being waited for, such as "reading the data". In a log, waits under two seconds are left out."""
    if on_terminal():
        line = _Wait(what)
        _SCREEN.add(line)
        try:
            yield
        finally:
            _SCREEN.remove(line)
        return
    timer = threading.Timer(WAITS_LOGGED_AFTER_S, log.info, [what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Bar:
    """Progress of a loop: a bar with speed and time left on a terminal, or a line of the log now and then.

    Iterable, and a context manager.

    Args:
        iterable: items to iterate over. None: the caller calls `update` or `show`.
        total: expected number of items, if the iterable has no length.
        desc: description in front of the bar.
        unit: name of an item. "" shows the percentage that is done.
        log_interval_s: seconds between log lines. Shorter loops log nothing. None: the caller has lines of its own.
        initial: number of items completed by an earlier run.
        unit_scale: use prefixes (k, M, ...), as for bytes.
        pace: measured by the caller, who calls `show`.
        note: on the state of the run, until the first `show`.
    """

    def __init__(
        self,
        iterable: Iterable | None = None,
        *,
        total: int | float | None = None,
        desc: str = "",
        unit: str = "step",
        log_interval_s: float | None = LINES_EVERY_S,
        initial: int = 0,
        unit_scale: bool = False,
        pace: Pace | None = None,
        note: str = "",
    ) -> None:
        self._iterable = iterable
        self.total = len(iterable) if total is None and hasattr(iterable, "__len__") else total  # type: ignore[arg-type]
        self.desc, self.unit, self.note = desc, unit, note
        self.n: int | float = initial
        self._scale = unit_scale
        self._pace = pace or Pace(self.total or float("inf"))
        if pace is None:
            self._pace.measure(initial)
        self._log_interval_s = log_interval_s
        self._started = self._logged = time.monotonic()
        self._spinner: RenderableType | None = None
        self._is_live = on_terminal()
        if self._is_live:
            _SCREEN.add(self)

    def update(self, n: int | float = 1) -> None:
        """So many more items are done."""
        self.n, self.note = self.n + n, ""
        self._pace.measure(self.n)
        self._log_if_due()

    def show(self, note: str = "") -> None:
        """Show the latest measurement of the pace, with a note on the state of the run."""
        self.n, self.note = self._pace.done, note
        self._log_if_due()

    def close(self) -> None:
        """Remove the bar."""
        if self._is_live:
            self._is_live = False
            _SCREEN.remove(self)

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._iterable or ():
                yield item
                self.update()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def count(self) -> str:
        """Items done of all, such as "3/5 ps"."""
        if not self.unit and self.total:
            return f"{100 * self.n / self.total:.0f} %"
        shown = scaled if self._scale else "{:.6g}".format
        of_all = "" if self.total is None else f"/{shown(self.total)}"
        return f"{shown(self.n)}{of_all} {self.unit}"

    @property
    def _details(self) -> list[str]:
        return [*filter(None, [self.note]), *self._pace.parts]

    def _log_if_due(self) -> None:
        now = time.monotonic()
        if self._is_live or self._log_interval_s is None or now - self._logged < self._log_interval_s:
            return
        self._logged = now
        details = ", ".join([format_duration(now - self._started), *self._details])
        log.info("%s: %s [%s]", self.desc, self.count, details, extra={"fields": self._pace.fields})

    def drawn(self) -> RenderableType:
        """The bar, and its details in a second line."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        self._spinner = self._spinner or Spinner("dots", style="cyan")
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(self.total, self.n, width=BAR_WIDTH, pulse=self.total is None)
        elapsed = format_duration(time.monotonic() - self._started)
        line.add_row(self._spinner, Text(self.desc, "bold"), bar, self.count, Text(elapsed, "dim"))
        details = Text("  " + " · ".join(self._details), "dim", no_wrap=True, overflow="ellipsis")
        return Group(line, details) if self._details else Group(line)
