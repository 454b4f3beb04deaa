"""Docstrings of this project as reStructuredText: tables with bars, and indented formulas, keep their lines."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|References|Sources?):\s*$")
EXAMPLES = re.compile(r"Examples?:\s*$")  # commands and code, line by line
ITEM = re.compile(r"\s*([-*]|\d+\.)\s")


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def as_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring with indented blocks as literal blocks, and `| a | b |` tables as list tables."""
    written: list[str] = []
    position, in_section = 0, False
    while position < len(lines):
        line = lines[position]
        in_section = bool(SECTION.match(line)) or (in_section and (not line or line.startswith(" ")))
        after_blank = not written or not written[-1].strip()
        if line.lstrip().startswith("|") and line.rstrip().endswith("|"):
            end = _end(lines, position, lambda text: text.lstrip().startswith("|"))
            written += ["", *_list_table(lines[position:end]), ""]
            position = end
        elif EXAMPLES.match(line):
            end = _end(lines, position + 1, lambda text: not text.strip() or text.startswith("    "))
            written += [f"{line.strip()}:", "", *lines[position + 1 : end], ""]
            position = end
        elif line.startswith("    ") and after_blank and not in_section and not ITEM.match(line):
            end = _end(lines, position, lambda text: not text.strip() or text.startswith("    "))
            written += ["::", "", *lines[position:end], ""]
            position = end
        else:
            written.append(_plain_bars(line))
            position += 1
    return written


def _plain_bars(line: str) -> str:
    """|x| is an absolute value, not a substitution; within backticks bars stay as they are."""
    parts = line.split("`")
    return "`".join(part if number % 2 else part.replace("|", "\\|") for number, part in enumerate(parts))


def _end(lines: list[str], start: int, belongs: Any) -> int:
    end = start
    while end < len(lines) and belongs(lines[end]):
        end += 1
    return end


def _list_table(rows: list[str]) -> list[str]:
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]
    cells = [row for row in cells if not all(set(cell) <= set("-: ") for cell in row)]
    table = [".. list-table::", "   :header-rows: 1", ""]
    for row in cells:
        table += [f"   {'* -' if column == 0 else '  -'} {cell}" for column, cell in enumerate(row)]
    return table


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process, priority=100)  # before napoleon
    return {"parallel_read_safe": True}
