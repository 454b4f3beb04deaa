"""Fenced blocks of the README and the manual, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import yaml
from paths import ROOT

from mdsim.config import schema

FENCE = re.compile(r"^(\s*)(`{3,}|:{3,})(.*)$")
INDENTED = re.compile(r"^ {4}\S")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, and its text."""

    where: str
    language: str
    text: str

    def commands(self) -> Iterator[str]:
        """The commands of a shell block, continued lines joined and comments left out."""
        for line in self.text.replace("\\\n", " ").splitlines():
            command = re.sub(r"(^|\s)#.*$", "", line).strip()
            if command:
                yield " ".join(command.split())


def documents() -> list[str]:
    """The README and all pages of the manual."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def blocks(document: str) -> list[Block]:
    """All fenced blocks of a document; directives (in braces) have the language ``{name}``."""
    return _parsed(document)[0]


def indented_code(document: str) -> list[str]:
    """Where code blocks begin that are marked by indentation alone, which says nothing about their language."""
    outside = _parsed(document)[1]
    lines = [(0, ""), *outside]
    return [
        f"{document}:{number}"
        for (before, text_before), (number, text) in pairwise(lines)
        if INDENTED.match(text) and not (text_before.strip() and number == before + 1)
    ]


def _parsed(document: str) -> tuple[list[Block], list[tuple[int, str]]]:
    """The fenced blocks, and the lines outside of them with their numbers."""
    found: list[Block] = []
    outside: list[tuple[int, str]] = []
    opening, language, start, lines = "", "", 0, []
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if opening and fence and fence[2].startswith(opening) and not fence[3].strip():
            found.append(Block(f"{document}:{start}", language, "\n".join(lines)))
            opening = ""
        elif opening:
            lines.append(line)
        elif fence:
            opening, language, start, lines = fence[2], fence[3].strip(), number, []
        else:
            outside.append((number, line))
    assert not opening, f"{document}:{start}: the block is not closed"
    return found, outside


def unknown_keys(block: Block) -> list[str]:
    """Keys in a piece of a configuration that no section of the schema has, and that name no item of a list either."""
    sections = [getattr(schema, name) for name in schema.__all__]
    sections += [*schema.MODEL_CONFIGS.values(), *schema.MODEL_REFERENCES.values()]
    fields = [section.model_fields for section in sections if hasattr(section, "model_fields")]
    known = {key for names in fields for key in names}
    known |= {name for names in fields if "name" in names for name in get_args(names["name"].annotation)}
    return sorted(set(_keys(yaml.safe_load(block.text))) - known - {"includes"})


FREE_KEYS = ("options", "atomic_energies_eV", "windows_A", "charges_e")  # of users, or named by elements


def _keys(values: object) -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield key
            yield from () if key in FREE_KEYS else _keys(value)
    elif isinstance(values, list):
        for value in values:
            yield from _keys(value)
