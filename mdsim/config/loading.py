"""Loading of configurations: YAML files, their `includes:` and command-line overrides become one validated object.

A file may start with `includes: [other.yml, recipe:stable_training]`. Included files are read first, and later values
take precedence. Paths are relative to the including file; `recipe:NAME` is a recipe shipped with the package. Sections
merge key by key, but a section whose `name` or `factory` changes is replaced as a whole. Lists are replaced, but a
mapping merged onto a list of named sections changes the items with these names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mdsim.config.plain_yaml import MOST_CHARACTERS, parse
from mdsim.config.problems import describe
from mdsim.config.schema import Section
from mdsim.errors import ConfigError, one_line

RECIPES = Path(__file__).parent / "recipes"
RECIPE = "recipe:"
MOST_INCLUDES = 1000  # files read for one configuration, counted each time they are included


def load_config(
    path: str | Path, schemas: type[Section] | Mapping[str, type[Section]], overrides: Sequence[str] = ()
) -> Any:
    """Read a YAML file, its includes and the overrides into a validated configuration.

    Args:
        path: the YAML file.
        schemas: the schema, or one schema per value of the key `mode`.
        overrides: `key.sub.key=value` strings. Values are parsed as YAML. List items are addressed by position or name:
            `stability.0.bond_dev_tol_A=0.5`, `stability.bond_length_deviation.bond_dev_tol_A=0.5`.

    Raises:
        ConfigError: every problem found, one per line.
    """
    path = Path(path)
    values = read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    return validate(values, schemas, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The merged mapping of a file and its includes."""
    return _Reader().read(path, ())


class _Reader:
    """Reads and counts files. The count is limited, because repeated includes can grow exponentially."""

    def __init__(self) -> None:
        self.count = 0

    def read(self, path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
        self.count += 1
        if self.count > MOST_INCLUDES:
            raise ConfigError(f"{_shown(path)}: more than {MOST_INCLUDES} files are included")
        text, resolved = _read_text(path)
        if resolved in including:
            raise ConfigError(f"{_shown(path)}: includes itself through {_shown(including[-1])}")
        values = parse(text, _shown(path))
        if not isinstance(values, dict):
            found = "nothing" if values is None else f"a {type(values).__name__}"
            raise ConfigError(f"{_shown(path)}: must hold `key: value` lines, found {found}")
        merged: dict[str, Any] = {}
        for include in _includes(values.pop("includes", []), path):
            merged = _merge(merged, self.read(include, (*including, resolved)), f"{_shown(path)}: ")
        return _merge(merged, values, f"{_shown(path)}: ")


def _read_text(path: Path) -> tuple[str, Path]:
    """The text of a file, up to the largest length of a configuration, and its resolved path."""
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.read(MOST_CHARACTERS + 1), path.resolve()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{_shown(path)}: is not valid YAML: {one_line(error)}") from error
    except (OSError, ValueError, RuntimeError) as error:  # no file, null bytes in its name, or circular links
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{_shown(path)}: cannot be read ({one_line(reason)})") from error


def _includes(found: Any, path: Path) -> list[Path]:
    """The included files, as written in ``path``."""
    includes = [found] if isinstance(found, str) else found
    if not (isinstance(includes, list) and all(isinstance(include, str) for include in includes)):
        raise ConfigError(f"{_shown(path)}: includes: must be a list of files, found {one_line(repr(found), 80)}")
    return [_included(include, path) for include in includes]


def _included(include: str, path: Path) -> Path:
    if not include.startswith(RECIPE):
        return path.parent / include
    name = include.removeprefix(RECIPE)
    known = sorted(recipe.stem for recipe in RECIPES.glob("*.yml"))
    if name not in known:
        raise ConfigError(
            f"{_shown(path)}: includes: there is no recipe {one_line(repr(name), 80)}; there are {', '.join(known)}"
        )
    return RECIPES / f"{name}.yml"


def _shown(path: Path) -> str:
    return one_line(path, 200)


# ----------------------------------------------------------------------------------------------------------- merging


def _merge(base: dict[str, Any], extra: dict[str, Any], where: str) -> dict[str, Any]:
    """The base updated by the later values. ``where`` is the location for messages."""
    merged = dict(base)
    for key, value in extra.items():
        merged[key] = _merge_value(merged.get(key), value, f"{where}{key}")
    return merged


def _merge_value(old: Any, new: Any, where: str) -> Any:
    if isinstance(old, dict) and isinstance(new, dict) and _same_kind(old, new):
        return _merge(old, new, f"{where}.")
    if isinstance(old, list) and isinstance(new, dict):
        merged = list(old)
        for name, value in new.items():
            position = _position(merged, name, where)
            merged[position] = _merge_value(merged[position], value, f"{where}.{name}")
        return merged
    return new


def _same_kind(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(key not in new or key not in old or old[key] == new[key] for key in ("name", "factory"))


def _position(items: list[Any], name: str, where: str) -> int:
    """Position of the item with a name in a list of named sections.

    Raises:
        ConfigError: there is no such item or several, or the items have no names.
    """
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    known = [one_line(found, 60) for found in names if isinstance(found, str)]
    shown = one_line(repr(name), 60)
    if not known:
        raise ConfigError(f"{where}: is a list whose items have no names, so none is {shown}: give the list whole")
    if names.count(name) > 1:
        raise ConfigError(
            f"{where}: {names.count(name)} items are named {shown}: give the list whole, or name the position on the "
            f"command line, as in --{where.rpartition(': ')[2]}.{names.index(name)}.KEY=VALUE"
        )
    if name not in names:
        raise ConfigError(f"{where}: no item is named {shown}; known here: {', '.join(dict.fromkeys(known))}")
    return names.index(name)


# --------------------------------------------------------------------------------------------------------- overrides


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    shown = f"override {one_line(repr(override), 120)}"
    if not separator:
        raise ConfigError(f"{shown}: write --key.sub=value")
    target: Any = values
    *parents, last = key.lstrip("-").split(".")
    try:
        for depth, part in enumerate(parents):
            if isinstance(target, dict) and target.get(part) is None:
                target[part] = {}
            target = target[_place(target, part, parents[:depth])]
        target[_place(target, last, parents)] = parse(text, shown)
    except (AttributeError, IndexError, TypeError) as error:
        place = one_line(repr(key.lstrip("-")), 120)
        raise ConfigError(f"{shown}: {place} does not exist in this configuration ({one_line(error)})") from error


def _place(target: Any, part: str, parents: Sequence[str]) -> str | int:
    """The key in a mapping, or the position in a list from a number or a name."""
    if not isinstance(target, list):
        return part
    try:
        return int(part)
    except ValueError:
        try:
            return _position(target, part, one_line(".".join(parents), 80))
        except ConfigError as error:
            raise TypeError(str(error)) from error


def validate(values: dict[str, Any], schemas: type[Section] | Mapping[str, type[Section]], source: str) -> Any:
    """The values as an object of the schema (chosen by `mode` where there are several)."""
    if isinstance(schemas, Mapping):
        mode = values.get("mode")
        if not isinstance(mode, str) or mode not in schemas:
            found = one_line(repr(mode), 80)
            raise ConfigError(f"{one_line(source, 200)}: mode: found {found}, expected one of {', '.join(schemas)}")
        schema = schemas[mode]
    else:
        schema = schemas
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(schema, error, source)) from error


def save_config(config: Section, path: Path) -> None:
    """Write the resolved configuration so that it can be loaded again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
