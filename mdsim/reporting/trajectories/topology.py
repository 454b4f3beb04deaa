"""PDB files beside trajectories without elements and bonds, by MDAnalysis.

Each molecule is a residue. Atom names are elements with numbers within the molecule. Masses are not in the file, and
bonds only up to 99999 atoms, which is what its columns hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import MDAnalysis
import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from MDAnalysis.coordinates.PDB import PDBWriter

from mdsim.reporting.trajectories.axes import in_standard_axes, lengths_and_angles
from mdsim.reporting.trajectories.frames import Header, ReplicaFrames
from mdsim.state import System
from mdsim.typing import Float, Int

SUFFIX = ".pdb"
SMALLEST_A, LARGEST_A = -999.0, 9999.0  # coordinates that the columns of a PDB file hold
LONGEST_NAME, MOST_RESIDUES, MOST_ATOMS, BONDS_PER_RECORD = 4, 10000, 99999, 4


def write(path: Path, header: Header, frames: ReplicaFrames) -> None:
    """Write the topology, with the first frame. Coordinates beyond the columns of the format are clipped."""
    system, first = header.system, in_standard_axes(frames[:1])
    molecules = system.molecules.numpy()
    universe = MDAnalysis.Universe.empty(
        system.n_atoms,
        n_residues=system.n_molecules,
        atom_resindex=molecules,
        residue_segindex=np.zeros(system.n_molecules, dtype=np.int64),
        trajectory=True,
    )
    symbols = np.array([chemical_symbols[number] for number in system.atomic_numbers.tolist()])
    universe.add_TopologyAttr("names", _names(symbols, molecules))
    for attribute in ("types", "elements"):
        universe.add_TopologyAttr(attribute, symbols)
    universe.add_TopologyAttr("resnames", _residue_names(system))
    universe.add_TopologyAttr("resids", np.arange(system.n_molecules) % (MOST_RESIDUES - 1) + 1)
    universe.add_TopologyAttr("segids", ["A"])
    universe.add_TopologyAttr("chainIDs", ["A"] * system.n_atoms)
    universe.atoms.positions = np.clip(first.positions[0], SMALLEST_A, LARGEST_A)
    if first.cell is not None:
        box = lengths_and_angles(first.cell)[0]
        universe.dimensions = np.append(box[:3], np.rad2deg(np.arccos(box[3:])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a missing cell, occupancies, charges
        with PDBWriter(str(path), bonds=None, multiframe=False) as writer:
            writer.write(universe.atoms)
    text = path.read_text(encoding="ascii").removesuffix("END\n")
    path.write_text(text + "".join(_bond_records(system)) + "END\n", encoding="ascii")


def read(trajectory: Path, cell: Float[np.ndarray, "frame 3 3"] | None) -> System:
    """The system of the PDB file beside a trajectory, with the cell of its first frame.

    Raises:
        ValueError: there is no such file.
    """
    path = trajectory.with_suffix(SUFFIX)
    if not path.is_file():
        raise ValueError(
            f"{trajectory} has no elements and bonds, and {path.name} beside it is missing: keep them together"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(path), to_guess=())
    numbers = np.array([atomic_numbers[symbol.capitalize()] for symbol in universe.atoms.elements], dtype=np.int64)
    bonds = np.sort(universe.bonds.indices, axis=1) if hasattr(universe, "bonds") else np.zeros((0, 2))
    bonds = np.unique(np.asarray(bonds, dtype=np.int64).reshape(-1, 2), axis=0)
    return System.from_bonds(numbers, torch.from_numpy(bonds), None if cell is None else cell[0], dtype=torch.float64)


def _bond_records(system: System) -> Iterator[str]:
    """CONECT records. Those that MDAnalysis writes are the same, but take seconds for thousands of atoms."""
    if system.n_atoms > MOST_ATOMS:
        return
    neighbors: dict[int, list[int]] = {}
    for i, j in (system.bonds + 1).tolist():
        neighbors.setdefault(i, []).append(j)
        neighbors.setdefault(j, []).append(i)
    for atom in sorted(neighbors):
        others = sorted(neighbors[atom])
        for start in range(0, len(others), BONDS_PER_RECORD):
            chosen = others[start : start + BONDS_PER_RECORD]
            yield "CONECT" + "".join(f"{number:5d}" for number in (atom, *chosen)) + "\n"


def _names(symbols: np.ndarray, molecules: Int[np.ndarray, "atom"]) -> list[str]:
    """Elements with numbers within the molecule, such as C1; only the element where that does not fit."""
    counts: dict[tuple[int, str], int] = {}
    names = []
    for molecule, symbol in zip(molecules.tolist(), symbols.tolist(), strict=True):
        counts[molecule, symbol] = number = counts.get((molecule, symbol), 0) + 1
        name = f"{symbol}{number}"
        names.append(name if len(name) <= LONGEST_NAME else symbol)
    return names


def _residue_names(system: System) -> list[str]:
    """HOH for water, and MOL for all other molecules."""
    numbers, molecules = system.atomic_numbers.numpy(), system.molecules.numpy()
    compositions = np.zeros((system.n_molecules, len(chemical_symbols)), dtype=np.int64)
    np.add.at(compositions, (molecules, numbers), 1)
    water = np.bincount(Atoms("H2O").numbers, minlength=len(chemical_symbols))
    return ["HOH" if is_water else "MOL" for is_water in (compositions == water).all(1).tolist()]
