"""Safe reader of arrays in pickle files. It never executes code from the file.

A pickle is a program that can call any function it names. This reader replaces the few names that a dictionary of
numerical arrays needs by stand-ins, which only record their arguments. Every other name is an error. Not even numpy's
constructors receive content of the file, because a forged state of an array or of a data type could make them read
foreign memory. At the end `np.frombuffer` creates the arrays from the checked records.
"""

from __future__ import annotations

import codecs
import re
import sys
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import Any

import numpy as np

from mdsim.errors import DatasetError

_SWAPPED = ">" if sys.byteorder == "little" else "<"
NUMERIC = re.compile(r"b1|[iu][1248]|f[248]")
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
#: Exceptions that the unpickler and the stand-ins may raise for damaged or forged input.
DAMAGED = (UnpicklingError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


class _DType:
    """Record of a data type: plain numbers, or Python objects."""

    def __init__(self, code: object, *flags: object) -> None:
        if not isinstance(code, str) or not (NUMERIC.fullmatch(code) or code in ("O", "O8")):
            raise UnpicklingError(f"holds values of the type {code!r}, which are not plain numbers")
        self.code, self.dtype = code, np.dtype(code) if code[0] != "O" else None

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise UnpicklingError("holds a structured data type")
        if self.dtype is not None:
            self.dtype = self.dtype.newbyteorder("S") if state[1] == _SWAPPED else self.dtype


class _Array:
    """Record of an array: its shape, type, order and bytes, or the list of its objects."""

    shape: tuple[int, ...] = ()
    values: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not all(type(n) is int and n >= 0 for n in shape):
            raise UnpicklingError("holds an array of no valid type or shape")
        self.shape, self.values = tuple(shape), data
        if dtype.dtype is not None:
            array = np.frombuffer(data, dtype.dtype)  # no copy, read-only
            self.values = array.reshape(self.shape, order="F" if fortran else "C")
        elif not isinstance(data, list):
            raise UnpicklingError("holds an array of objects without the objects")


def _reconstruct(kind: object, shape: tuple, code: bytes) -> _Array:
    if kind is not _Array:
        raise UnpicklingError("holds an array of no plain kind")
    return _Array()


def _scalar(dtype: _DType, data: bytes) -> object:
    if dtype.dtype is None:
        raise UnpicklingError("holds a single object that is not a number")
    return np.frombuffer(data, dtype.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # the encoding of bytes in protocol 2
        raise UnpicklingError(f"holds text encoded as {encoding!r}")
    return codecs.encode(text, "latin1")


def _empty() -> bytes:  # empty bytes in protocol 2
    return b""


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty,
    **{(module, "_reconstruct"): _reconstruct for module in MULTIARRAY},
    **{(module, "scalar"): _scalar for module in MULTIARRAY},
}


class _PlainUnpickler(Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise UnpicklingError(
                f"names {module}.{name}, which no dictionary of arrays needs: refused, as loading it could run code"
            ) from None


def read_pickled_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a dictionary that `numpy.save` stored as a pickle.

    Args:
        path: an npy file with one such dictionary.

    Returns:
        Read-only arrays by name; single numbers as arrays without axes.

    Raises:
        DatasetError: the file is truncated, of another format, or holds anything but numbers in arrays.
    """
    try:
        with path.open("rb") as file:
            _skip_header(file)
            content = _PlainUnpickler(file).load()
        while isinstance(content, _Array) and content.shape == () and isinstance(content.values, list):
            (content,) = content.values
        if not isinstance(content, dict):
            raise UnpicklingError("is not a dictionary")
        return {str(name): _plain(name, value) for name, value in content.items()}
    except DAMAGED as error:
        raise DatasetError(f"{path}: not a dictionary of plain arrays, or truncated ({error})") from error


def _skip_header(file: Any) -> None:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise UnpicklingError(f"is an npy file of version {version}")
    _, _, dtype = readers[version](file)
    if not dtype.hasobject:
        raise UnpicklingError(f"is an array of {dtype}, not a pickled dictionary")


def _plain(name: object, value: object) -> np.ndarray:
    if isinstance(value, _Array) and isinstance(value.values, np.ndarray):
        return value.values
    if isinstance(value, (int, float, np.number)):
        return np.asarray(value)
    raise UnpicklingError(f"{name!r} is not an array of numbers")
