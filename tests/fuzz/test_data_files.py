"""Damaged and malformed data files: each is read as what it is, or refused with one line, and never a traceback."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write
from ase_ethanols import images
from toy_frames import liquid, molecule

from mdsim.datasets.folder import Dataset, Metadata, read_metadata, sha256_of, write_dataset
from mdsim.datasets.inspection.check import open_checked
from mdsim.datasets.mixed import MixedFrames, read_mixed_frames
from mdsim.datasets.npz import UNITS, read_frames, write_frames
from mdsim.datasets.sources.ase_files import Reading, read_ase
from mdsim.datasets.sources.sgdml import read_sgdml
from mdsim.errors import DatasetError

VALUES: list[Any] = [
    *(None, True, 0, -1, 1, 2**63, 10**400, 1e308, float("inf"), float("nan"), 1e-320, 0.5, "", "x", "é漢", "\0"),
    *("../../etc", "nan", "-1", [], [[]], [1], {}, {"a": 1}, "a" * 5000, [None] * 3, ["x"], "0-3,7", "5-999999999999"),
]


def refused_in_one_line(action, *arguments) -> bool:
    """Whether it was refused; anything but one line of a `DatasetError` fails."""
    try:
        action(*arguments)
    except DatasetError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, str(error)[:500]
        return True
    return False


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def header(text: str, data: bytes = b"\0" * 64) -> bytes:
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 10000000, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 3, }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': '<f4', 'fortran_order': 7, 'shape': (3,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f999', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': 5, 'fortran_order': False, 'shape': (3,), }",
    "{'shape': (3,)}",
    "[1, 2",
    "(" * 300,
    "{[]: 1}",
    "\0",
    "",
]


def write_members(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def frames_file(tmp_path) -> Path:
    write_frames(tmp_path / "train.npz", molecule(20, 0))
    return tmp_path / "train.npz"


@pytest.mark.parametrize("reader", [read_frames, read_sgdml])
@pytest.mark.parametrize("text", HEADERS)
def test_headers_of_arrays(frames_file, reader, text):
    for name in ("R", "E", "z"):
        write_members(frames_file, members_of(frames_file) | {f"{name}.npy": header(text)})
        assert refused_in_one_line(reader, frames_file)


@pytest.mark.parametrize("text", HEADERS)
def test_headers_of_flat_arrays(tmp_path, text):
    path = tmp_path / "train.npz"
    write_frames(path, MixedFrames.cat([MixedFrames.of(molecule(3, 0)), MixedFrames.of(liquid(2, 1))]))
    for name in ("n_atoms", "z", "R", "cell"):
        write_members(path, members_of(path) | {f"{name}.npy": header(text)})
        assert refused_in_one_line(read_mixed_frames, path)


@pytest.mark.parametrize("reader", [read_frames, read_sgdml])
def test_foreign_members(frames_file, reader):
    good = members_of(frames_file)
    for name, content in {
        "../x.npy": b"",
        "R": b"x",
        "note.txt": b"hello",
        "R.npy": b"",
        "F.npy": b"\x93NUMPY\x09\x09",
    }.items():
        write_members(frames_file, good | {name: content})
        refused = refused_in_one_line(reader, frames_file)
        assert refused or reader is read_sgdml  # which passes over what it does not need


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_read(frames_file, compression):
    expected = read_frames(frames_file)
    write_members(frames_file, members_of(frames_file), compression)
    assert np.array_equal(read_frames(frames_file).positions, expected.positions)


def test_unknown_compressions_and_encryption_are_refused(frames_file):
    raw = frames_file.read_bytes()
    for local, central, value in ((8, 10, 99), (8, 10, 9), (6, 8, 1)):
        content = bytearray(raw)
        for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
            at = content.find(signature)
            while at >= 0:
                struct.pack_into("<H", content, at + offset, value)
                at = content.find(signature, at + 4)
        frames_file.write_bytes(bytes(content))
        assert refused_in_one_line(read_frames, frames_file)


def test_big_endian_arrays_are_read(frames_file):
    expected = read_frames(frames_file)
    with np.load(frames_file) as arrays:
        swapped = {name: arrays[name].astype(arrays[name].dtype.newbyteorder(">")) for name in arrays.files}
    np.savez(frames_file, **swapped)
    found = read_frames(frames_file)
    assert np.array_equal(found.positions, expected.positions) and np.array_equal(found.energy, expected.energy)


@pytest.mark.parametrize(
    "change",
    [
        {"z": np.array([0, 1, 1])},
        {"z": np.array([8, 1, 119])},
        {"cell": 1e-3 * np.eye(3)},
        {"cell": np.zeros((3, 3))},
        {"masses": np.array([16.0, -1.0, 1.0])},
        {"masses": np.ones(2)},
        {"E": np.zeros((20, 1))},
    ],
)
def test_values_that_make_no_system(frames_file, change):
    with np.load(frames_file) as arrays:
        np.savez(frames_file, **{name: arrays[name] for name in arrays.files} | change)
    assert refused_in_one_line(read_frames, frames_file)


def test_flipped_bits_and_cut_archives(frames_file):
    chance, raw = random.Random(0), frames_file.read_bytes()
    refused = 0
    for trial in range(150):
        content = bytearray(raw)
        if trial % 3:
            bit = chance.randrange(8 * len(content))
            content[bit // 8] ^= 1 << (bit % 8)
        else:
            content = content[: chance.randrange(len(content))]
        frames_file.write_bytes(bytes(content))
        refused += refused_in_one_line(read_frames, frames_file)
    assert refused > 100


@pytest.fixture
def data_set(tmp_path) -> Path:
    frames = molecule(20, 0)
    folder = tmp_path / "data" / "toy" / "water" / "20"
    metadata = Metadata(
        *("springs", "none", "MIT", frames.atomic_numbers.tolist(), 300.0, 0.5, None, None),
        split={"method": "random", "seed": 0, "indices": {"train": "0-11", "val": "12-15", "test": "16-19"}},
        program_versions={"mdsim": "0"},
        command="pytest",
        settings={"seed": 0},
        units=UNITS,
        n_frames={},
        sha256={},
    )
    write_dataset(folder, {"train": frames[:12], "val": frames[12:16]}, {"test": frames[16:]}, metadata)
    return folder


def use(folder: Path) -> None:
    """All that reading a data set and looking at it does with the metadata."""
    dataset = Dataset(folder, read_metadata(folder / "metadata.json"))
    _ = dataset.train, dataset.val, dataset.test, dataset.system()
    for checked in open_checked(folder):
        _ = checked.place("train", 3), checked.temperature_K, checked.interval_fs


def test_every_key_with_every_value(data_set):
    good = json.loads((data_set / "metadata.json").read_text())
    places = [(key,) for key in good] + [
        (key, inner) for key in good if isinstance(good[key], dict) for inner in good[key]
    ]
    refused = 0
    for place in places:
        for value in VALUES:
            content = json.loads(json.dumps(good))
            holder = content
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = value
            (data_set / "metadata.json").write_text(json.dumps(content))
            refused += refused_in_one_line(use, data_set)
    assert refused > 0.5 * len(places) * len(VALUES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"1",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"source": ' + b"9" * 10_000 + b"}",
        b"NaN",
    ],
)
def test_metadata_that_are_none(data_set, content):
    (data_set / "metadata.json").write_bytes(content)
    assert refused_in_one_line(use, data_set)


def test_the_unchanged_set_is_read(data_set):
    use(data_set)
    assert sha256_of(data_set / "train.npz")


INSERTED = [b"nan", b"1e999", b"\n", b" ", b"-", b"9" * 30, b'"', b"=", b"\0", b"\xc3\xa9", b'pbc="T T T"', b"Lattice="]


def test_extended_xyz_of_random_damage(tmp_path):
    write(tmp_path / "good.xyz", images(4), format="extxyz")
    chance, raw = random.Random(0), (tmp_path / "good.xyz").read_bytes()
    refused = 0
    for trial in range(200):
        content = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            at, kind = chance.randrange(len(content)), chance.randrange(5)
            if kind == 0:
                content[at] = chance.randrange(256)
            elif kind == 1:
                del content[at : at + chance.randint(1, 60)]
            elif kind == 2:
                content[at:at] = chance.choice(INSERTED)
            elif kind == 3:
                content = content[: max(1, at)]
            else:
                content[at] ^= 1 << chance.randrange(8)
        path = tmp_path / f"bad{trial}.xyz"
        path.write_bytes(bytes(content))
        refused += refused_in_one_line(read_ase, path, Reading())
        path.unlink()
    assert refused > 100


COMMENT = b'Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc="F F F"'


@pytest.mark.parametrize(
    "comment",
    [
        COMMENT.replace(b'"F F F"', b'"T T T"'),
        COMMENT.replace(b'"F F F"', b'"T T T" Lattice="8 0 0 0 8 0 0 0 0"'),
        COMMENT.replace(b'"F F F"', b'"T T T" Lattice="8 0 0"'),
        COMMENT.replace(b'"F F F"', b'"T T T" Lattice="nan 0 0 0 8 0 0 0 8"'),
        COMMENT.replace(b"-1.0", b"abc"),
        COMMENT.replace(b"-1.0", b"[1, 2]"),
        COMMENT.replace(b"-1.0", b"T"),
        COMMENT.replace(b"forces:R:3", b"forces:R:99999999"),
        COMMENT.replace(b"pos:R:3", b"pos:R:2"),
        COMMENT.replace(b"pos:R:3", b"pos"),
        b"",
        b'energy="',
    ],
)
def test_comment_lines(tmp_path, comment):
    frame = b"2\n" + comment + b"\nCl 0 0 0 0 0 -1.5\nH 0 0 1.3 0 0 1.5\n"
    (tmp_path / "a.xyz").write_bytes(frame * 3)
    assert refused_in_one_line(read_ase, tmp_path / "a.xyz", Reading())
