"""Labeled frames in npz files: validated reading and atomic writing.

Arrays have names that are common in the field, always in these units:

    z     (atom)            atomic numbers
    R     (frame, atom, 3)  positions, Å
    E     (frame)           energy, eV, always in double precision
    F     (frame, atom, 3)  forces, eV/Å
    V     (frame, atom, 3)  velocities, Å/fs (converted to ASE units when read)
    cell  (3, 3)            lattice vectors as rows, Å; absent with open boundaries
    stress (frame, 3, 3)    eV/Å³, negative under compression; NaN where a frame has none; absent if no frame has one
    masses (atom)           amu; absent if all atoms have their natural isotope mixture

Positions of periodic systems are unwrapped: molecules are whole, and atoms leave the cell as they move. Wrapped
positions can be computed from them and the cell (`mdsim.geometry.wrap`), but not vice versa, and are not stored.
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import numpy as np
import torch

from mdsim.datasets.array_checks import check_cell, check_forces, check_names, check_numbers, check_shapes, check_stress
from mdsim.errors import DatasetError
from mdsim.state import Trajectory
from mdsim.typing import Bool, Float, Int, Tensor
from mdsim.units import FS

UNITS = {"R": "angstrom", "E": "eV", "F": "eV/angstrom", "V": "angstrom/fs", "cell": "angstrom"}
UNITS_WITH_STRESS = UNITS | {"stress": "eV/angstrom^3"}
SHAPES: dict[str, tuple[str | int, ...]] = {
    "z": ("atom",),
    "R": ("frame", "atom", 3),
    "E": ("frame",),
    "F": ("frame", "atom", 3),
    "V": ("frame", "atom", 3),
    "cell": (3, 3),
    "stress": ("frame", 3, 3),
    "masses": ("atom",),
}
#: Exceptions from reading a damaged npz file: headers are Python literals, members may be encrypted or compressed.
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    RecursionError,
    AttributeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
MAXIMUM_RATIO = 2000  # size of an array over its compressed size: deflate reaches at most 1032


@dataclass(frozen=True)
class Frames:
    """Structures of one system with their labels. Å, eV, eV/Å, amu and ASE velocity units."""

    atomic_numbers: Int[Tensor, "atom"]
    positions: Float[Tensor, "frame atom 3"]
    energy: Float[Tensor, "frame"]
    forces: Float[Tensor, "frame atom 3"] | None = None
    velocities: Float[Tensor, "frame atom 3"] | None = None
    cell: Float[Tensor, "3 3"] | None = None
    masses: Float[Tensor, "atom"] | None = None  # amu; None for natural isotope mixtures
    stress: Float[Tensor, "frame 3 3"] | None = None  # eV/Å³; NaN where a frame has none

    @property
    def labels(self) -> Float[Tensor, "frame atom 3"]:
        """The forces. Their absence is an error.

        Raises:
            DatasetError: the frames have none.
        """
        if self.forces is None:
            raise DatasetError("the frames have no forces, which are required here")
        return self.forces

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: slice | Int[Tensor, "chosen"] | Bool[Tensor, "frame"]) -> Frames:
        """The chosen frames."""
        return replace(
            self,
            positions=self.positions[index],
            energy=self.energy[index],
            forces=None if self.forces is None else self.forces[index],
            velocities=None if self.velocities is None else self.velocities[index],
            stress=None if self.stress is None else self.stress[index],
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Frames:
        """The same frames on another device, or with floating-point fields of another type."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        floating = {name: value for name, value in named.items() if name != "atomic_numbers" and value is not None}
        moved = {name: value.to(device, dtype) for name, value in floating.items()}
        return replace(self, atomic_numbers=self.atomic_numbers.to(device), **moved)

    def as_trajectory(self, frame_interval_fs: float) -> Trajectory:
        """The frames as the trajectory of one replica, for observables."""
        return Trajectory(
            self.positions[:, None],
            None if self.velocities is None else self.velocities[:, None],
            self.energy[:, None],
            frame_interval_fs,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of an npz file: energies, cells and masses in double, all else in single precision."""
        arrays: dict[str, np.ndarray] = {
            "z": self.atomic_numbers.numpy().astype(np.int64),
            "R": self.positions.numpy().astype(np.float32),
            "E": self.energy.numpy().astype(np.float64),
        }
        if self.forces is not None:
            arrays["F"] = self.forces.numpy().astype(np.float32)
        if self.velocities is not None:
            arrays["V"] = (self.velocities.numpy() * FS).astype(np.float32)
        if self.cell is not None:
            arrays["cell"] = self.cell.numpy().astype(np.float64)
        if self.stress is not None:
            arrays["stress"] = self.stress.numpy().astype(np.float32)
        if self.masses is not None:
            arrays["masses"] = self.masses.numpy().astype(np.float64)
        return arrays


@runtime_checkable
class Storable(Protocol):
    """Frames that a file can hold."""

    def __len__(self) -> int: ...

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the file, by name."""


def write_frames(path: Path, frames: Storable) -> None:
    """Write frames as npz."""
    write_npz(path, frames.arrays())


def holds(path: Path, frames: Storable) -> bool:
    """Whether a file exists and contains exactly these frames, for any compression."""
    if not zipfile.is_zipfile(path):
        return False
    arrays = frames.arrays()
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files) == set(arrays) and all(
                np.array_equal(archive[name], arrays[name], equal_nan=True) for name in arrays
            )
    except DAMAGED:
        return False


def read_frames(path: Path, require_forces: bool = False) -> Frames:
    """Read and check the frames of one npz file.

    Raises:
        DatasetError: the file is damaged, or an array is missing, unknown, misshapen, not finite or in other units.
    """
    arrays = read_arrays(path)
    if "n_atoms" in arrays:
        raise DatasetError(f"{path}: holds frames of several compositions or cells, and one of both is needed here")
    check_names(path, arrays, {"z", "R", "E", "F"} if require_forces else {"z", "R", "E"}, SHAPES)
    lengths = {"atom": arrays["z"].size, "frame": len(arrays["R"]) if arrays["R"].ndim else 0}
    check_shapes(path, arrays, SHAPES, lengths)
    if 0 in lengths.values():
        raise DatasetError(f"{path}: holds {lengths['frame']} frames of {lengths['atom']} atoms")
    _check_values(path, arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    velocities = tensors.get("V")
    return Frames(
        tensors["z"].long(),
        tensors["R"],
        tensors["E"],
        tensors.get("F"),
        None if velocities is None else velocities / FS,
        tensors.get("cell"),
        tensors.get("masses"),
        tensors.get("stress"),
    )


def _check_values(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    check_numbers(path, arrays)
    if "masses" in arrays and not (arrays["masses"] > 0).all():
        raise DatasetError(f"{path}: masses must be positive, found {arrays['masses'].min():g}")
    if "cell" in arrays:
        check_cell(str(path), arrays["cell"], len(arrays["z"]))
    if "stress" in arrays:
        check_stress(path, arrays["stress"], np.full(len(arrays["R"]), "cell" in arrays))
    if "F" in arrays:
        check_forces(path, arrays["F"])


def read_arrays(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, in the byte order of the machine.

    Args:
        path: path of the file.
        wanted: names of the arrays to read. None: all.

    Raises:
        DatasetError: the file is missing, damaged or of another format, or contains something other than plain arrays.
    """
    if not zipfile.is_zipfile(path):  # np.load would also read a bare array or a pickle
        raise DatasetError(f"{path}: not a readable npz file (it is missing, truncated or of another format)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in archive.files if wanted is None or name in wanted]
            arrays = {name: _member(archive, name) for name in names}
    except DAMAGED as error:
        what = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise DatasetError(f"{path}: not a readable npz file of plain arrays ({what})") from error
    return {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}


def _member(archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """One array. A header that promises more than the file can hold is an error before memory is allocated."""
    packed = archive.zip
    assert packed is not None
    file = f"{name}.npy" if f"{name}.npy" in packed.namelist() else name
    with packed.open(file) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    size = math.prod(map(int, shape)) * dtype.itemsize
    if min(shape, default=0) < 0 or size > MAXIMUM_RATIO * max(64, packed.getinfo(file).compress_size):
        raise ValueError(f"{name} says it has the shape {str(shape)[:80]}, more than the file can hold")
    array = archive[name]
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is not an array")
    return array


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed npz under a temporary name, then rename; equal arrays give equal bytes."""
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` with a file under a temporary name, then rename the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
