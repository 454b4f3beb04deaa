"""The safe pickle reader: arrays are read, and nothing is executed."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from mdsim.datasets.sources.plain_pickle import read_pickled_arrays
from mdsim.errors import DatasetError

ARRAYS = {
    "positions": np.random.default_rng(0).random((3, 4, 3)),
    "columns": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">f4"),
    "flags": np.array([True, False]),
    "number": np.float64(2.5),
    "count": 3,
    "empty": np.zeros((0, 3)),
}
HEADER = b"\x93NUMPY\x01\x00"


def npy(payload: bytes) -> bytes:
    """An npy file of one Python object, as `numpy.save` writes it, around any pickle."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    return HEADER + struct.pack("<H", len(header)) + header + payload


def write(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "arrays.npy"
    path.write_bytes(npy(pickle.dumps(content, protocol=protocol)))
    return path


def test_what_numpy_saved_is_read(tmp_path):
    np.save(tmp_path / "arrays.npy", ARRAYS)  # type: ignore[arg-type]
    read = read_pickled_arrays(tmp_path / "arrays.npy")
    assert list(read) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        assert read[name].dtype == np.asarray(expected).dtype
        np.testing.assert_array_equal(read[name], expected)
    assert not read["positions"].flags.owndata  # a view of the bytes that were read, no second copy


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_all_protocols_that_numpy_has_used(tmp_path, protocol):
    wrapped = np.array(ARRAYS, dtype=object)
    read = read_pickled_arrays(write(tmp_path, wrapped, protocol))
    np.testing.assert_array_equal(read["columns"], ARRAYS["columns"])
    np.testing.assert_array_equal(read["positions"], ARRAYS["positions"])


def test_names_of_older_numpy(tmp_path):
    old = pickle.dumps({"a": np.arange(3)}, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.npy").write_bytes(npy(old))
    assert read_pickled_arrays(tmp_path / "old.npy")["a"].tolist() == [0, 1, 2]


class Calls:
    """Unpickles as the call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("depth", ["top", "value", "array"])
def test_a_malicious_pickle_does_nothing(tmp_path, protocol, depth):
    witness = tmp_path / "was here"
    command = Calls(os.mkdir, str(witness))
    content = {"top": command, "value": {"a": command}, "array": {"a": np.array([command, 1], dtype=object)}}[depth]
    path = write(tmp_path, content, protocol)
    with pytest.raises(DatasetError, match=r"names posix.mkdir.*refused, as loading it could run code"):
        read_pickled_arrays(path)
    assert not witness.exists()
    pickle.loads(path.read_bytes()[128:])  # the test is one: an ordinary unpickler obeys
    assert witness.exists()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("1",)),
        (getattr, (int, "__subclasses__")),
        (np.load, ("x.npy",)),
        (np.fromfile, ("/etc/hostname",)),
        (np.memmap, ("/etc/hostname",)),
    ],
)
def test_names_beyond_those_of_arrays_are_refused(tmp_path, function, arguments):
    with pytest.raises(DatasetError, match=r"names .*refused"):
        read_pickled_arrays(write(tmp_path, {"a": Calls(function, *arguments)}))


def forged(dtype_state: tuple, shape: tuple, data: object) -> dict:
    """An array whose description does not fit its bytes."""

    class Forged:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, FakeType(), False, data)

    class FakeType:
        def __reduce__(self):
            return np.dtype, (dtype_state[0], False, True), dtype_state[1]

    return {"a": Forged()}


@pytest.mark.parametrize(
    "content",
    [
        forged(("f8", (3, "<", None, None, None, -1, -1, 0)), (1000,), b"12345678"),
        forged(("f8", (3, "<", None, None, None, -1, -1, 0)), (-1,), b"12345678"),
        forged(("O", (3, "|", None, None, None, -1, -1, 0)), (1,), b"12345678"),  # bytes as a pointer
        forged(("V8", (3, "|", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, 0)), (1,), b"12345678"),
        forged(("f8", (3, "<", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, 63)), (1,), b"12345678"),
    ],
    ids=["too few bytes", "negative", "pointer", "structure", "structure in disguise"],
)
def test_forged_arrays_are_refused(tmp_path, content):
    with pytest.raises(DatasetError, match="not a dictionary of plain arrays"):
        read_pickled_arrays(write(tmp_path, content))


@pytest.mark.parametrize(
    "content", [[np.arange(3)], "text", {"a": "text"}, {"a": np.array(["x"])}, {"a": np.array([{}], dtype=object)}]
)
def test_anything_but_a_dictionary_of_numbers_is_refused(tmp_path, content):
    with pytest.raises(DatasetError, match="not a dictionary of plain arrays"):
        read_pickled_arrays(write(tmp_path, content))


def test_truncated_and_foreign_files(tmp_path):
    whole = write(tmp_path, ARRAYS).read_bytes()
    path = tmp_path / "part.npy"
    for content in (whole[: len(whole) // 2], b"", b"PK\x03\x04", HEADER):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="or truncated"):
            read_pickled_arrays(path)
    np.save(path, np.arange(3))
    with pytest.raises(DatasetError, match="is an array of int64, not a pickled dictionary"):
        read_pickled_arrays(path)
