"""Forms of a line of the log: plain, quiet, as JSON, and folded and colored for a terminal."""

from __future__ import annotations

import json
import logging
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

LEVEL_STYLES = {"WARNING": "bold yellow", "ERROR": "bold red", "CRITICAL": "bold red"}
_RULE = re.compile(r"[─ ]*─[─ ]*")


class LineFormatter(logging.Formatter):
    """Time and message, with the level for warnings and errors only, and the files of a last line below it."""

    def usesTime(self) -> bool:
        return True

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname}: " if record.levelno > logging.INFO else ""
        files: dict[Path, str] = getattr(record, "files", {})
        width = max((len(str(path)) for path in files), default=0)
        below = [f"\n  {path!s:<{width}}  {purpose}" for path, purpose in files.items()]
        return f"{record.asctime}  {level}{record.message}{''.join(below)}"


class QuietFormatter(LineFormatter):
    """One line without a time."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname}: " if record.levelno > logging.INFO else ""
        files = ", ".join(map(str, getattr(record, "files", {})))
        return f"{level}{record.message}{files and ': '}{files}"


class JSONFormatter(LineFormatter):
    """One object per record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if files := getattr(record, "files", {}):
            fields["files"] = [str(path) for path in files]
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        return json.dumps(as_object(record.created, record.levelname.lower(), message, fields), ensure_ascii=False)


def as_object(time_s: float, level: str, message: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A line of `--json-logs`: ``time`` (s since 1970), ``level``, ``message``, and the numbers in the message."""
    return {"time": round(time_s, 3), "level": level, "message": message, **_finite(dict(fields or {}))}


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: they are null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def folded(text: str, width: int, indent: int = 10) -> str:
    """Long lines broken between words: of a message below its beginning, of a table in its last column.

    Lists and commands, which are indented by two blanks, stay as they are, and so do tables whose last column begins in
    the right half.
    """
    found, column = [], 0
    lines = text.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if _RULE.fullmatch(following):  # this is the header
            column = following.rstrip().rfind(" ") + 1
        elif not line:
            column = 0
        if _RULE.fullmatch(line) and column <= width // 2:
            line = line[:width]
        if len(line) > width and (column or line[:2].strip()) and column <= width // 2:
            line = textwrap.fill(
                line, width, subsequent_indent=" " * (column or indent), break_long_words=False, break_on_hyphens=False
            )
        found.append(line)
    return "\n".join(found)


def styled(text: str, record: logging.LogRecord) -> Text:
    """A log line in colors: its time is dim, its level stands out, and so do headers of tables and names of files."""
    from rich.text import Text

    result = Text(text)
    lines = text.split("\n")
    starts = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
    result.stylize("dim", 0, len(lines[0].partition("  ")[0]))
    if getattr(record, "final", False):
        result.stylize("bold green", len(lines[0].partition("  ")[0]), len(lines[0]))
    result.highlight_words([f"{record.levelname}:"], LEVEL_STYLES.get(record.levelname, ""))
    for number, (start, line) in enumerate(zip(starts, lines, strict=True)):
        if number and _RULE.fullmatch(line):
            result.stylize("bold", starts[number - 1], start)
            result.stylize("dim", start, start + len(line))
    result.highlight_words([str(path) for path in getattr(record, "files", {})], "cyan")
    return result
