"""Forms of saved states: descriptions of their keys, types and shapes, checked when a file is read.

A form is one of

    a tensor            a tensor of this shape and type whose numbers are finite
    a type              a value of it; `float` takes integers too, and no NaN
    a dictionary        a dictionary with these keys, each value of its form
    a list or tuple     as many values, each of its form
    None                None
    a `Check`           whatever its function accepts: `tensor`, `list_of`, `mapping_of`, `optional`, `number`, `same`
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mdsim.errors import CheckpointError, one_line

Form = Any
REMEDY = "the file is damaged or of another run: use another copy, or start anew with --overwrite"
PROGRESS_OF_A_SCHEDULER = {"best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr"}
LEARNING_RATES = {"lr", "base_lr"}
NON_NEGATIVE = {"exp_avg_sq", "max_exp_avg_sq", "step"}  # of the state of an optimizer


class Mismatch(Exception):
    """A value that has not its form: where, what was expected, what was found."""


@dataclass(frozen=True)
class Check:
    """A form that a function decides on; it raises `Mismatch`."""

    function: Callable[[Any, str], None]


ANYTHING = Check(lambda value, place: None)


def expect(path: str | os.PathLike, value: Any, form: Form, place: str = "") -> None:
    """Refuse what has not the form.

    Args:
        path: of the file, for the message.
        value: what was read from it.
        form: what it should be.
        place: of the value within the file.

    Raises:
        CheckpointError: the first difference found.
    """
    try:
        check(value, form, place)
    except Mismatch as difference:
        raise CheckpointError(f"{path}: {difference}; {REMEDY}") from difference


@contextmanager
def restoring(path: str | os.PathLike, fault: str = "does not fit this run") -> Iterator[None]:
    """What fails while a state is put back in place is a fault of its file.

    Args:
        path: of the file.
        fault: what is wrong then.

    Raises:
        CheckpointError: in place of the error.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {fault} ({one_line(error, 200)}); {REMEDY}") from error


def check(value: Any, form: Form, place: str) -> None:
    """Raise `Mismatch` unless the value has the form."""
    if isinstance(form, Check):
        form.function(value, place)
    elif isinstance(form, torch.Tensor):
        _check_tensor(value, tuple(form.shape), form.dtype, True, place)
    elif isinstance(form, dict):
        _check_keys(value, form, place)
        for key, inner in form.items():
            check(value[key], inner, f"{place}.{key}".lstrip("."))
    elif isinstance(form, list | tuple):
        _require(isinstance(value, list | tuple) and len(value) == len(form), f"{len(form)} values", value, place)
        for position, (item, inner) in enumerate(zip(value, form, strict=True)):
            check(item, inner, f"{place}.{position}")
    elif form is None:
        _require(value is None, "nothing", value, place)
    elif form is float:
        number().function(value, place)
    else:
        _require(type(value) is form, f"a value of type {form.__name__}", value, place)


# ------------------------------------------------------------------------------------------------------------- forms


def tensor(*shape: int | None, dtype: torch.dtype | None = None, finite: bool = True) -> Check:
    """A tensor; None in the shape stands for any length, and without a type any floating-point type will do."""
    return Check(lambda value, place: _check_tensor(value, shape, dtype, finite, place))


def like(template: Any, finite: bool = True) -> Form:
    """The form of a value with the same keys, shapes and types; numbers and text may differ."""
    if isinstance(template, torch.Tensor):
        return tensor(*template.shape, dtype=template.dtype, finite=finite)
    if isinstance(template, dict):
        return {key: like(value, finite) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [like(value, finite) for value in template]
    return None if template is None else type(template)


def list_of(form: Form) -> Check:
    """A list of any length."""

    def function(value: Any, place: str) -> None:
        _require(isinstance(value, list | tuple), "a list", value, place)
        for position, item in enumerate(value):
            check(item, form, f"{place}.{position}")

    return Check(function)


def mapping_of(form: Form, *needed: str) -> Check:
    """A dictionary with any text as keys, among them those that are needed."""

    def function(value: Any, place: str) -> None:
        _require(isinstance(value, dict) and all(isinstance(key, str) for key in value), "names", value, place)
        _require(value.keys() >= set(needed), f"the keys {', '.join(needed)}", value, place)
        for key, item in value.items():
            check(item, form, f"{place}.{key}")

    return Check(function)


def optional(form: Form) -> Check:
    """None, or a value of the form."""
    return Check(lambda value, place: None if value is None else check(value, form, place))


def number(low: int | float = -math.inf, high: int | float = math.inf, whole: bool = False, nan: bool = False) -> Check:
    """A number within bounds, which count themselves."""

    def function(value: Any, place: str) -> None:
        known = type(value) is int or (type(value) is float and not whole)
        inside = known and (low <= value <= high or (nan and math.isnan(value)))
        kind = "a whole number" if whole else "a number"
        bounds = "" if (low, high) == (-math.inf, math.inf) else f" from {low:g} to {high:g}"
        _require(inside, kind + bounds, value, place)

    return Check(function)


def same(wanted: Any) -> Check:
    """This very value."""

    def function(value: Any, place: str) -> None:
        equal = not isinstance(value, torch.Tensor) and (value == wanted or _plain(value) == _plain(wanted))
        _require(equal, repr(wanted), value, place)

    return Check(function)


def module_state(module: torch.nn.Module) -> Form:
    """The weights of a module."""
    return like(module.state_dict())


def optimizer_state(optimizer: torch.optim.Optimizer) -> Form:
    """The state of an optimizer with these parameters and settings, before its first step or after it."""
    groups = [
        {key: float if key in LEARNING_RATES else same(value) for key, value in group.items()}
        for group in optimizer.state_dict()["param_groups"]
    ]
    known = {index: like(entry) for index, entry in _stepped(optimizer).state_dict()["state"].items()}

    def function(value: Any, place: str) -> None:
        _require(isinstance(value, dict), "statistics of parameters", value, place)
        for index, entry in value.items():
            _require(type(index) is int and index in known, f"one of {len(known)} parameters", index, place)
            check(entry, known[index], f"{place}.{index}")
            for name in NON_NEGATIVE & entry.keys():
                if isinstance(entry[name], torch.Tensor):
                    _require(
                        bool((entry[name] >= 0).all()), "no negative numbers", entry[name], f"{place}.{index}.{name}"
                    )

    return {"state": Check(function), "param_groups": groups}


def _stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A copy, with copies of the parameters, that has made one step: it knows which statistics there are."""
    twin = copy.deepcopy(optimizer)
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return twin


def scheduler_state(scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau) -> Form:
    """The state of a plateau schedule with these settings."""
    return {
        key: like(value) if key in PROGRESS_OF_A_SCHEDULER else same(value)
        for key, value in scheduler.state_dict().items()
    }


def digest(value: Any) -> str:
    """A sha256 of nested dictionaries, lists, tensors and plain data: of what they say, not of how a file stores it.

    Raises:
        Mismatch: a tensor is sparse, quantized or has no content; this package writes none of these.
    """
    seen = hashlib.sha256()
    _add(seen, value)
    return seen.hexdigest()


def _add(seen: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise Mismatch("expected plain tensors, found a sparse, quantized or meta tensor")
        plain = value.detach().cpu().contiguous().reshape(-1)
        seen.update(f"{value.dtype}{tuple(value.shape)}".encode())
        seen.update(plain.view(torch.uint8).numpy())
    elif isinstance(value, dict | list | tuple):
        seen.update(f"{'dict' if isinstance(value, dict) else 'list'}{len(value)}".encode())
        for item in value.items() if isinstance(value, dict) else value:
            _add(seen, item)
    else:
        text = f"{type(value).__name__}{value!r}".encode("utf-8", "surrogatepass")
        seen.update(f"{len(text)}:".encode() + text)


# ------------------------------------------------------------------------------------------------------------ pieces


def _check_tensor(
    value: Any, shape: tuple[int | None, ...], dtype: torch.dtype | None, finite: bool, place: str
) -> None:
    kind = "floating-point numbers" if dtype is None else str(dtype).removeprefix("torch.")
    wanted = f"{kind} of shape ({', '.join('any' if length is None else str(length) for length in shape)})"
    _require(isinstance(value, torch.Tensor), wanted, value, place)
    right_type = value.is_floating_point() if dtype is None else value.dtype == dtype
    fits = len(value.shape) == len(shape) and all(
        length is None or length == found for length, found in zip(shape, value.shape, strict=True)
    )
    _require(right_type and fits and value.layout == torch.strided, wanted, value, place)
    if finite and value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise Mismatch(f"{place}: expected finite numbers, found NaN or infinity")


def _check_keys(value: Any, form: dict[Any, Form], place: str) -> None:
    _require(isinstance(value, dict), f"the keys {', '.join(map(str, form))}", value, place)
    missing = [key for key in form if key not in value]
    unknown = [key for key in value if key not in form]
    if missing or unknown:
        named = one_line(", ".join(map(str, missing or unknown)), 120)
        raise Mismatch(f"{place or 'the file'} {'misses' if missing else 'has the unknown keys'} {named}")


def _require(true: bool, wanted: str, value: Any, place: str) -> None:
    if not true:
        raise Mismatch(f"{place}: expected {wanted}, found {_described(value)}".removeprefix(": "))


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return one_line(repr(value), 60)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
