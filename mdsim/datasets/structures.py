"""Structures of a known system, without labels, from files of many formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from mdsim.boundaries import why_unsupported
from mdsim.datasets.sources.ase_files import read_images_in_A
from mdsim.errors import DatasetError, one_line
from mdsim.state import System
from mdsim.typing import Float, Tensor

CELL_TOLERANCE_A = 1e-3  # files state cells with few digits


def read_structures(path: Path, system: System) -> Float[Tensor, "structure atom 3"]:
    """Positions in Å of all structures in a file that ASE can read, on the device and in the precision of the system.

    Args:
        path: structures or a trajectory.
        system: the system of the structures. Its atoms must be in the same order, and its cell the same.

    Raises:
        DatasetError: the file cannot be read, or contains another system or non-finite positions.
    """
    try:
        images, _ = read_images_in_A(path)
    except DatasetError as error:
        raise DatasetError(f"{path}: cannot be read as structures ({one_line(error)})") from error
    for number, atoms in enumerate(images):
        if fault := _fault(atoms, system):
            raise DatasetError(f"{path}, structure {number}: {fault}")
    return torch.from_numpy(np.stack([atoms.positions for atoms in images])).to(system.masses)


def _fault(atoms: Atoms, system: System) -> str | None:
    """Why these are not atoms of the system, if they are not."""
    if atoms.numbers.tolist() != system.atomic_numbers.tolist():
        return f"the {len(atoms)} atoms are not the {system.n_atoms} atoms of the system in the same order"
    if not np.isfinite(atoms.positions).all():
        return "positions are not finite"
    if fault := why_unsupported(atoms.pbc, atoms.cell.array):
        return fault
    cell = None if system.cell is None else system.cell.double().cpu().numpy()
    if cell is not None and not np.allclose(atoms.cell.array, cell, atol=CELL_TOLERANCE_A):
        return f"its cell {np.round(atoms.cell.array, 4).tolist()} differs from that of the system"
    return None
