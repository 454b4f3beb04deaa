"""Parser of YAML text to plain data, with unique keys, bounded size and depth, and one-line errors."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from mdsim.errors import ConfigError, one_line

MOST_CHARACTERS = 1_000_000
MOST_VALUES = 100_000  # aliases are counted each time they are used
DEEPEST = 40
INTEGERS = range(-(2**63), 2**63)  # seeds and counts must fit into 64 bits


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses duplicate keys in a mapping. Plain YAML would drop the first one."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused by YAML itself below
            if key in seen:
                where = f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}"
                raise ConfigError(f"{where}: {one_line(repr(key), 100)} appears twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, source: str) -> Any:
    """The content of a YAML document: mappings with text keys, lists, text, numbers, dates, true, false and null.

    Args:
        text: the document.
        source: name of the document in messages.

    Raises:
        ConfigError: the text is not valid YAML, or not plausible as a configuration (size, depth or content).
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{source}: has more than {MOST_CHARACTERS:,} characters: it is not a configuration")
    try:
        loader = _UniqueKeyLoader(text)
        loader.name = source
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except ConfigError:
        raise
    except RecursionError as error:
        raise ConfigError(f"{source}: is nested deeper than {DEEPEST} levels") from error
    except Exception as error:  # YAML's constructors of numbers, dates and binary data raise arbitrary errors
        raise ConfigError(f"{source}: is not valid YAML: {_reason(error)}") from error
    _Checked(source).count(value, 0)
    return value


def _reason(error: Exception) -> str:
    """The message of YAML, with the line if it is known."""
    if isinstance(error, yaml.YAMLError):
        return one_line(error)
    return one_line(f"a value cannot be read ({error or type(error).__name__})")


class _Checked:
    """Checks a parsed document for size, depth, keys and values."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sizes: dict[int, int] = {}  # of containers, by identity, so that an alias is visited once

    def count(self, value: Any, depth: int) -> int:
        """Number of values within a value, including itself."""
        if isinstance(value, dict | list):
            return self._count_container(value, depth)
        if isinstance(value, str) and not _is_text(value):
            raise ConfigError(f"{self.source}: {one_line(repr(value), 100)} has invalid characters")
        if isinstance(value, int) and value not in INTEGERS:
            raise ConfigError(f"{self.source}: {one_line(value, 40)} exceeds the range of 64-bit integers")
        return 1

    def _count_container(self, value: dict | list, depth: int) -> int:
        if depth >= DEEPEST:  # also for a container that contains itself
            raise ConfigError(f"{self.source}: is nested deeper than {DEEPEST} levels")
        if id(value) in self.sizes:
            return self.sizes[id(value)]
        size = 1
        for item in value:
            if isinstance(value, dict):
                self._check_key(item)
                item = value[item]
            size += self.count(item, depth + 1)
            if size > MOST_VALUES:
                raise ConfigError(f"{self.source}: holds more than {MOST_VALUES:,} values: it is not a configuration")
        self.sizes[id(value)] = size
        return size

    def _check_key(self, key: Any) -> None:
        if not isinstance(key, str):
            raise ConfigError(f"{self.source}: the key {one_line(repr(key), 100)} is not text: put it in quotes")
        self.count(key, 0)


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
