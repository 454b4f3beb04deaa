"""Custom components: import and call of the factory ``package.module:function`` that a configuration names.

Naming a factory runs its code. Only configurations, command lines and Python callers may name one. A checkpoint that
needs a factory is refused unless exactly this factory is allowed.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mdsim.errors import ConfigError, one_line


def make(kind: type, factory: str, options: Mapping[str, Any], key: str, **context: Any) -> Any:
    """Call a factory and check what it returns.

    Args:
        kind: class or protocol of the result.
        factory: ``package.module:function``, or a class.
        options: keyword arguments from the configuration.
        key: configuration key that names the factory, for messages.
        context: further keyword arguments, each passed if the factory has a parameter of that name.

    Raises:
        ConfigError: the factory cannot be imported, does not take the options, fails, or returns something else.
    """
    function = resolve(factory, key)
    if taken := sorted(context.keys() & options.keys()):
        raise ConfigError(f"{key}: options.{taken[0]} cannot be set: {factory} gets {', '.join(context)} from the run")
    arguments = _arguments(function, factory, options, key, context)
    with _named(f"{key}: {factory} fails"):
        made = function(**arguments)
    if not isinstance(made, kind):
        raise ConfigError(
            f"{key}: {factory} returned a {type(made).__name__}, which is not a {kind.__name__}{_lacks(made, kind)}"
        )
    return made


def resolve(factory: str, key: str) -> Callable[..., Any]:
    """Import the object that ``package.module:function`` names.

    Raises:
        ConfigError: the module or the object does not exist, cannot be imported, or is not callable.
    """
    module_name, _, name = factory.partition(":")
    try:
        with _named(f"{key}: {factory} cannot be imported", besides=ImportError):
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: {factory} cannot be imported ({error}); install its package, or name its folder in PYTHONPATH"
        ) from error
    if not hasattr(module, name):
        near = get_close_matches(name, dir(module), n=1)
        raise ConfigError(f"{key}: {module_name} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError(f"{key}: {factory} is a {type(found).__name__} and cannot be called")
    return found


def call(function: Callable[..., Any], factory: str, key: str) -> Any:
    """Call a factory without arguments.

    Raises:
        ConfigError: it needs arguments, or fails.
    """
    arguments = _arguments(function, factory, {}, key, {})
    with _named(f"{key}: {factory} fails"):
        return function(**arguments)


@contextmanager
def _named(what: str, besides: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn whatever goes wrong in code of a user into one line that says what, why, and where in the code.

    Args:
        what: the configuration key and the factory, for the message.
        besides: errors that are passed on.

    Raises:
        ConfigError: in place of the error.
    """
    try:
        yield
    except besides:
        raise
    except Exception as error:
        last = error if isinstance(error, SyntaxError) else traceback.extract_tb(error.__traceback__)[-1]
        where = f"line {last.lineno} of {Path(last.filename or '').name}"
        raise ConfigError(f"{what} with {type(error).__name__} in {where}: {one_line(error)}") from error


def _arguments(
    function: Callable[..., Any], factory: str, options: Mapping[str, Any], key: str, context: Mapping[str, Any]
) -> dict[str, Any]:
    """The options, and the part of the context that the factory has parameters for."""
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = {name: value for name, value in context.items() if takes_all or name in signature.parameters}
    arguments = {**known, **options}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{key}: options do not fit {factory}{signature}: {error}") from error
    return arguments


def _lacks(made: object, kind: type) -> str:
    """List the members of a protocol that an object lacks, for a message."""
    members = {name for name in dir(kind) if not name.startswith("_")}
    members |= {"__call__"} if any("__call__" in vars(base) for base in kind.__mro__) else set()
    missing = sorted(name for name in members if not hasattr(made, name))
    return f": it lacks {', '.join(missing)}" if missing and getattr(kind, "_is_protocol", False) else ""
