"""Console output of runs: log lines, the last line of a command, tables, intervals and durations.

A terminal shows colors and live lines (`live`). Everywhere else (pipe, file, batch job, `TERM=dumb`) the output is
plain lines, the same as in a run's ``log.txt``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdsim.reporting.lines import JSONFormatter, LineFormatter, QuietFormatter, as_object, folded, styled

if TYPE_CHECKING:
    from rich.console import Console

LOGGER_NAME = "mdsim"
LOG_FILE = "log.txt"
_NUMBER = re.compile(r"[-+−±<>≤≥~]?\s*(\d|\.\d|nan\b|inf\b)")
_BLANK = {"", "-", "–", "—"}


@dataclass
class ConsoleStyle:
    """What the log shows on the console, for the whole process.

    Attributes:
        quiet: errors and the last line alone.
        as_json: one JSON object per line; its keys are those of `lines.as_object`.
        begun_s: when the command began, by the monotonic clock.
        hidden_warnings: warnings that were not shown, so that the last line can say so.
    """

    quiet: bool = False
    as_json: bool = False
    begun_s: float | None = None
    hidden_warnings: int = 0


STYLE = ConsoleStyle()


def is_first_rank() -> bool:
    """Whether this process writes to the console: of the processes of torchrun only one does."""
    return os.environ.get("RANK", "0") == "0"


def on_terminal() -> bool:
    """Whether the console is a terminal that can redraw lines, and is to."""
    plain = STYLE.quiet or STYLE.as_json or bool(os.environ.get("CI"))
    can_redraw = sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return can_redraw and not plain and is_first_rank()


class _Terminal:
    """The terminal, made when it is first written to: importing rich takes a while."""

    def __init__(self) -> None:
        self._console: Console | None = None
        self._stream: Any = None

    def __call__(self) -> Console:
        from rich.console import Console

        stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # behind what live lines put in its place
        if self._console is None or self._stream is not stream:
            self._console, self._stream = Console(stderr=True, highlight=False), stream
        return self._console


#: The console of rich that log lines and live lines share. Colors follow NO_COLOR.
terminal = _Terminal()


def setup_logging(run_dir: Path | None, verbose: bool = False) -> logging.Logger:
    """Send the package's log to the console (stderr) and, within a run, append it to the run's ``log.txt``.

    A second call redirects the log and closes the handlers of the first.

    Args:
        run_dir: folder of the run, created if absent. None: console only.
        verbose: also show debug lines.

    Returns:
        The logger "mdsim". Its records are not passed to the root logger, where other libraries could print them again.
    """
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    for handler in [handler for handler in logger.handlers if isinstance(handler.formatter, LineFormatter)]:
        logger.removeHandler(handler)
        handler.close()
    if is_first_rank():
        _add_handler(logger, _ConsoleHandler(), _console_formatter())
    if run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(run_dir / LOG_FILE, encoding="utf-8")
        _add_handler(logger, file, LineFormatter(datefmt="%Y-%m-%d %H:%M:%S"))
    _capture_warnings(STYLE.as_json)
    return logger


def _add_handler(logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def _console_formatter() -> logging.Formatter:
    if STYLE.as_json:
        return JSONFormatter()
    return QuietFormatter() if STYLE.quiet else LineFormatter(datefmt="%H:%M:%S")


def _capture_warnings(capture: bool) -> None:
    """Have Python's warnings, of this package and others, as JSON objects too."""
    logging.captureWarnings(capture)
    logger = logging.getLogger("py.warnings")
    logger.propagate = not capture
    logger.handlers = [_ConsoleHandler()] if capture else []
    for handler in logger.handlers:
        handler.setFormatter(JSONFormatter())


def finished(summary: str, files: Mapping[Path, str] | None = None) -> None:
    """The last line of a command, which `--quiet` shows too.

    Args:
        summary: what was done.
        files: the few files worth opening, with what they hold. With files, the line says how long the command took.
    """
    if files and STYLE.begun_s is not None:
        summary = f"{summary.removesuffix('.')} ({format_duration(time.monotonic() - STYLE.begun_s)})"
    logging.getLogger(LOGGER_NAME).info("%s", summary, extra={"final": True, "files": dict(files or {})})


def show(text: str) -> None:
    """Print a result to stdout, folded to the width of a terminal."""
    print(folded(text, shutil.get_terminal_size().columns, indent=0) if sys.stdout.isatty() else text)


def exclaim(message: str, level: str = "error") -> None:
    """A line on stderr after which the process ends. It is not in ``log.txt``, as there may be none."""
    if STYLE.as_json:
        print(json.dumps(as_object(time.time(), level, message), ensure_ascii=False), file=sys.stderr)
    else:
        print(f"{level}: {message}" if level == "error" else message, file=sys.stderr)


def in_signal(message: str) -> None:
    """Write a line within a signal handler, past the log and its locks, which the signal may have interrupted."""
    if not is_first_rank():
        return
    if STYLE.as_json:
        message = json.dumps(as_object(time.time(), "info", message), ensure_ascii=False)
    show_cursor_in_an_empty_line = "\r\x1b[2K\x1b[?25h" if on_terminal() else ""
    os.write(2, f"{show_cursor_in_an_empty_line}{message}\n".encode())


class _ConsoleHandler(logging.Handler):
    """Writes lines to stderr, on a terminal above the live lines and with colors."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if STYLE.quiet and not self._is_shown(record):
                return
            text = self.format(record)
            if STYLE.quiet and STYLE.hidden_warnings and not STYLE.as_json:
                text += f" (warnings not shown: {STYLE.hidden_warnings})"
            if on_terminal():
                terminal().print(styled(folded(text, terminal().width), record), soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)

    def _is_shown(self, record: logging.LogRecord) -> bool:
        STYLE.hidden_warnings += record.levelno == logging.WARNING
        return record.levelno >= logging.ERROR or getattr(record, "final", False)


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """An aligned plain-text table; columns of numbers are right-aligned.

    Args:
        header: one title per column.
        rows: cells as text. A column counts as numeric when most of its cells start with a number; dashes and blanks do
            not count. So one "not reached" among numbers leaves them right-aligned.

    Raises:
        ValueError: the number of cells in a row differs from that in the header.
    """
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"row {number} of the table has {len(row)} cells, the header has {len(header)}: {row}")
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    align = [str.rjust if rows and _is_numeric(column[1:]) else str.ljust for column in columns]
    rule = ["─" * width for width in widths]
    lines = [header, rule, *rows]
    return "\n".join(
        "  ".join(place(cell, width) for place, cell, width in zip(align, line, widths, strict=True)).rstrip()
        for line in lines
    )


def _is_numeric(cells: tuple[str, ...]) -> bool:
    filled = [cell.strip() for cell in cells if cell.strip() not in _BLANK]
    return 2 * sum(_NUMBER.match(cell) is not None for cell in filled) > len(filled) or not filled


def format_interval(value: float, low: float, high: float, unit: str = "", digits: int = 3) -> str:
    """An estimate with its interval, as in "1.23 [1.10, 1.40] ps".

    Args:
        value: the estimate, shown with ``digits`` significant digits; the bounds get as many decimals.
        low: lower bound.
        high: upper bound.
        unit: unit after the interval.
        digits: significant digits of the value, or of the larger bound where the value is zero or not finite.
    """
    bounds = [abs(bound) for bound in (low, high) if math.isfinite(bound)]
    scale = abs(value) if value != 0 and math.isfinite(value) else max(bounds, default=0.0)
    exponent = int(f"{scale:.{digits - 1}e}".split("e")[1])  # after rounding: 9.996 counts as 10.0
    style = f".{max(digits - 1 - exponent, 0)}f" if -4 <= exponent < 6 else f".{digits - 1}e"
    return f"{value:{style}} [{low:{style}}, {high:{style}}] {unit}".rstrip()


def format_duration(seconds: float) -> str:
    """A wall-clock time in its two largest units: "12.3 s", "4 min 05 s", "2 h 13 min", "1 d 04 h"."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    units = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
    name, size, part_name, part = next(unit for unit in units if whole >= unit[1])
    return f"{whole // size} {name} {whole % size // part:02d} {part_name}"
