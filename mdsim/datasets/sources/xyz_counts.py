"""Checks of the atom counts in xyz files before they are parsed."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from mdsim.errors import DatasetError

COMPRESSED = (".gz", ".bz2", ".xz")


def check_counts(path: Path) -> None:
    """Raise an error if a count of atoms is not a number, or larger than the file.

    Readers use memory or time in proportion to this count.

    Raises:
        DatasetError: a count is wrong. The message gives its line.
    """
    if path.suffix in COMPRESSED:
        return
    at = 0
    with path.open("rb") as file:
        while line := file.readline():
            at += 1
            if not (text := line.strip()):  # readers end at an empty line
                return
            if text.startswith(b"VEC") and at > 1:  # lattice vectors may follow the atoms
                continue
            if not text.isdigit():
                raise DatasetError(f"{path}: line {at} should be the number of atoms of a frame, found {text[:40]!r}")
            if len(text) > 12 or 2 * int(text) > path.stat().st_size:
                raise DatasetError(
                    f"{path}: line {at} promises {text[:40].decode()} atoms, more than the file can hold"
                )
            count = int(text)
            comment = file.readline()
            first = file.readline() if count else b""
            _check_columns(path, at + 1, comment, first)
            found = bool(comment) + bool(first) + sum(1 for _ in islice(file, max(0, count - 1)))
            if found < count + 1:
                raise DatasetError(
                    f"{path}: the frame at line {at} should have {count} atoms, but the file ends after"
                    f" {max(0, found - 1)}"
                )
            at += count + 1


def _check_columns(path: Path, line: int, comment: bytes, first: bytes) -> None:
    """Raise an error if extended xyz declares more columns than an atom's line has words."""
    named = re.search(rb"Properties\s*=\s*[\"']?([^\s\"']+)", comment)
    widths = named[1].split(b":")[2::3] if named else []
    words = len(first.split())
    if any(len(width) > 9 or (width.isdigit() and int(width) > words) for width in widths):
        raise DatasetError(f"{path}: line {line} promises more columns than the {words} of the atoms below")
