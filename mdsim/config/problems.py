"""Descriptions of validation problems: one line per problem, with the key."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from mdsim.config.schema import Section
from mdsim.errors import one_line

MOST_PROBLEMS = 10
LONGEST = 390
ALIKE = 0.7  # similarity of a key in another section that is worth a hint; 1: equal
#: In the words of YAML instead of those of Python.
MESSAGES = {
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must hold `key: value` lines",
    "model_type": "must hold `key: value` lines",
    "model_attributes_type": "must hold `key: value` lines",
}


def describe(schema: type[Section], error: ValidationError, source: str) -> str:
    """One line per problem. If there are many, the last line gives the number of further ones."""
    problems = _without_echoes(error)
    lines = [one_line(f"{source}: {_describe(schema, problem)}", LONGEST) for problem in problems[:MOST_PROBLEMS]]
    if more := len(problems) - len(lines):
        lines.append(f"{one_line(source, 100)}: and {more} more")
    return "\n".join(lines)


def _without_echoes(error: ValidationError) -> list[Any]:
    """The problems, without "list too short" if the items of the list are invalid anyway."""
    problems = error.errors()
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(p is not problem and p["loc"][: len(problem["loc"])] == problem["loc"] for p in problems)
    ]


def _describe(schema: type[Section], problem: Any) -> str:
    """Description of one pydantic error, with the nearest known key for an unknown key."""
    location = [str(part) for part in problem["loc"]]
    key = one_line(".".join(location), 120)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(schema, problem["loc"][:-1])
        near = _nearest(schema, location, known)
        hint = f"did you mean {near}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {key!r}; {hint}"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    message = one_line(MESSAGES.get(problem["type"], problem["msg"]).removeprefix("Value error, "), 200)
    if problem["type"] == "too_short":
        least = problem["ctx"]["min_length"]
        message = f"needs at least {least} item{'s' if least > 1 else ''}"
    found = one_line(repr(problem["input"]), 80)
    return f"{key}: {message[0].lower() + message[1:]} (found {found})" if key else message


def _nearest(schema: type[Section], location: list[str], known: list[str]) -> str | None:
    """The most similar key in the same section, or a more similar one in the sections of the configuration."""
    unknown = location[-1][:100]

    def similarity(key: str) -> float:
        return difflib.SequenceMatcher(None, key.rpartition(".")[2], unknown).ratio()

    here = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    elsewhere = [key for key in _keys_below(schema) if similarity(key) >= ALIKE]
    best = max([*here, *elsewhere], key=similarity, default=None)  # of equal ones the first, in the same section
    if best is None:
        return None
    at_the_top = best not in here and "." not in best and len(location) > 1
    return f"{best!r} at the top level" if at_the_top else repr(best)


def _keys_below(section: type[Section], prefix: str = "") -> list[str]:
    """All keys of the sections that are not chosen by name, with the path to them."""
    found = []
    for name, field in section.model_fields.items():
        found.append(f"{prefix}{name}")
        below = _sections_in(field.annotation)
        if len(below) == 1 and typing.get_origin(field.annotation) is not tuple:
            found += _keys_below(below[0], f"{prefix}{name}.")
    return found


def _known_keys(schema: type[Section], location: Iterable[Any]) -> list[str]:
    candidates = [schema]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
        if fields:
            candidates = [found for field in fields for found in _sections_in(field.annotation)]
        else:  # the tag of a discriminated union
            candidates = [m for m in candidates if _has_tag(m, part)]
    return sorted({name for model in candidates for name in model.model_fields})


def _has_tag(section: type[Section], tag: Any) -> bool:
    return "name" in section.model_fields and tag in typing.get_args(section.model_fields["name"].annotation)


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in _sections_in(part)]
