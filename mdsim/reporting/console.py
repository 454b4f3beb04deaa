"""Console output of runs: log lines, progress bars, tables, intervals and durations."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

LOGGER_NAME = "mdsim"
LOG_FILE = "log.txt"
_NUMBER = re.compile(r"[-+−±<>≤≥~]?\s*(\d|\.\d|nan\b|inf\b)")
_BLANK = {"", "-", "–", "—"}


@dataclass
class ConsoleStyle:
    """What the log shows on the console, for the whole process.

    Attributes:
        quiet: warnings and errors alone.
        as_json: one JSON object per line, with time, level and message.
    """

    quiet: bool = False
    as_json: bool = False


STYLE = ConsoleStyle()


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
    for handler in [handler for handler in logger.handlers if isinstance(handler.formatter, _LineFormatter)]:
        logger.removeHandler(handler)
        handler.close()
    if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun only one writes to the console
        console = _ConsoleHandler(logging.WARNING if STYLE.quiet else logging.NOTSET)
        _add_handler(logger, console, _JSONFormatter() if STYLE.as_json else _LineFormatter(datefmt="%H:%M:%S"))
    if run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(run_dir / LOG_FILE, encoding="utf-8")
        _add_handler(logger, file, _LineFormatter(datefmt="%Y-%m-%d %H:%M:%S"))
    return logger


def _add_handler(logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setFormatter(formatter)
    logger.addHandler(handler)


class _LineFormatter(logging.Formatter):
    """Time and message, with the level for warnings and errors only."""

    def usesTime(self) -> bool:
        return True

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname}: " if record.levelno > logging.INFO else ""
        return f"{record.asctime}  {level}{record.message}"


class _JSONFormatter(_LineFormatter):
    """One object per record, with the time in seconds since 1970."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(fields, ensure_ascii=False)


class _ConsoleHandler(logging.Handler):
    """Writes lines above active progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


def progress(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    desc: str = "",
    unit: str = "step",
    log_interval_s: float = 30.0,
    initial: int = 0,
    unit_scale: bool = False,
) -> tqdm:
    """A progress bar on a terminal, or periodic log lines elsewhere (batch job, pipe).

    Args:
        iterable: items to iterate over. None: the caller calls `update` on the bar.
        total: expected number of items, if the iterable has no length.
        desc: description in front of the bar.
        unit: name of an item.
        log_interval_s: seconds between log lines without a terminal. Shorter loops log nothing.
        initial: number of items completed by an earlier run.
        unit_scale: use prefixes (k, M, ...), as for bytes.

    Returns:
        The bar: iterable, and a context manager.
    """
    common = {"total": total, "desc": desc, "unit": f" {unit}", "miniters": 1}
    common |= {"initial": initial, "unit_scale": unit_scale}
    if sys.stderr.isatty():
        return tqdm(iterable, mininterval=0.5, dynamic_ncols=True, leave=False, file=sys.stderr, **common)
    return tqdm(
        iterable,
        mininterval=log_interval_s,
        delay=log_interval_s,
        bar_format="{desc}: {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}]",
        file=_LogLines(),
        **common,
    )


class _LogLines:
    """A stream for tqdm whose redrawn bars become lines of the log."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            logging.getLogger(LOGGER_NAME).info(line)

    def flush(self) -> None:
        """Handlers flush each line themselves."""


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
