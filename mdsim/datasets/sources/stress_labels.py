"""Stress labels among the quantities of a frame: stresses with the sign of ASE, or virials.

A stress is negative under compression. A virial is the opposite of the stress times the volume, as in the files of
GAP and MACE. Both may have six numbers in Voigt order (xx, yy, zz, yz, xz, xy) or nine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from mdsim.datasets.sources.labels import ABOUT_A_LABEL, places, words
from mdsim.errors import DatasetError
from mdsim.typing import Float

NONE = "none"  # in place of a name: leave all aside
WORDS = {"stress": False, "virial": True, "virials": True}  # whether it is a virial
SAME = 1e-4  # relative difference of labels that are rounded differently


def stresses_of(
    path: Path, images: list[Atoms], asked: str | None
) -> tuple[str | None, list[Float[np.ndarray, "3 3"] | None], list[str]]:
    """The stress of each frame in energy per volume, in the units of the file.

    Args:
        path: of the file.
        images: frames of any systems. Those without periodic boundaries have no stress.
        asked: name of the label; "none" for no stresses; None: recognized.

    Returns:
        The name of the label (None if no frame has one), the stress of each frame (None where it has none), and
        remarks.

    Raises:
        DatasetError: several candidates differ, a value is misshapen, or no frame has the label asked for.
    """
    nothing: list[Float[np.ndarray, "3 3"] | None] = [None] * len(images)
    if asked == NONE:
        return None, nothing, []
    is_periodic = [bool(image.pbc.all() and image.cell.rank == 3) for image in images]
    names = [asked] if asked is not None else _candidates(images, is_periodic)
    found = {
        name: [_stress(path, i, images[i], name) if is_periodic[i] else None for i in range(len(images))]
        for name in names
    }
    if asked is not None and all(stress is None for stress in found[asked]):
        raise DatasetError(
            f"{path}: no periodic frame has a stress named {asked!r}; leave out --stress-key, or name another"
        )
    if not found:
        return None, nothing, []
    most = max(found, key=lambda name: sum(stress is not None for stress in found[name]))
    for name, stresses in found.items():
        if any(_differ(one, other) for one, other in zip(stresses, found[most], strict=True)):
            raise DatasetError(
                f"{path}: {most} and {name} may each be the stress, and they differ: choose with --stress-key"
                f" ({NONE}: without stresses)"
            )
    stresses = [None if stress is not None and not stress.any() else stress for stress in found[most]]
    zeros = sum(stress is not None for stress in found[most]) - sum(stress is not None for stress in stresses)
    remarks = [f"{zeros} stresses of exactly zero are taken for missing ones"] if zeros else []
    return most, stresses, remarks


def _candidates(images: list[Atoms], is_periodic: list[bool]) -> list[str]:
    """Names under which frames may have stresses, in order of their appearance."""
    names: dict[str, None] = {}
    for image, periodic in zip(images, is_periodic, strict=True):
        for content in places(image)[:2] if periodic else ():
            for name, value in content.items():
                of_name = words(name)
                if WORDS.keys() & set(of_name) and not ABOUT_A_LABEL & set(of_name) and np.size(value) in (6, 9):
                    names.setdefault(str(name))
    return list(names)


def _stress(path: Path, frame: int, image: Atoms, name: str) -> Float[np.ndarray, "3 3"] | None:
    value = next((place[name] for place in places(image)[:2] if name in place), None)
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{path}: {name} of frame {frame} is not a stress ({value!r:.60})") from error
    if array.size not in (6, 9):
        raise DatasetError(f"{path}: {name} of frame {frame} has shape {array.shape}, expected 6 or 9 numbers")
    if not np.isfinite(array).all():
        return None
    full = voigt_6_to_full_3x3_stress(array.ravel()) if array.size == 6 else array.reshape(3, 3)
    is_virial = any(WORDS.get(word, False) for word in words(name))
    return -full / image.get_volume() if is_virial else np.array(full)


def _differ(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return False
    return bool(np.abs(one - other).max() > SAME * max(np.abs(one).max(), np.abs(other).max()))
