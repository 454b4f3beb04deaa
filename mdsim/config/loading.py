"""How YAML files, their `includes:` and command-line overrides become one validated object of the schema.

A file may start with `includes: [other.yml]`: included files are read first (paths relative to the including file) and
later values win. Sections merge key by key, except that one whose `name` or `factory` changes is replaced whole.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mdsim.config.schema import Section
from mdsim.errors import ConfigError


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where plain YAML would drop the first."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below, by YAML itself
            if key in seen:
                raise ConfigError(f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}: {key!r} twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(
    path: str | Path, schemas: type[Section] | Mapping[str, type[Section]], overrides: Sequence[str] = ()
) -> Any:
    """Read a YAML file, its includes and the overrides into a validated configuration.

    Args:
        path: the YAML file.
        schemas: the schema, or one for each value of the key `mode`.
        overrides: `key.sub.key=value` strings; values are parsed as YAML. List items by position: `stability.0.name`.

    Raises:
        ConfigError: with every problem found, one a line.
    """
    path = Path(path)
    values = read_yaml(path)
    for override in overrides:
        _apply_override(values, override)
    return validate(values, schemas, str(path))


def read_yaml(path: Path, _including: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The merged mapping of a file and of what it includes."""
    if path.resolve() in _including:
        raise ConfigError(f"{path}: includes itself by way of {_including[-1]}")
    try:
        with path.open(encoding="utf-8") as stream:
            loader = _UniqueKeyLoader(stream)
            loader.name = str(path)
            try:
                values = loader.get_single_data()
            finally:
                loader.dispose()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, found {type(values).__name__}")
    merged: dict[str, Any] = {}
    includes = values.pop("includes", [])
    includes = [includes] if isinstance(includes, str) else includes
    if not (isinstance(includes, list) and all(isinstance(include, str) for include in includes)):
        raise ConfigError(f"{path}: includes: must be a list of files, found {includes!r}")
    for include in includes:
        merged = _merge(merged, read_yaml(path.parent / include, (*_including, path.resolve())))
    return _merge(merged, values)


def _merge(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and _same_kind(old, value):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _same_kind(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(key not in new or key not in old or old[key] == new[key] for key in ("name", "factory"))


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"override {override!r}: write --key.sub=value")
    target: Any = values
    *parents, last = key.lstrip("-").split(".")
    try:
        for part in parents:
            if isinstance(target, list):
                target = target[int(part)]
            else:
                if target.get(part) is None:
                    target[part] = {}
                target = target[part]
        parsed = yaml.load(text, Loader=_UniqueKeyLoader)
        if isinstance(target, list):
            target[int(last)] = parsed
        else:
            target[last] = parsed
    except (AttributeError, IndexError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"override {override!r}: {key!r} is no place in this configuration ({error})") from error


def validate(values: dict[str, Any], schemas: type[Section] | Mapping[str, type[Section]], source: str) -> Any:
    """The values as an object of the schema (chosen by `mode` where there are several)."""
    if isinstance(schemas, Mapping):
        mode = values.get("mode")
        if not isinstance(mode, str) or mode not in schemas:
            raise ConfigError(f"{source}: mode: found {mode!r}, expected one of {', '.join(schemas)}")
        schema = schemas[mode]
    else:
        schema = schemas
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {_describe(schema, p)}" for p in _without_echoes(error))) from error


def _without_echoes(error: ValidationError) -> list[Any]:
    """The problems, less those of a list that is called too short because its items are invalid."""
    problems = error.errors()
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(p is not problem and p["loc"][: len(problem["loc"])] == problem["loc"] for p in problems)
    ]


def _describe(schema: type[Section], problem: Any) -> str:
    """One line for one of pydantic's errors, with the nearest known key for an unknown one."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(schema, problem["loc"][:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {key!r}; {hint}"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower() + message[1:]} (found {problem['input']!r})" if key else message


def _known_keys(schema: type[Section], location: Iterable[Any]) -> list[str]:
    candidates = [schema]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
        if fields:
            candidates = [found for field in fields for found in _sections_in(field.annotation)]
        else:  # the tag of a discriminated union
            candidates = [m for m in candidates if part in typing.get_args(m.model_fields["name"].annotation)]
    return sorted({name for model in candidates for name in model.model_fields})


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in _sections_in(part)]


def save_config(config: Section, path: Path) -> None:
    """Write the resolved configuration so that it can be loaded again."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    temporary.replace(path)
