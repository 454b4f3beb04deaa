"""Isolated atoms among the frames of a file, whose energies are the atomic reference energies of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from mdsim.datasets.sources.labels import each, names
from mdsim.typing import Float, Int

ALONE_A = 8.0  # distance of periodic images of an atom beyond which it counts as isolated
SAME_ENERGY = 1e-3  # in the unit of the file
MOST_BINDING_EV = 15.0  # per atom: more than in any molecule or crystal (tungsten: 8.9)


def is_isolated(image: Atoms) -> bool:
    """Whether a frame is an isolated atom: called so (`config_type=IsolatedAtom`), or one atom far from its images."""
    if len(image) != 1:
        return False
    if _called_isolated(image) or not image.pbc.any():
        return True
    lengths = image.cell.lengths()[image.pbc]
    return bool((lengths > ALONE_A).all())


def energies_of(path: Path, images: Sequence[Atoms], energy_key: str) -> tuple[dict[int, float], list[str]]:
    """Energies of the isolated atoms of a file by atomic number, in its unit, and remarks on atoms that are not used.

    Args:
        path: path of the file.
        images: all its frames.
        energy_key: name of the energies.
    """
    found: dict[int, list[float]] = {}
    alone = [image for image in images if is_isolated(image) and energy_key in names(image)]
    called = {int(image.numbers[0]) for image in alone if _called_isolated(image)}
    alone = [image for image in alone if _called_isolated(image) or int(image.numbers[0]) not in called]
    for image, energy in zip(alone, each(path, alone, "energy", energy_key), strict=True):
        found.setdefault(int(image.numbers[0]), []).append(float(energy[0]))
    usable = {number: values[0] for number, values in found.items() if np.ptp(values) <= SAME_ENERGY}
    remarks = [
        f"isolated atoms of {chemical_symbols[number]} have energies from {min(values):g} to {max(values):g}, so none"
        " is taken; give one with --atomic-energies"
        for number, values in found.items()
        if number not in usable
    ]
    return {number: energy for number, energy in usable.items() if np.isfinite(energy)}, remarks


def binding_energy_eV(
    numbers: Int[np.ndarray, "atom"], energies: Float[np.ndarray, "frame"], atoms: Mapping[str, float]
) -> float | None:
    """Mean binding energy per atom, eV: positive if the frames are lower than their atoms. None if an atom is missing.

    Args:
        numbers: atomic numbers.
        energies: total energies of frames, eV.
        atoms: energies of isolated atoms by chemical symbol, eV.
    """
    symbols = [chemical_symbols[number] for number in numbers]
    if not set(symbols) <= set(atoms):
        return None
    return (sum(atoms[symbol] for symbol in symbols) - float(np.mean(energies))) / len(symbols)


def doubt(binding_eV: float | None) -> str | None:
    """What is wrong with a binding energy per atom, for a warning."""
    if binding_eV is None or 0 < binding_eV < MOST_BINDING_EV:
        return None
    return (
        f"the frames are bound by {binding_eV:.4g} eV per atom relative to their isolated atoms, and 0 to"
        f" {MOST_BINDING_EV:g} eV are possible: are the atomic energies of the same method, in eV?"
    )


def described(atoms: Mapping[str, float]) -> str:
    """The table on one line, lightest first."""
    return (
        ", ".join(f"{symbol} {atoms[symbol]:.6g}" for symbol in sorted(atoms, key=atomic_numbers.__getitem__)) + " eV"
    )


def _called_isolated(image: Atoms) -> bool:
    name = str(image.info.get("config_type", ""))
    return "".join(filter(str.isalpha, name)).lower() == "isolatedatom"
