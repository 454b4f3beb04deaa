"""Labeled frames of several compositions and cells, in npz files of flat arrays.

    z       (total_atom)     atomic numbers, frame after frame
    R       (total_atom, 3)  positions, Å
    n_atoms (frame)          atoms of each frame
    E       (frame)          energy, eV, always in double precision
    F       (total_atom, 3)  forces, eV/Å
    cell    (frame, 3, 3)    lattice vectors as rows, Å; zeros with open boundaries; absent if all frames have these
    stress  (frame, 3, 3)    eV/Å³, negative under compression; NaN where a frame has none; absent if no frame has one

`mdsim.datasets.npz` describes files of one composition and one cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ase.symbols import Symbols

from mdsim.datasets.array_checks import check_cell, check_forces, check_names, check_numbers, check_shapes, check_stress
from mdsim.datasets.npz import Frames, read_arrays
from mdsim.errors import DatasetError
from mdsim.typing import Bool, Float, Int, Tensor

SHAPES: dict[str, tuple[str | int, ...]] = {
    "z": ("total_atom",),
    "R": ("total_atom", 3),
    "n_atoms": ("frame",),
    "E": ("frame",),
    "F": ("total_atom", 3),
    "cell": ("frame", 3, 3),
    "stress": ("frame", 3, 3),
}


@dataclass(frozen=True)
class MixedFrames:
    """Frames of any sizes with their labels, atom after atom. Å, eV, eV/Å, eV/Å³."""

    atomic_numbers: Int[Tensor, "total_atom"]
    positions: Float[Tensor, "total_atom 3"]
    n_atoms: Int[Tensor, "frame"]
    energy: Float[Tensor, "frame"]
    forces: Float[Tensor, "total_atom 3"] | None = None
    cell: Float[Tensor, "frame 3 3"] | None = None  # zeros with open boundaries
    stress: Float[Tensor, "frame 3 3"] | None = None  # NaN where a frame has none

    @classmethod
    def of(cls, frames: Frames) -> MixedFrames:
        """The frames of one composition and one cell."""
        n_frames, n_atoms = frames.positions.shape[:2]
        return cls(
            frames.atomic_numbers.repeat(n_frames),
            frames.positions.reshape(-1, 3),
            torch.full((n_frames,), n_atoms),
            frames.energy,
            None if frames.forces is None else frames.forces.reshape(-1, 3),
            None if frames.cell is None else frames.cell.expand(n_frames, 3, 3),
            frames.stress,
        )

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def labels(self) -> Float[Tensor, "total_atom 3"]:
        """The forces. Their absence is an error.

        Raises:
            DatasetError: the frames have none.
        """
        if self.forces is None:
            raise DatasetError("the frames have no forces, which are required here")
        return self.forces

    def __getitem__(self, index: slice | Int[Tensor, "chosen"] | Bool[Tensor, "frame"]) -> MixedFrames:
        """The chosen frames."""
        chosen = torch.arange(len(self))[index]
        starts, sizes = self._starts[chosen], self.n_atoms[chosen]
        within = torch.arange(int(sizes.sum())) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
        atoms = torch.repeat_interleave(starts, sizes) + within
        return MixedFrames(
            self.atomic_numbers[atoms],
            self.positions[atoms],
            sizes,
            self.energy[chosen],
            None if self.forces is None else self.forces[atoms],
            None if self.cell is None else self.cell[chosen],
            None if self.stress is None else self.stress[chosen],
        )

    @cached_property
    def _starts(self) -> Int[Tensor, "frame"]:
        """First atom of each frame."""
        return self.n_atoms.cumsum(0) - self.n_atoms

    @cached_property
    def numbers_of_frames(self) -> tuple[Int[Tensor, "_"], ...]:
        """Atomic numbers of each frame."""
        return self.atomic_numbers.split(self.n_atoms.tolist())

    @cached_property
    def formulas(self) -> list[str]:
        """Composition of each frame in Hill's order: C2H6O."""
        known: dict[bytes, str] = {}
        return [_formula(numbers, known) for numbers in self.numbers_of_frames]

    @property
    def compositions(self) -> dict[str, int]:
        """Number of frames of each composition, most frequent first."""
        return dict(Counter(self.formulas).most_common())

    def members(self) -> dict[str, list[int]]:
        """Indices of the frames of each composition, most frequent first."""
        found: dict[str, list[int]] = {formula: [] for formula in self.compositions}
        for frame, formula in enumerate(self.formulas):
            found[formula].append(frame)
        return found

    @cached_property
    def is_periodic(self) -> Bool[Tensor, "frame"]:
        """Whether each frame has periodic boundaries."""
        return torch.zeros(len(self), dtype=torch.bool) if self.cell is None else (self.cell != 0).any(2).any(1)

    @cached_property
    def has_stress(self) -> Bool[Tensor, "frame"]:
        """Whether each frame has a stress label."""
        if self.stress is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.stress.isfinite().all(2).all(1)

    def cell_of(self, frame: int) -> Float[Tensor, "3 3"] | None:
        """Lattice vectors of one frame, Å; None with open boundaries."""
        return self.cell[frame] if self.cell is not None and self.is_periodic[frame] else None

    def kinds(self) -> list[Int[Tensor, "_"]]:
        """Indices of the frames that have the same atoms in the same order and the same cell, for each such kind."""
        found: dict[tuple[bytes, bytes], list[int]] = {}
        for frame in range(len(self)):
            found.setdefault(self.kind_of(frame), []).append(frame)
        return [torch.tensor(frames) for frames in found.values()]

    def kind_of(self, frame: int) -> tuple[bytes, bytes]:
        """Equal for frames of one kind."""
        cell = self.cell_of(frame)
        return self.numbers_of_frames[frame].numpy().tobytes(), b"" if cell is None else cell.double().numpy().tobytes()

    def alike(self, chosen: Int[Tensor, "chosen"]) -> Frames:
        """Frames of one kind (see `kinds`), which share their first cell."""
        some = self[chosen]
        shape = (len(some), int(some.n_atoms[0]), 3)
        return Frames(
            some.numbers_of_frames[0],
            some.positions.reshape(shape),
            some.energy,
            None if some.forces is None else some.forces.reshape(shape),
            cell=some.cell_of(0),
            stress=some.stress if some.has_stress.any() else None,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of an npz file: energies and cells in double, all else in single precision."""
        arrays: dict[str, np.ndarray] = {
            "z": self.atomic_numbers.numpy().astype(np.int64),
            "R": self.positions.numpy().astype(np.float32),
            "n_atoms": self.n_atoms.numpy().astype(np.int64),
            "E": self.energy.numpy().astype(np.float64),
        }
        if self.forces is not None:
            arrays["F"] = self.forces.numpy().astype(np.float32)
        if self.is_periodic.any():
            assert self.cell is not None
            arrays["cell"] = self.cell.numpy().astype(np.float64)
        if self.has_stress.any():
            assert self.stress is not None
            arrays["stress"] = self.stress.numpy().astype(np.float32)
        return arrays

    @staticmethod
    def cat(parts: Sequence[MixedFrames]) -> MixedFrames:
        """All frames of several sets, in order. Labels and cells that some lack are NaN, or zeros."""

        def joined(name: str, missing: float) -> Tensor | None:
            if all(getattr(part, name) is None for part in parts):
                return None
            filled = (torch.full((len(part), 3, 3), missing, dtype=torch.float64) for part in parts)
            values = [getattr(part, name) for part in parts]
            return torch.cat([blank if v is None else v.double() for v, blank in zip(values, filled, strict=True)])

        return MixedFrames(
            torch.cat([part.atomic_numbers for part in parts]),
            torch.cat([part.positions for part in parts]),
            torch.cat([part.n_atoms for part in parts]),
            torch.cat([part.energy for part in parts]),
            torch.cat([part.labels for part in parts]),
            joined("cell", 0.0),
            joined("stress", torch.nan),
        )


def _formula(numbers: Int[Tensor, "_"], known: dict[bytes, str]) -> str:
    key = numbers.numpy().tobytes()
    if key not in known:
        known[key] = Symbols(numbers.numpy()).get_chemical_formula()
    return known[key]


def is_mixed(path: Path) -> bool:
    """Whether a file has frames of several sizes, by the names of its arrays."""
    return "n_atoms" in read_arrays(path, wanted=("n_atoms",))


def read_mixed_frames(path: Path, require_forces: bool = False) -> MixedFrames:
    """Read and check the frames of one npz file of flat arrays.

    Raises:
        DatasetError: the file is damaged, or an array is missing, unknown, misshapen, not finite or in other units.
    """
    arrays = read_arrays(path)
    needed = {"z", "R", "n_atoms", "E"}
    check_names(path, arrays, needed | {"F"} if require_forces else needed, SHAPES)
    lengths = {"total_atom": arrays["z"].size, "frame": arrays["n_atoms"].size}
    check_shapes(path, arrays, SHAPES, lengths)
    if 0 in lengths.values():
        raise DatasetError(f"{path}: holds {lengths['frame']} frames of {lengths['total_atom']} atoms in all")
    _check_values(path, arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return MixedFrames(
        tensors["z"].long(),
        tensors["R"],
        tensors["n_atoms"].long(),
        tensors["E"],
        tensors.get("F"),
        tensors.get("cell"),
        tensors.get("stress"),
    )


def _check_values(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    check_numbers(path, arrays)
    sizes = arrays["n_atoms"].astype(np.int64)
    if (sizes < 1).any() or sizes.sum() != len(arrays["z"]):
        raise DatasetError(
            f"{path}: n_atoms must be positive and sum to the {len(arrays['z'])} atoms of z, but does not"
        )
    is_periodic = np.zeros(len(sizes), dtype=bool)
    if "cell" in arrays:
        is_periodic = (arrays["cell"] != 0).any((1, 2))
        for frame in np.flatnonzero(is_periodic):
            check_cell(f"{path}, frame {frame}", arrays["cell"][frame], int(sizes[frame]))
    if "stress" in arrays:
        check_stress(path, arrays["stress"], is_periodic)
    if "F" in arrays:
        check_forces(path, arrays["F"])
