"""Structures of a known system, without labels, from files of many formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from mdsim.boundaries import why_unsupported
from mdsim.datasets.sources.ase_files import read_images_in_A
from mdsim.errors import ConfigError, DatasetError, one_line
from mdsim.reporting.trajectories import read_trajectory, to_ase
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
    images = _images(path)
    for number, atoms in enumerate(images):
        if fault := _fault(atoms, system) or _fault_of_cell(atoms, system):
            raise DatasetError(f"{path}, structure {number}: {fault}")
    return torch.from_numpy(np.stack([atoms.positions for atoms in images])).to(system.masses)


def read_structures_in_cells(
    path: Path, system: System
) -> tuple[Float[Tensor, "structure atom 3"], Float[Tensor, "structure 3 3"]]:
    """Positions and lattice vectors in Å of a trajectory at constant pressure, each structure in its own cell.

    Args:
        path: structures or a trajectory, in a format of `mdsim.reporting.trajectories` or one that ASE can read.
        system: the system of the structures. Its atoms must be in the same order.

    Raises:
        DatasetError: as `read_structures`, or a structure has open boundaries.
    """
    images = _images(path)
    for number, atoms in enumerate(images):
        fault = _fault(atoms, system)
        if fault is None and not atoms.pbc.all():
            fault = "it has open boundaries, and so no volume"
        if fault is not None:
            raise DatasetError(f"{path}, structure {number}: {fault}")
    found = (np.stack([atoms.positions for atoms in images]), np.stack([atoms.cell.array for atoms in images]))
    positions, cells = (torch.from_numpy(array).to(system.masses) for array in found)
    return positions, cells


def _images(path: Path) -> list[Atoms]:
    try:
        if path.suffix == ".gsd":  # which ASE does not read
            stored = read_trajectory(path)
            return to_ase(stored.system, stored.trajectory, 0)
        return read_images_in_A(path)[0]
    except (DatasetError, ConfigError, ValueError, OSError, RuntimeError) as error:
        raise DatasetError(f"{path}: cannot be read as structures ({one_line(error)})") from error


def _fault(atoms: Atoms, system: System) -> str | None:
    """Why these are not atoms of the system, if they are not."""
    if atoms.numbers.tolist() != system.atomic_numbers.tolist():
        return f"the {len(atoms)} atoms are not the {system.n_atoms} atoms of the system in the same order"
    if not np.isfinite(atoms.positions).all():
        return "positions are not finite"
    return why_unsupported(atoms.pbc, atoms.cell.array)


def _fault_of_cell(atoms: Atoms, system: System) -> str | None:
    """How their cell differs from that of the system, if it does."""
    cell = None if system.cell is None else system.cell.double().cpu().numpy()
    if cell is not None and not np.allclose(atoms.cell.array, cell, atol=CELL_TOLERANCE_A):
        return f"its cell {np.round(atoms.cell.array, 4).tolist()} differs from that of the system"
    return None
