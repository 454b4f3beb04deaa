"""Checks of the arrays in files of frames: names, shapes, types, and plausible values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mdsim.boundaries import why_unsupported
from mdsim.errors import DatasetError
from mdsim.typing import Float

Shapes = Mapping[str, tuple[str | int, ...]]

HEAVIEST = 118  # atomic number
SMALLEST_VOLUME_A3 = 0.5  # cell volume per atom
# Thermal forces are near 2 eV/Å even for the stiffest bonds; in kcal/mol/Å they are around 30 for an organic molecule.
PLAUSIBLE_FORCE_RMS_EV_PER_A = (0.01, 10.0)
LARGEST_STRESS_RMS_EV_PER_A3 = 3.0  # 480 GPa: numbers in GPa or kbar are larger
ASYMMETRY = 1e-3  # of a stress, relative to its largest element


def check_names(path: Path, arrays: Mapping[str, np.ndarray], required: set[str], shapes: Shapes) -> None:
    """Raise an error for missing and for unknown arrays."""
    if missing := sorted(required - set(arrays)):
        raise DatasetError(f"{path}: misses {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}")
    if unknown := sorted(set(arrays) - set(shapes)):
        raise DatasetError(f"{path}: does not know the arrays {', '.join(unknown)}; the format has {', '.join(shapes)}")


def check_shapes(path: Path, arrays: Mapping[str, np.ndarray], shapes: Shapes, lengths: Mapping[str, int]) -> None:
    """Raise an error for arrays of other shapes, given the lengths of the axes."""
    for name, array in arrays.items():
        expected = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in shapes[name])
        if array.shape != expected:
            axes = ", ".join(map(str, shapes[name]))
            raise DatasetError(f"{path}: {name} has shape {array.shape}, expected ({axes}) = {expected}")


def check_numbers(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise an error for other types, for values that are not finite, and for unknown elements."""
    for name, array in arrays.items():
        integers = name in ("z", "n_atoms")
        if array.dtype.kind not in ("iu" if integers else "f") or (name == "E" and array.dtype != np.float64):
            wanted = "integers" if integers else "floating-point numbers"
            wanted = "float64, which total energies need" if name == "E" else wanted
            raise DatasetError(f"{path}: {name} is {array.dtype}, expected {wanted}")
        if name != "stress" and (bad := int(np.count_nonzero(~np.isfinite(array)))):
            raise DatasetError(f"{path}: {name} holds {bad} values that are not finite; remove those frames")
    numbers = arrays["z"]
    if len(bad_atoms := np.flatnonzero((numbers < 1) | (numbers > HEAVIEST))):
        raise DatasetError(f"{path}: z of atom {bad_atoms[0]} is {numbers[bad_atoms[0]]}, which is not an element")


def check_forces(path: Path, forces: np.ndarray) -> None:
    """Raise an error for forces that cannot be in eV/Å."""
    rms = float(np.sqrt(np.mean(np.square(forces, dtype=np.float64))))
    low, high = PLAUSIBLE_FORCE_RMS_EV_PER_A
    if not low < rms < high:
        raise DatasetError(
            f"{path}: the forces have a root mean square of {rms:.3g}, which cannot be eV/Å ({low} to {high}):"
            " were they in kcal/mol/Å (then multiply forces and energies by 0.0433641) or in atomic units?"
        )


def check_cell(where: str, cell: Float[np.ndarray, "3 3"], n_atoms: int) -> None:
    """Raise an error for a cell that is too small for its atoms. ``where`` names the file, and the frame."""
    if cell.any() and (fault := why_unsupported([True] * 3, cell)):
        raise DatasetError(f"{where}: {fault}")
    volume = abs(float(np.linalg.det(cell.astype(np.float64))))
    if not SMALLEST_VOLUME_A3 * n_atoms < volume:
        raise DatasetError(f"{where}: a cell of {volume:.3g} Å³ cannot hold {n_atoms} atoms: is it in Å, and complete?")


def check_stress(path: Path, stress: Float[np.ndarray, "frame 3 3"], is_periodic: np.ndarray) -> None:
    """Raise an error for stresses that are incomplete, not symmetric, not in eV/Å³, or without a cell.

    Args:
        path: of the file.
        stress: NaN where a frame has none.
        is_periodic: whether each frame has a cell.
    """
    known = np.isfinite(stress).reshape(len(stress), -1)
    if len(partial := np.flatnonzero(known.any(1) & ~known.all(1))):
        raise DatasetError(
            f"{path}: stress of frame {partial[0]} is incomplete; all nine numbers of a frame may be NaN"
        )
    labeled = known.all(1)
    if len(lost := np.flatnonzero(labeled & ~is_periodic)):
        raise DatasetError(f"{path}: frame {lost[0]} has a stress, but open boundaries and therefore no volume")
    values = stress[labeled].astype(np.float64)
    if not len(values):
        return
    skew = np.abs(values - values.transpose(0, 2, 1)).max((1, 2)) > ASYMMETRY * np.abs(values).max((1, 2)) + 1e-6
    if skew.any():
        raise DatasetError(f"{path}: stress of frame {np.flatnonzero(labeled)[skew][0]} is not symmetric")
    rms = float(np.sqrt(np.mean(np.square(values))))
    if rms > LARGEST_STRESS_RMS_EV_PER_A3:
        raise DatasetError(
            f"{path}: the stresses have a root mean square of {rms:.3g}, which cannot be eV/Å³: were they in GPa (then"
            " divide by 160.21766) or kbar (by 1602.1766)?"
        )
