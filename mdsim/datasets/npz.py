"""Labeled frames in npz files: validated reading and atomic writing.

Arrays have names that are common in the field, always in these units:

    z     (atom)            atomic numbers
    R     (frame, atom, 3)  positions, Å
    E     (frame)           energy, eV, always in double precision
    F     (frame, atom, 3)  forces, eV/Å
    V     (frame, atom, 3)  velocities, Å/fs (converted to ASE units when read)
    cell  (3, 3)            lattice vectors as rows, Å; absent with open boundaries
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
from typing import BinaryIO

import numpy as np
import torch

from mdsim.errors import DatasetError
from mdsim.state import Trajectory
from mdsim.typing import Bool, Float, Int, Tensor
from mdsim.units import FS

UNITS = {"R": "angstrom", "E": "eV", "F": "eV/angstrom", "V": "angstrom/fs", "cell": "angstrom"}
SHAPES: dict[str, tuple[str | int, ...]] = {
    "z": ("atom",),
    "R": ("frame", "atom", 3),
    "E": ("frame",),
    "F": ("frame", "atom", 3),
    "V": ("frame", "atom", 3),
    "cell": (3, 3),
    "masses": ("atom",),
}
# Thermal forces are near 2 eV/Å even for the stiffest bonds; in kcal/mol/Å they are around 30 for an organic molecule.
PLAUSIBLE_FORCE_RMS_EV_PER_A = (0.01, 10.0)
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
HEAVIEST = 118  # atomic number
SMALLEST_VOLUME_A3 = 0.5  # cell volume per atom
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


def write_frames(path: Path, frames: Frames) -> None:
    """Write frames as npz: energies in double, all else in single precision; velocities as Å/fs."""
    write_npz(path, _as_arrays(frames))


def holds(path: Path, frames: Frames) -> bool:
    """Whether a file exists and contains exactly these frames, for any compression."""
    if not zipfile.is_zipfile(path):
        return False
    arrays = _as_arrays(frames)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files) == set(arrays) and all(
                np.array_equal(archive[name], arrays[name]) for name in arrays
            )
    except DAMAGED:
        return False


def _as_arrays(frames: Frames) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {
        "z": frames.atomic_numbers.numpy().astype(np.int64),
        "R": frames.positions.numpy().astype(np.float32),
        "E": frames.energy.numpy().astype(np.float64),
    }
    if frames.forces is not None:
        arrays["F"] = frames.forces.numpy().astype(np.float32)
    if frames.velocities is not None:
        arrays["V"] = (frames.velocities.numpy() * FS).astype(np.float32)
    if frames.cell is not None:
        arrays["cell"] = frames.cell.numpy().astype(np.float64)
    if frames.masses is not None:
        arrays["masses"] = frames.masses.numpy().astype(np.float64)
    return arrays


def read_frames(path: Path, require_forces: bool = False) -> Frames:
    """Read and check the frames of one npz file.

    Raises:
        DatasetError: the file is damaged, or an array is missing, unknown, misshapen, not finite or in other units.
    """
    arrays = read_arrays(path)
    _check_names(path, arrays, required={"z", "R", "E", "F"} if require_forces else {"z", "R", "E"})
    _check_shapes(path, arrays)
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
    )


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


def _check_names(path: Path, arrays: Mapping[str, np.ndarray], required: set[str]) -> None:
    if missing := sorted(required - set(arrays)):
        raise DatasetError(f"{path}: misses {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}")
    if unknown := sorted(set(arrays) - set(SHAPES)):
        raise DatasetError(f"{path}: does not know the arrays {', '.join(unknown)}; the format has {', '.join(SHAPES)}")


def _check_shapes(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {"atom": arrays["z"].size, "frame": len(arrays["R"]) if arrays["R"].ndim else 0}
    for name, array in arrays.items():
        expected = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in SHAPES[name])
        if array.shape != expected:
            axes = ", ".join(map(str, SHAPES[name]))
            raise DatasetError(f"{path}: {name} has shape {array.shape}, expected ({axes}) = {expected}")
    if 0 in lengths.values():
        raise DatasetError(f"{path}: holds {lengths['frame']} frames of {lengths['atom']} atoms")


def _check_values(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in ("iu" if name == "z" else "f") or (name == "E" and array.dtype != np.float64):
            wanted = {"z": "integers", "E": "float64, which total energies need"}.get(name, "floating-point numbers")
            raise DatasetError(f"{path}: {name} is {array.dtype}, expected {wanted}")
        if bad := int(np.count_nonzero(~np.isfinite(array))):
            raise DatasetError(f"{path}: {name} holds {bad} values that are not finite; remove those frames")
    numbers = arrays["z"]
    if len(bad_atoms := np.flatnonzero((numbers < 1) | (numbers > HEAVIEST))):
        raise DatasetError(f"{path}: z of atom {bad_atoms[0]} is {numbers[bad_atoms[0]]}, which is not an element")
    if "masses" in arrays and not (arrays["masses"] > 0).all():
        raise DatasetError(f"{path}: masses must be positive, found {arrays['masses'].min():g}")
    if "cell" in arrays:
        volume = abs(float(np.linalg.det(arrays["cell"].astype(np.float64))))
        if not SMALLEST_VOLUME_A3 * len(numbers) < volume:
            raise DatasetError(
                f"{path}: a cell of {volume:.3g} Å³ cannot hold {len(numbers)} atoms: is it in Å, and complete?"
            )
    if "F" in arrays:
        rms = float(np.sqrt(np.mean(np.square(arrays["F"], dtype=np.float64))))
        low, high = PLAUSIBLE_FORCE_RMS_EV_PER_A
        if not low < rms < high:
            raise DatasetError(
                f"{path}: the forces have a root mean square of {rms:.3g}, which cannot be eV/Å ({low} to {high}):"
                " were they in kcal/mol/Å (then multiply forces and energies by 0.0433641) or in atomic units?"
            )


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
