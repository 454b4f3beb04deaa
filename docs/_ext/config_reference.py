"""Generator of the reference of all configuration keys from `mdsim.config.schema`.

A line ``<!-- config-reference: PretrainConfig -->`` in a page is replaced by the keys of that section and of every
section below it that no earlier such line has written.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx

from mdsim.config import schema

PLACE = re.compile(r"^<!-- config-reference: (\w+) -->$", re.MULTILINE)
UNITS = {
    "mPa_s": "mPa s", "per_ps": "1/ps", "per_A": "1/Å", "per_cm": "1/cm", "kJ_per_mol": "kJ/mol", "eV": "eV", "e": "e",
    "A": "Å", "K": "K", "fs": "fs", "ps": "ps", "deg": "°", "s": "s",
}  # fmt: skip
ANY_NUMBER = {float: "number", int: "integer", bool: "true or false", str: "text"}
#: Text that is checked in ways a type does not show.
CHECKED = {"factory": "package.module:function"}


def reference(source: str, written: set[type[BaseModel]]) -> str:
    """A page with its places filled in; ``written`` collects the sections."""
    return PLACE.sub(lambda match: "\n".join(_section(getattr(schema, match[1]), written)), source)


def _section(section: type[BaseModel], written: set[type[BaseModel]]) -> Iterator[str]:
    """Keys of a section, then each of its subsections under a separate heading."""
    written.add(section)
    yield f"{_clean(section.__doc__ or '')}\n"
    yield from _table(section)
    for name, field in section.model_fields.items():
        for below in sections_in(field.annotation):
            if below not in written:
                chosen = _chosen_by(below)
                title = f"`{name}`" if chosen is None else f"`{name}: {{name: {chosen}}}`"
                yield f"({anchor(below)})=\n### {title}\n"
                yield from _section(below, written)


def _chosen_by(section: type[BaseModel]) -> str | None:
    """The `name` that picks this section among others, where there are others."""
    field = section.model_fields.get("name")
    choices = typing.get_args(field.annotation) if field is not None else ()
    return choices[0] if choices else None


def _table(section: type[BaseModel]) -> Iterator[str]:
    yield ":::{list-table}\n:header-rows: 1\n:class: config-reference\n:widths: 24 20 16 40\n"
    yield "* - key\n  - value\n  - default\n  - what it does"
    for name, field in section.model_fields.items():
        yield f"* - `{name}`\n  - {kind(name, field)}\n  - {_default(field)}\n  - {_clean(field.description or '')}"
    yield ":::\n"


def anchor(section: type[BaseModel]) -> str:
    """Where a section stands in the page."""
    return f"config-{section.__name__.lower()}"


def kind(name: str, field: FieldInfo) -> str:
    """What may stand there, in words, with the unit that the name of the key ends in."""
    words = CHECKED.get(name) or _words(field.annotation, field.metadata)
    unit = next((unit for ending, unit in UNITS.items() if name.endswith(f"_{ending}")), None)
    return f"{words}, {unit}" if unit else words


def _words(annotation: Any, limits: list[Any] | None = None) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], _unfolded(arguments[1:]))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        words = [_words(argument, limits) for argument in arguments if argument is not type(None)]
        return ", ".join(words) + (" or `null`" if type(None) in arguments else "")
    if origin is tuple:
        one = _words(arguments[0])
        return f"list of {one}" if arguments[-1] is Ellipsis else f"list of {len(arguments)} ({one})"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        name = _chosen_by(annotation)
        return f"[{'section' if name is None else f'`{name}`'}](#{anchor(annotation)})"
    if origin is dict:
        return "`key: value` pairs"
    return ANY_NUMBER[annotation] + _bounds(limits or [])


def _unfolded(metadata: Any) -> list[Any]:
    """The limits in the metadata of an annotation, also those inside a `Field`."""
    return [limit for item in metadata for limit in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _bounds(limits: list[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [(sign, getattr(limit, name, None)) for name, sign in signs.items() for limit in limits]
    words = ", ".join(f"{sign} {value:g}" for sign, value in found if value is not None)
    return f" {words}" if words else ""


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that may stand at a key, in the order of the schema."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in sections_in(argument)]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "*required*"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    return "empty" if field.default == "" else f"`{json.dumps(field.default)}`".replace('"', "")


def _clean(text: str) -> str:
    return " ".join(text.split())


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    if PLACE.search(source[0]):
        source[0] = reference(source[0], set())


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
